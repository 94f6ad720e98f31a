//! Golem Net: the QUIC lane between nodes, peers, lanes and paths on top of the data plane's sockets.
//!
//! A [`Net`] is a node's presence: it [opens](Net::open) and [serves](Net::serve) streams between
//! nodes whose identity the TLS handshake proved, and keeps the lanes that carry payload packets.
//!
//! ```text
//! Net ── Shared ── Peer ── Conn (QUIC connection: control stream, services' streams)
//!                   │        └── Link (its virtual address, its connection ids)
//!                   └── PeerPath (path agent) ── DataPlane (sockets, lanes, vNICs)
//! ```
//!
//! `docs/golem-net.md` describes what nodes say to each other.

mod addresses;
mod awake;
mod config;
mod connection;
mod control;
mod endpoint;
mod error;
mod events;
mod filtering;
mod flight;
mod guess;
mod interfaces;
mod lanes;
mod link;
mod mapped;
mod mapping;
mod messages;
mod nat;
mod negotiation;
mod net;
mod parts;
mod path;
mod peer;
mod record;
pub mod relay_protocol;
pub mod relay_stream;
mod relays;
mod report;
mod shared;
mod socket;
mod stream;
mod ways;
mod wire;

pub use config::NetConfig;
pub use error::NetError;
pub use filtering::Filtering;
pub use gvpn_dataplane::{
    CONTROL_KNOCK, CONTROL_RESTARTED, Carried, Carrier, DataPlane, Datagram, End, Hop, Meter,
    control_message,
};
pub use gvpn_model::{NetworkId, NodeId};
pub use gvpn_path::{carrier_addr, carrier_id};
pub use mapping::PortMapping;
pub use nat::NatKind;
pub use net::{Incoming, Net};
pub use record::{MAX_RECORD_ADDRS, MAX_RECORD_BYTES, NodeRecord, RecordError, SignedRecord};
pub use report::{PathKind, PathReport, PeerStatus, RelayState, Way};
pub use stream::{MAX_MESSAGE, Stream, StreamReader, StreamWriter};
