//! The QUIC lane: datagrams that share the sockets but are not data messages.

use std::task::{Context, Poll};

use bytes::BytesMut;
use gvpn_path::Hop;
use tokio::sync::mpsc;

/// A datagram, or several of one size, to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Where to.
    pub hop: Hop,
    /// The bytes of one datagram, or of several.
    pub contents: &'a [u8],
    /// When there are several: the size of each but the last, which may be shorter.
    pub segment_size: Option<usize>,
    /// Explicit congestion notification: the low two bits of the traffic class.
    pub ecn: u8,
}

/// A datagram, or several of one size, that arrived.
#[derive(Debug)]
pub struct ReceivedDatagram {
    /// Where it came from.
    pub hop: Hop,
    /// The bytes of one datagram, or of several.
    pub contents: BytesMut,
    /// The size of each datagram in `contents` but the last, which may be shorter.
    pub stride: usize,
    /// Explicit congestion notification: the low two bits of the traffic class.
    pub ecn: u8,
}

/// Yields the datagrams that are not data messages: QUIC packets, parts of them, and relay control messages.
/// The queue behind it is bounded; what does not fit is dropped and counted.
#[derive(Debug)]
pub struct DatagramReceiver {
    pub(crate) queue: mpsc::Receiver<ReceivedDatagram>,
}

impl DatagramReceiver {
    /// Waits for the next datagram; `None` once the data plane has ended.
    pub async fn recv(&mut self) -> Option<ReceivedDatagram> {
        self.queue.recv().await
    }

    /// Polls for the next datagram.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<ReceivedDatagram>> {
        self.queue.poll_recv(cx)
    }
}
