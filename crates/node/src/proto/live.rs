//! Messages about running networks.

use std::net::IpAddr;

use gvpn_model::NetworkId;
use gvpn_roster::RuleId;
use gvpn_switch::trace::{Question, Trace};
use serde::{Deserialize, Serialize};

/// From a node whose payload sends multicast to another member's node: tell me which groups have
/// listeners with you. The answer is `Ok(())`; then [`GroupsUpdate`]s follow until either closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsRequest {
    /// The network.
    pub network: NetworkId,
}

/// Every group with a listener on the node: the first at once, then one for every change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupsUpdate {
    /// The groups.
    pub groups: Vec<IpAddr>,
}

/// From a network's owner to a member's node: what would you do with such a packet?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRequest {
    /// The network.
    pub network: NetworkId,
    /// The packet.
    pub question: Question,
}

/// The answer of the node that the packet would start from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TraceReply {
    /// What it would do, by the roster that it follows.
    pub trace: Trace,
    /// That roster's epoch.
    pub epoch: u64,
    /// The way to the receiver's node, if that is another; none while the two do not talk.
    pub path: Option<String>,
}

/// From a network's owner to a member's node: how often did each rule decide with you?
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitsRequest {
    /// The network.
    pub network: NetworkId,
}

/// How often each rule that ever decided did so on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitsReply {
    /// Rules and counts.
    pub hits: Vec<(RuleId, u64)>,
}

/// From a network's owner to a member's node: send me the packets of this network. The answer is
/// `Ok(())`; then frames follow until either closes, each the time (nanoseconds since 1970, 8 bytes,
/// big-endian), the direction (1 to the payload, 2 from it) and the packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureRequest {
    /// The network.
    pub network: NetworkId,
    /// Which packets; as [`gvpn_switch::capture::Filter`] reads it.
    pub filter: String,
    /// How much of each packet; 0 for all.
    pub snap: u32,
    /// Packets to payloads too, not just from them.
    pub both: bool,
}
