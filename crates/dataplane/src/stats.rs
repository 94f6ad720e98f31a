//! What the data plane has counted.

use std::time::Instant;

use gvpn_model::{MemberId, NetworkId, NodeId};
use gvpn_session::Suite;

use crate::{Offloads, PortId, Route};

/// A snapshot of all counters.
#[derive(Debug, Clone)]
pub struct Stats {
    /// Threads.
    pub workers: usize,
    /// Kernel offloads in use.
    pub offloads: Offloads,
    /// Packets or super-packets from peers that were marked (ECN) because a socket's queue stood.
    pub marked: u64,
    /// Ports.
    pub ports: Vec<PortStats>,
    /// Lanes.
    pub lanes: Vec<LaneStats>,
    /// Networks.
    pub networks: Vec<NetworkStats>,
    /// Drops by reason, the switch's reasons included; reasons that never occurred are left out.
    /// `group_refused` counts no packets but memberships of multicast groups.
    pub drops: Vec<(&'static str, u64)>,
}

/// Counters of one port. A super-packet counts as the packets that it stands for.
#[derive(Debug, Clone)]
pub struct PortStats {
    /// The port.
    pub port: PortId,
    /// Its network.
    pub network: NetworkId,
    /// Its member; `None` for a tap on a pair of addresses.
    pub member: Option<MemberId>,
    /// What kind of vNIC it is.
    pub kind: &'static str,
    /// Whether it takes TCP and UDP super-packets.
    pub super_packets: bool,
    /// Packets from the vNIC that were marked (ECN) because its queue stood.
    pub marked: u64,
    /// Packets from the vNIC.
    pub packets_in: u64,
    /// Bytes from the vNIC.
    pub bytes_in: u64,
    /// Packets to the vNIC.
    pub packets_out: u64,
    /// Bytes to the vNIC.
    pub bytes_out: u64,
}

/// Counters of one lane.
#[derive(Debug, Clone)]
pub struct LaneStats {
    /// The peer.
    pub peer: NodeId,
    /// The network; `None` for the peer lane.
    pub network: Option<NetworkId>,
    /// Our index.
    pub local_index: u32,
    /// Whether it is the one that seals.
    pub active: bool,
    /// Its AEAD.
    pub suite: Suite,
    /// Messages sealed.
    pub packets_sent: u64,
    /// Bytes of datagrams sent.
    pub bytes_sent: u64,
    /// Messages opened.
    pub packets_received: u64,
    /// Bytes of datagrams received.
    pub bytes_received: u64,
    /// Where the peer's datagrams go at present.
    pub route: Option<Route>,
}

/// Sums over one network.
#[derive(Debug, Clone)]
pub struct NetworkStats {
    /// The network.
    pub network: NetworkId,
    /// Packets that its ports sent.
    pub packets_in: u64,
    /// Bytes that its ports sent.
    pub bytes_in: u64,
    /// Packets that its ports were given.
    pub packets_out: u64,
    /// Bytes that its ports were given.
    pub bytes_out: u64,
}

/// When a peer was last sent to and heard from, for the path agent's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerActivity {
    /// When payload was last sent to it.
    pub sent: Option<Instant>,
    /// When an authentic message last came from it, on any hop.
    pub heard: Option<Instant>,
    /// Payload packets sent to it so far.
    pub packets_sent: u64,
    /// Authentic messages received from it so far.
    pub packets_received: u64,
}

impl NetworkStats {
    pub(crate) fn new(network: NetworkId) -> Self {
        Self { network, packets_in: 0, bytes_in: 0, packets_out: 0, bytes_out: 0 }
    }
}
