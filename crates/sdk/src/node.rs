//! What a daemon says of itself and its peers.

use gvpn_model::NodeId;
use serde::{Deserialize, Serialize};

/// A daemon's state.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Who it is.
    pub node_id: NodeId,
    /// Its version.
    pub version: String,
    /// UDP addresses it listens on.
    pub listen: Vec<std::net::SocketAddr>,
    /// Its provider policy, when it is a provider.
    #[serde(default)]
    pub provider: Option<serde_json::Value>,
    /// Networks it owns.
    pub networks: usize,
    /// Networks of others that it is a member of.
    pub memberships: usize,
    /// Activities it requested that have not ended.
    pub requested: usize,
    /// Activities it runs for others.
    pub running: usize,
    /// Peers with an open session.
    pub sessions: usize,
    /// What newer daemons say beside.
    #[serde(flatten)]
    pub more: serde_json::Map<String, serde_json::Value>,
}

/// What was measured on the way to a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PingReport {
    /// Everything that the daemon says: path, addresses, round-trip time, MTU.
    #[serde(flatten)]
    pub report: serde_json::Map<String, serde_json::Value>,
}
