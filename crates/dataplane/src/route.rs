//! Lanes and routes as the driver names them.

use std::io;

use gvpn_model::{NetworkId, NodeId};
use gvpn_path::Hop;
use gvpn_session::LaneKeys;

/// A lane to add: keys shared with one peer for one network, or for path probes.
#[derive(Debug)]
pub struct LaneSpec {
    /// The peer.
    pub peer: NodeId,
    /// The network; `None` for the peer lane, which carries probes.
    pub network: Option<NetworkId>,
    /// The keys.
    pub keys: LaneKeys,
    /// Our index, which the peer puts into its messages. Choose it at random.
    pub local_index: u32,
    /// The peer's index, which we put into ours.
    pub remote_index: u32,
}

/// Where a peer's datagrams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The way.
    pub hop: Hop,
    /// The largest UDP payload on that way, relay header included where there is one.
    pub mtu: u16,
}

/// Why a probe was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No peer lane is active.
    #[error("there is no active session with node {0}")]
    NoLane(NodeId),
    /// The system refused, or the socket is full.
    #[error("the probe was not sent: {0}")]
    Io(#[from] io::Error),
}
