//! A WebSocket joined to a TCP connection.

use std::time::Duration;

use axum::extract::ws::{WebSocket, WebSocketUpgrade};

use crate::{ClientSocket, Connection, pump::pump};

/// The optional WebSocket subprotocol in which an **empty text message** ends one direction and
/// leaves the other open, as TCP's FIN does. Without it a WebSocket can only close both.
pub const EOF_PROTOCOL: &str = "gvpn.eof";

/// The largest message that a client may send.
const MESSAGE_MAX: usize = 16 << 20;

/// Timing of a bridge.
#[derive(Debug, Clone, Copy)]
pub struct BridgeOptions {
    /// How often the client is pinged.
    pub ping_every: Duration,
    /// How long the client's machine may acknowledge nothing, pings included, before it counts as
    /// gone.
    pub silence_limit: Duration,
    /// How long the client's program may answer no ping while its machine lives.
    pub absence_limit: Duration,
    /// How long a program that leaves data unread may be silent: it may merely be slow.
    pub stall_limit: Duration,
    /// How long to wait for the payload's last word after the client has closed.
    pub linger: Duration,
}

impl Default for BridgeOptions {
    fn default() -> Self {
        Self {
            ping_every: Duration::from_secs(5),
            silence_limit: Duration::from_secs(20),
            absence_limit: Duration::from_secs(600),
            stall_limit: Duration::from_secs(600),
            linger: Duration::from_secs(2),
        }
    }
}

/// How a bridge ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both ends said so.
    Closed,
    /// The payload reset the connection.
    PayloadReset,
    /// The client's connection broke or closed without a word.
    ClientGone,
    /// The client's machine vanished, or its program answers no pings.
    ClientSilent,
    /// The client broke the WebSocket protocol or sent a message that is too large.
    ClientFault,
}

/// Sets an upgrade up for [`bridge_tcp`]: sizes, buffers and the optional [`EOF_PROTOCOL`].
pub fn upgrade(request: WebSocketUpgrade) -> WebSocketUpgrade {
    request
        .protocols([EOF_PROTOCOL])
        .max_message_size(MESSAGE_MAX)
        .max_frame_size(MESSAGE_MAX)
        .read_buffer_size(256 << 10)
        .write_buffer_size(256 << 10)
}

/// Carries bytes between a client and a payload until both have ended, the client is gone or the
/// payload has reset. Frames carry no meaning; text counts as bytes. Each direction waits for its
/// receiver. After the payload's FIN the client gets all data, then a Close frame. A client's Close
/// shuts the TCP connection down.
pub async fn bridge_tcp(
    socket: WebSocket,
    connection: Connection,
    client: &ClientSocket,
    options: BridgeOptions,
) -> Ended {
    let half_close = socket.protocol().is_some_and(|p| p == EOF_PROTOCOL);
    pump(socket, connection, half_close, client, options).await
}
