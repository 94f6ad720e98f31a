//! Run-to-completion threads that move super-packets between vNICs and sealed UDP datagrams.
//!
//! A [`DataPlane`] owns a node's UDP sockets and the file descriptors of its vNICs. It knows
//! networks (a forwarding [`Table`](gvpn_switch::Table) each), ports (a vNIC each), lanes (the keys
//! shared with one peer for one network) and routes (where a peer's datagrams go), all of which
//! are set from outside by cheap calls; it takes no decision of its own about any of them.
//!
//! QUIC shares the sockets: datagrams that are not data messages come out of a
//! [`DatagramReceiver`], and [`DataPlane::send_datagram`] sends them.
//!
//! `docs/dataplane.md` describes the messages and the life of a packet.

mod attach;
mod balance;
mod capture;
mod carrier;
mod config;
mod control;
mod core;
mod counters;
mod datagram;
mod drops;
mod event;
mod forward;
mod fragment;
mod held;
mod home;
mod message;
pub mod mirror;
mod network;
mod nic;
mod pace;
mod paced;
mod peer;
mod plane;
mod poll;
mod port;
mod receive;
mod route;
mod standing;
mod stats;
mod transmit;
mod udp;
mod uplink;
mod worker;

pub use attach::{AttachError, MAX_QUEUES, Nic, PortId, PortSpec};
pub use capture::{Capture, CaptureSpec, Captured};
pub use carrier::{Carried, Carrier};
pub use config::{Config, Offloads, StartError};
pub use datagram::{Datagram, DatagramReceiver, ReceivedDatagram};
pub use drops::Drop;
pub use event::Event;
pub use forward::{
    CONTROL_KNOCK, CONTROL_RESTARTED, CONTROL_UNKNOWN_SESSION, End, Forwarder, Meter,
    control_message, read_control_message,
};
pub use gvpn_path::Hop;
pub use plane::DataPlane;
pub use route::{LaneSpec, Route, SendError};
pub use stats::{LaneStats, NetworkStats, PeerActivity, PortStats, Stats};
