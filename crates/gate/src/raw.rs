//! A WebSocket joined to a socket of Ethernet frames.

use std::{io, os::fd::OwnedFd, time::Duration};

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt, stream::SplitSink};
use tokio::{net::UnixDatagram, time::sleep_until};

use crate::{BridgeOptions, ClientSocket, Ended, RawGuard};

/// The largest Ethernet frame that a client may send: a super-packet's worth.
pub const RAW_FRAME_MAX: usize = 65_550;
/// An Ethernet header: less is no frame.
const RAW_FRAME_MIN: usize = 14;

/// Carries Ethernet frames between a client and `frames`, one of [`frame_sockets`](crate::frame_sockets):
/// each message of the client is a frame, each frame is a binary message to it. Ends when
/// the client closes or is gone, or when the other end of `frames` is closed.
///
/// # Errors
/// When `frames` is no usable socket.
pub async fn bridge_raw(
    socket: WebSocket,
    frames: OwnedFd,
    guard: RawGuard,
    client: &ClientSocket,
    options: BridgeOptions,
) -> io::Result<Ended> {
    let frames = std::os::unix::net::UnixDatagram::from(frames);
    frames.set_nonblocking(true)?;
    let frames = UnixDatagram::from_std(frames)?;
    let (mut sink, mut source) = socket.split();
    let down = send_frames(&mut sink, &frames, options.ping_every);
    let up = async {
        while let Some(message) = source.next().await {
            let frame = match message {
                Ok(Message::Binary(frame)) => frame,
                Ok(Message::Text(frame)) => Bytes::from(frame),
                Ok(Message::Ping(_) | Message::Pong(_)) => continue,
                Ok(Message::Close(_)) => return Ended::Closed,
                Err(_) => return Ended::ClientGone,
            };
            if !(RAW_FRAME_MIN..=RAW_FRAME_MAX).contains(&frame.len()) {
                return Ended::ClientFault;
            }
            match frames.send(&frame).await {
                Ok(_) => {}
                // A frame that the network does not take is a frame lost, as on any wire.
                Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => {}
                Err(_) => return Ended::PayloadReset,
            }
        }
        Ended::ClientGone
    };
    let vanished = async {
        let mut ticks = tokio::time::interval(options.silence_limit / 4);
        loop {
            ticks.tick().await;
            if client.silent_for().is_some_and(|silence| silence > options.silence_limit) {
                return;
            }
        }
    };
    let ended = tokio::select! {
        ended = up => ended,
        ended = down => ended,
        () = vanished => Ended::ClientSilent,
    };
    let code = match ended {
        Ended::PayloadReset => Some((close_code::AWAY, "the network was removed")),
        Ended::ClientFault => Some((close_code::SIZE, "a message must be one Ethernet frame")),
        _ => None,
    };
    if let Some((code, reason)) = code {
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        let _ = tokio::time::timeout(options.linger, sink.send(close)).await;
    }
    if ended == Ended::Closed {
        // Lets the answer to the client's Close out.
        let _ = tokio::time::timeout(options.linger, source.next()).await;
    }
    drop(guard);
    Ok(ended)
}

/// Sends what the network has for the client; flushes when there is no more for now.
async fn send_frames(
    sink: &mut SplitSink<WebSocket, Message>,
    frames: &UnixDatagram,
    ping_every: Duration,
) -> Ended {
    let mut buffer = BytesMut::new();
    let mut next_ping = tokio::time::Instant::now() + ping_every;
    loop {
        buffer.reserve(RAW_FRAME_MAX);
        let message = match frames.try_recv_buf(&mut buffer) {
            Ok(0) => return Ended::PayloadReset,
            Ok(_) => Message::Binary(buffer.split().freeze()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if sink.flush().await.is_err() {
                    return Ended::ClientGone;
                }
                tokio::select! {
                    ready = frames.readable() => match ready {
                        Ok(()) => continue,
                        Err(_) => return Ended::PayloadReset,
                    },
                    () = sleep_until(next_ping) => {
                        next_ping = tokio::time::Instant::now() + ping_every;
                        Message::Ping(Bytes::new())
                    }
                }
            }
            Err(_) => return Ended::PayloadReset,
        };
        if sink.feed(message).await.is_err() {
            return Ended::ClientGone;
        }
    }
}
