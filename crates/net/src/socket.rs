//! The socket that QUIC believes to have.

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt, io,
    io::IoSliceMut,
    net::{Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use gvpn_dataplane::{DataPlane, Datagram, DatagramReceiver, Hop, ReceivedDatagram};
use gvpn_path::MIN_MTU;
use parking_lot::Mutex;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit},
};
use tokio::sync::mpsc;

use crate::{
    flight,
    link::{Form, Link, Links, Sending},
    parts::{self, Parts, TYPE_PART},
};

/// First byte of a relay's control message.
const TYPE_RELAY_CONTROL: u8 = 0x06;
/// How many datagrams QUIC may send or receive at once.
const MAX_SEGMENTS: usize = 32;
/// How long to wait when the real socket is full.
const FULL: Duration = Duration::from_millis(1);

/// QUIC's side of the data plane's sockets.
pub(crate) struct Socket {
    plane: DataPlane,
    links: Arc<Links>,
    inbox: Mutex<Inbox>,
    control: mpsc::UnboundedSender<(Hop, BytesMut)>,
    /// The real socket had no room.
    full: AtomicBool,
}

struct Inbox {
    receiver: DatagramReceiver,
    /// Datagrams that are sorted but not yet read by QUIC.
    ready: VecDeque<Ready>,
    /// Datagrams of which some parts have come.
    parts: Parts,
}

struct Ready {
    from: SocketAddr,
    contents: BytesMut,
    stride: usize,
    ecn: u8,
}

impl Socket {
    /// A socket that also passes on the control messages of relays.
    pub(crate) fn new(
        plane: DataPlane,
        receiver: DatagramReceiver,
        links: Arc<Links>,
        control: mpsc::UnboundedSender<(Hop, BytesMut)>,
    ) -> Self {
        let inbox = Mutex::new(Inbox { receiver, ready: VecDeque::new(), parts: Parts::default() });
        Self { plane, links, inbox, control, full: AtomicBool::new(false) }
    }

    /// Finds out for whom a batch is.
    fn sort(&self, mut batch: ReceivedDatagram, ready: &mut VecDeque<Ready>, parts: &mut Parts) {
        if batch.contents.first() == Some(&TYPE_RELAY_CONTROL) {
            // The receiver is gone only while the net ends.
            let _ = self.control.send((batch.hop, batch.contents));
            return;
        }
        let stride = batch.stride.max(1);
        while !batch.contents.is_empty() {
            let size = stride.min(batch.contents.len());
            let datagram = batch.contents.split_to(size);
            let in_parts = datagram.first() == Some(&TYPE_PART);
            let (datagram, size) = match in_parts.then(|| parts.add(batch.hop, &datagram)) {
                None => (datagram, size),
                Some(Some(whole)) => whole,
                Some(None) => continue,
            };
            let stride = if in_parts { datagram.len() } else { stride };
            let links = self.links.route(batch.hop, &datagram, size, in_parts);
            let copies = links.len();
            let mut datagram = Some(datagram);
            for (i, link) in links.iter().enumerate() {
                let contents = if i + 1 == copies { datagram.take() } else { datagram.clone() };
                let Some(contents) = contents else { break };
                push(ready, link, contents, stride, batch.ecn);
            }
        }
    }

    /// Sends the packets of a handshake again as long as it is waited for.
    pub(crate) async fn say_again(plane: &DataPlane, link: &Link) -> Infallible {
        loop {
            tokio::time::sleep(flight::AGAIN / 2).await;
            for (sendings, packet) in link.again(Instant::now()) {
                for Sending { hop, size, form } in sendings {
                    let contents = &packet[..size];
                    let datagram = Datagram { hop, contents, segment_size: None, ecn: 0 };
                    if let Err(error) = send(plane, link, &datagram, form) {
                        tracing::trace!(%hop, %error, "packet not sent again");
                    }
                }
            }
        }
    }

    /// Sends a datagram again on one hop.
    pub(crate) fn repeat(plane: &DataPlane, hop: Hop, contents: &[u8]) {
        let datagram = Datagram { hop, contents, segment_size: None, ecn: 0 };
        if let Err(error) = plane.send_datagram(&datagram) {
            tracing::trace!(%hop, %error, "datagram not repeated");
        }
    }
}

/// Sends datagrams one way, in the form that suits it.
fn send(plane: &DataPlane, link: &Link, datagram: &Datagram<'_>, form: Form) -> io::Result<()> {
    match form {
        Form::Whole => {}
        Form::Parts(mtu) => return send_in_parts(plane, datagram, mtu),
        Form::Both => drop(send_in_parts(plane, datagram, MIN_MTU)),
    }
    let sent = plane.send_datagram(datagram);
    let too_large = |error: &io::Error| error.raw_os_error() == Some(nix::libc::EMSGSIZE);
    if sent.as_ref().is_err_and(too_large) {
        link.narrows(datagram.hop);
        return send_in_parts(plane, datagram, MIN_MTU);
    }
    sent
}

/// Sends datagrams so that what is on the wire is a UDP payload of at most `mtu` bytes.
fn send_in_parts(plane: &DataPlane, datagram: &Datagram<'_>, mtu: u16) -> io::Result<()> {
    let room = usize::from(mtu).saturating_sub(datagram.hop.header_len());
    let size = datagram.segment_size.unwrap_or(datagram.contents.len()).max(1);
    datagram.contents.chunks(size).try_for_each(|whole| {
        let split = match whole.len() > room {
            true => parts::split(whole, room, rand::random()),
            false => None,
        };
        let (contents, segment_size) = match &split {
            Some((bytes, stride)) => (&bytes[..], Some(*stride)),
            None => (whole, None),
        };
        plane.send_datagram(&Datagram { contents, segment_size, ..*datagram })
    })
}

/// Appends a datagram, joined with the one before it if both are alike and adjacent in memory.
fn push(ready: &mut VecDeque<Ready>, link: &Link, contents: BytesMut, stride: usize, ecn: u8) {
    let from = link.address();
    if let Some(last) = ready.back_mut() {
        let room = last.contents.len() < stride * MAX_SEGMENTS;
        let whole = last.contents.len().is_multiple_of(stride);
        if last.from == from && last.stride == stride && last.ecn == ecn && room && whole {
            last.contents.unsplit(contents);
            return;
        }
    }
    ready.push_back(Ready { from, contents, stride, ecn });
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller { socket: self, sleep: Mutex::new(None) })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // A link that is gone belongs to a connection that is: nobody waits for the packet.
        let Some(link) = self.links.get(transmit.destination) else { return Ok(()) };
        self.links.learn(&link, transmit.contents);
        let sendings = link.send_to(Instant::now(), transmit);
        let mut full = !sendings.is_empty();
        for sending in sendings {
            let datagram = Datagram {
                hop: sending.hop,
                contents: &transmit.contents[..sending.size],
                segment_size: transmit.segment_size,
                ecn: transmit.ecn.map_or(0, |ecn| ecn as u8),
            };
            match send(&self.plane, &link, &datagram, sending.form) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => tracing::trace!(hop = %sending.hop, %error, "datagram not sent"),
                Ok(()) => {}
            }
            full = false;
        }
        if full {
            self.full.store(true, Ordering::Relaxed);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbox = self.inbox.lock();
        let Inbox { receiver, ready, parts } = &mut *inbox;
        while ready.len() < bufs.len() {
            match receiver.poll_recv(cx) {
                Poll::Ready(Some(batch)) => self.sort(batch, ready, parts),
                Poll::Ready(None) if ready.is_empty() => {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(meta) {
            let Some(next) = ready.front_mut() else { break };
            let stride = next.stride.min(buf.len());
            let fits = (buf.len() / stride.max(1)) * stride;
            let size = next.contents.len().min(fits);
            next.contents.copy_to_slice(&mut buf[..size]);
            *meta = RecvMeta {
                addr: next.from,
                len: size,
                stride,
                ecn: EcnCodepoint::from_bits(next.ecn),
                dst_ip: None,
            };
            if next.contents.is_empty() {
                ready.pop_front();
            }
            count += 1;
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok((Ipv6Addr::UNSPECIFIED, 1).into())
    }

    fn max_transmit_segments(&self) -> usize {
        MAX_SEGMENTS
    }

    fn max_receive_segments(&self) -> usize {
        MAX_SEGMENTS
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Socket")
    }
}

/// Lets QUIC try again after a moment: the data plane does not say when its socket has room.
struct Poller {
    socket: Arc<Socket>,
    sleep: Mutex<Option<Pin<Box<tokio::time::Sleep>>>>,
}

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.socket.full.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let mut sleep = self.sleep.lock();
        let moment = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(FULL)));
        std::task::ready!(moment.as_mut().poll(cx));
        *sleep = None;
        self.socket.full.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poller")
    }
}
