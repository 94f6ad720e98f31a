//! The gate: the requestor's way into a network, over WebSockets and sockets opened inside a namespace.
//!
//! A [`Gateway`] stands for one network. It opens TCP connections to members ([`Gateway::connect`],
//! before the HTTP upgrade is answered, so that a failure is an HTTP status) and counts them.
//! [`bridge_tcp`] joins such a [`Connection`] to a WebSocket; [`bridge_raw`] joins a socket of
//! Ethernet frames to one. [`UserStack`] dials where the host allows no namespaces.

mod bridge;
mod client;
mod dial;
mod gateway;
mod pump;
mod raw;
mod stack;
mod stream;
mod table;

pub use bridge::{BridgeOptions, EOF_PROTOCOL, Ended, bridge_tcp, upgrade};
pub use client::ClientSocket;
pub use dial::{ConnectError, Dial};
pub use gateway::{Gateway, GatewayOptions};
pub use raw::{RAW_FRAME_MAX, bridge_raw};
pub use stack::{UserStack, UserStream, frame_sockets};
pub use stream::GateStream;
pub use table::{Connection, ConnectionInfo, Protocol, RawGuard};
