//! What the driver is to do.

use std::net::SocketAddr;

use gvpn_model::NodeId;

/// What the driver is to do, in the order in which it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Call a relay and say what becomes of it: [`handle_connected`](crate::Home::handle_connected)
    /// if it answers, and in any case, at last, [`handle_ended`](crate::Home::handle_ended).
    Call {
        /// Where it is.
        relay: SocketAddr,
        /// Tells this call from others.
        call: u64,
    },
    /// End a connection, and say so by [`handle_ended`](crate::Home::handle_ended).
    HangUp {
        /// The relay.
        relay: SocketAddr,
        /// The call that it came of.
        call: u64,
        /// Whether the relay does not answer any more; otherwise it is of no use any more.
        silent: bool,
    },
    /// Send something on a connection.
    Send {
        /// The relay.
        relay: SocketAddr,
        /// The call that it came of.
        call: u64,
        /// What.
        request: Request,
    },
    /// Have the relay show a sign of life.
    Ping {
        /// The relay.
        relay: SocketAddr,
        /// The call that the connection came of.
        call: u64,
    },
    /// The relay forwards to a peer under this number from now on, and under no other.
    Session {
        /// The relay.
        relay: SocketAddr,
        /// The number.
        session: u32,
        /// The peer.
        peer: NodeId,
    },
    /// A look-up has found ways to a node.
    Way {
        /// The look-up.
        look_up: u32,
        /// Addresses of the node's.
        addrs: Vec<SocketAddr>,
        /// A relay that forwards to it, and the session's number there.
        session: Option<(SocketAddr, u32)>,
    },
    /// A look-up has come to its end.
    Done {
        /// The look-up.
        look_up: u32,
        /// Why nothing was found, if nothing was.
        failed: Option<String>,
    },
}

/// What a relay is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Take this node's record of now.
    Register {
        /// The relays to name in it, its home first.
        relays: Vec<SocketAddr>,
    },
    /// Go on with these sessions of before.
    Resume {
        /// Number and peer.
        sessions: Vec<(u32, NodeId)>,
    },
    /// Where is this node? And forward to it.
    Find {
        /// Comes back in the answer.
        request: u32,
        /// The node.
        node: NodeId,
    },
}
