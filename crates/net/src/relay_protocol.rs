//! What a node and its relay say to each other. A client opens one stream to [`SERVICE`] and keeps
//! it; each message is a frame (length as 4 bytes, big-endian) of postcard.

use std::net::SocketAddr;

use gvpn_model::NodeId;
use serde::{Deserialize, Serialize};

use crate::SignedRecord;
pub use crate::messages::{Last, inbox, send};

/// The service that a relay serves.
pub const SERVICE: &str = "gvpn.relay";

/// From a client to its relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToRelay {
    /// Registers the client, or renews its record.
    Register {
        /// The client's own record.
        record: SignedRecord,
    },
    /// Where is this node?
    Find {
        /// Comes back in the answer.
        request: u32,
        /// The node.
        node: NodeId,
        /// Whether a forwarding session is wanted, should the node be registered here.
        session: bool,
    },
    /// The client knows these sessions from before the relay was restarted.
    Resume {
        /// Session and peer.
        sessions: Vec<(u32, NodeId)>,
    },
    /// Send a datagram to another socket of mine, from a port that it has not written to: does my
    /// NAT let it in? The relay does so only where it sees this client's address.
    Knock {
        /// Comes back in the datagram.
        number: u32,
        /// Where that socket is seen.
        at: SocketAddr,
    },
}

/// From a relay to its client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToClient {
    /// The client is registered, or its address changed.
    Registered {
        /// Where its datagrams come from.
        observed: Option<SocketAddr>,
    },
    /// The answer to [`ToRelay::Find`].
    Found {
        /// The request's number.
        request: u32,
        /// The node's record; `None` if the node is unknown here.
        record: Option<SignedRecord>,
        /// A forwarding session with it, if wanted and possible.
        session: Option<u32>,
        /// Where the relay sees the node, if the client has a session with it. Older relays do not say.
        seen: Last<Option<SocketAddr>>,
    },
    /// A peer was given a session with this client.
    Session {
        /// The session.
        session: u32,
        /// The peer.
        peer: NodeId,
        /// The peer's record, if it has one.
        record: Option<SignedRecord>,
    },
    /// The client asked for something it may not have.
    Refused {
        /// Why.
        reason: String,
    },
}
