//! What a person wants to know about a peer.

use std::{net::SocketAddr, time::Duration};

use gvpn_model::NodeId;
use serde::{Deserialize, Serialize};

/// The kind of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// No third party in between.
    Direct,
    /// Through a relay.
    Relay,
    /// No path at present.
    None,
}

/// The answer to a ping.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathReport {
    /// The peer.
    pub node: NodeId,
    /// The kind of path in use.
    pub kind: PathKind,
    /// The address that datagrams are sent to (the relay's, if relayed).
    pub remote: Option<SocketAddr>,
    /// Round-trip time of this ping.
    pub rtt: Duration,
    /// Largest UDP payload on the path.
    pub mtu: u16,
    /// Why no better path is in use; empty when the best kind is.
    pub reason: String,
}

/// A peer as it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Whether there is a connection.
    pub connected: bool,
    /// The kind of path in use.
    pub kind: PathKind,
    /// The address that datagrams are sent to (the relay's, if relayed).
    pub remote: Option<SocketAddr>,
    /// Smoothed round-trip time.
    pub rtt: Option<Duration>,
    /// Largest UDP payload on the path.
    pub mtu: u16,
    /// Bytes of datagrams sent to the peer.
    pub sent_bytes: u64,
    /// Bytes of datagrams received from the peer.
    pub received_bytes: u64,
    /// Lanes in use.
    pub lanes: usize,
    /// Why no better path is in use; empty when the best kind is.
    pub reason: String,
}
