//! Golem Net: the QUIC lane between nodes, peers, lanes and paths on top of the data plane's sockets.
//!
//! A [`Net`] is a node's presence: it [opens](Net::open) and [serves](Net::serve) streams between
//! nodes whose identity the TLS handshake proved, and keeps the lanes that carry payload packets.

mod config;
mod error;
mod net;
mod report;
mod stream;

pub use config::NetConfig;
pub use error::NetError;
pub use gvpn_model::{NetworkId, NodeId};
pub use net::{Incoming, Net};
pub use report::{PathKind, PathReport, PeerStatus};
pub use stream::{MAX_MESSAGE, Stream};
