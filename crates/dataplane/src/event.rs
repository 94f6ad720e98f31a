//! What the data plane tells its driver.

use gvpn_model::{NetworkId, NodeId};
use gvpn_path::Hop;

use crate::PortId;

/// Something that the driver of the data plane should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Packets wait for a lane. Raised again only after a second without one.
    LaneWanted {
        /// The peer.
        peer: NodeId,
        /// The network.
        network: NetworkId,
    },
    /// A control message for the path agent (plaintext, first byte included) came in a session.
    Probe {
        /// Who sent it.
        peer: NodeId,
        /// The way it came.
        hop: Hop,
        /// Its plaintext.
        bytes: Vec<u8>,
    },
    /// An authentic message came from a peer: the first on this hop, or the first for a while.
    Heard {
        /// The peer.
        peer: NodeId,
        /// The way it came.
        hop: Hop,
    },
    /// Packets go to a peer again after a pause.
    Active {
        /// The peer.
        peer: NodeId,
    },
    /// A lane in use is old, or has used half its counters: replace it.
    LaneAging {
        /// Our index of the lane.
        local_index: u32,
    },
    /// A datagram was too large for the path that carries the peer's traffic.
    PathTooSmall {
        /// The peer.
        peer: NodeId,
        /// The size that did not go through.
        size: u16,
    },
    /// A vNIC's other end is gone; the port is detached.
    PortClosed {
        /// The port.
        port: PortId,
    },
}
