//! What a person wants to know about a peer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_dataplane::Hop;
use gvpn_model::NodeId;
use gvpn_path::Report;
use serde::{Deserialize, Serialize};

use crate::{NatKind, NetError, connection::Conn, peer::Peer, shared::Shared};

/// How long a ping may take.
const PING: Duration = Duration::from_secs(5);
/// How often it is looked whether the ping was answered.
const LOOK: Duration = Duration::from_micros(200);

/// The kind of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PathReport {
    /// The peer.
    pub node: NodeId,
    /// The kind of path in use.
    pub kind: PathKind,
    /// The address that datagrams are sent to (the relay's, if relayed).
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub remote: Option<SocketAddr>,
    /// Round-trip time of this ping.
    #[cfg_attr(feature = "openapi", schema(schema_with = duration))]
    pub rtt: Duration,
    /// Largest UDP payload on the path.
    pub mtu: u16,
    /// Packets lost on the way to the peer, of all that told: from 0 to 1.
    pub loss: f64,
    /// The NAT that this node is behind.
    pub nat: NatKind,
    /// Why no better path is in use; empty when the best kind is.
    pub reason: String,
    /// All ways known, the one in use among them, and how they fare.
    pub ways: Vec<Way>,
}

/// A relay that this node is told to use.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct RelayState {
    /// Where it is.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub addr: SocketAddr,
    /// Round-trip time, when it is connected.
    #[cfg_attr(feature = "openapi", schema(schema_with = maybe_duration))]
    pub rtt: Option<Duration>,
    /// Whether it is reached by its TLS stream, because UDP is blocked.
    pub stream: bool,
    /// Why it is not connected.
    pub reason: Option<String>,
}

/// A way to a peer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Way {
    /// The address, or the relay's.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub remote: SocketAddr,
    /// Whether a relay is in between.
    pub kind: PathKind,
    /// Round-trip time, if it ever answered.
    #[cfg_attr(feature = "openapi", schema(schema_with = maybe_duration))]
    pub rtt: Option<Duration>,
    /// Probes lost since the last sign of life.
    pub lost: u32,
}

/// A peer as it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Whether there is a connection.
    pub connected: bool,
    /// The kind of path in use.
    pub kind: PathKind,
    /// The address that datagrams are sent to (the relay's, if relayed).
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub remote: Option<SocketAddr>,
    /// Smoothed round-trip time.
    #[cfg_attr(feature = "openapi", schema(schema_with = maybe_duration))]
    pub rtt: Option<Duration>,
    /// Largest UDP payload on the path.
    pub mtu: u16,
    /// Packets lost on the way to the peer, of all that told: from 0 to 1.
    pub loss: f64,
    /// Bytes of datagrams sent to the peer.
    pub sent_bytes: u64,
    /// Bytes of datagrams received from the peer.
    pub received_bytes: u64,
    /// Lanes in use.
    pub lanes: usize,
    /// Age of the oldest keys in use, if there are any.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(schema_with = maybe_duration))]
    pub keys_age: Option<Duration>,
    /// Why no better path is in use; empty when the best kind is.
    pub reason: String,
}

/// Sends a ping and waits for its acknowledgement.
pub(crate) async fn ping(
    shared: &Shared,
    peer: &Peer,
    conn: &Conn,
) -> Result<PathReport, NetError> {
    let start = Instant::now();
    let before = conn.quic.stats().frame_rx.acks;
    conn.ping();
    while conn.quic.stats().frame_rx.acks == before {
        if start.elapsed() > PING || !conn.usable() {
            return Err(conn.error(&format!("no answer to a ping within {PING:?}")));
        }
        tokio::time::sleep(LOOK).await;
    }
    let rtt = start.elapsed();
    let report = peer.path.report();
    Ok(PathReport {
        node: peer.node,
        kind: kind(&report),
        remote: report.active.map(|hop| remote(shared, peer, &hop)),
        rtt,
        mtu: report.mtu,
        loss: loss(&conn.quic.stats()),
        nat: shared.addresses.nat(),
        ways: report.hops.iter().map(|hop| way(peer, hop)).collect(),
        reason: reason(shared, &report),
    })
}

/// The address that is reached by a hop.
fn remote(shared: &Shared, peer: &Peer, hop: &Hop) -> SocketAddr {
    peer.path.remote(shared.relays.owner(hop.wire_addr()))
}

fn way(peer: &Peer, hop: &gvpn_path::HopReport) -> Way {
    let kind = if hop.hop.is_relayed() { PathKind::Relay } else { PathKind::Direct };
    Way { remote: peer.path.remote(hop.hop.wire_addr()), kind, rtt: hop.rtt, lost: hop.losses }
}

fn loss(stats: &quinn::ConnectionStats) -> f64 {
    let sent = stats.path.sent_packets.max(1);
    // Precise enough: nobody reads more than two digits.
    stats.path.lost_packets as f64 / sent as f64
}

/// Why no better path is in use, as far as it can be told from here.
fn reason(shared: &Shared, report: &Report) -> String {
    let symmetric = shared.addresses.nat() == NatKind::AddressDependent;
    if kind(report) == PathKind::Relay && symmetric {
        let nat = "this node's NAT gives each destination another port";
        return format!("{}; {nat}", report.reason);
    }
    report.reason.clone()
}

/// The peers that this node talks to or tried to.
pub(crate) fn peers(shared: &Shared) -> Vec<PeerStatus> {
    let mut traffic = HashMap::<NodeId, (u64, u64)>::new();
    for lane in shared.plane.stats().lanes {
        let sums = traffic.entry(lane.peer).or_default();
        sums.0 += lane.bytes_sent;
        sums.1 += lane.bytes_received;
    }
    let peers = shared.peers.lock();
    let statuses = peers.values().map(|peer| {
        let conn = peer.usable();
        let (sent, received) = traffic.get(&peer.node).copied().unwrap_or_default();
        let quic = conn.as_ref().map(|c| c.quic.stats());
        let report = peer.path.report();
        PeerStatus {
            node: peer.node,
            connected: conn.is_some(),
            kind: kind(&report),
            remote: report.active.map(|hop| remote(shared, peer, &hop)),
            rtt: report.rtt.or(quic.as_ref().map(|q| q.path.rtt)),
            mtu: report.mtu,
            loss: quic.as_ref().map_or(0.0, loss),
            sent_bytes: sent + quic.as_ref().map_or(0, |q| q.udp_tx.bytes),
            received_bytes: received + quic.as_ref().map_or(0, |q| q.udp_rx.bytes),
            lanes: shared.lanes.count(peer.node),
            keys_age: shared.lanes.keys_age(peer.node),
            reason: reason(shared, &report),
        }
    });
    let mut statuses: Vec<_> = statuses.collect();
    drop(peers);
    statuses.sort_by_key(|status| status.node);
    statuses
}

/// A duration as serde writes it.
#[cfg(feature = "openapi")]
fn duration() -> utoipa::openapi::Object {
    use utoipa::PartialSchema;
    utoipa::openapi::ObjectBuilder::new()
        .property("secs", u64::schema())
        .required("secs")
        .property("nanos", u32::schema())
        .required("nanos")
        .build()
}

#[cfg(feature = "openapi")]
fn maybe_duration() -> utoipa::openapi::Schema {
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .item(duration())
        .build()
        .into()
}

fn kind(report: &Report) -> PathKind {
    match report.active {
        Some(Hop::Direct(_)) => PathKind::Direct,
        Some(Hop::Relay { .. }) => PathKind::Relay,
        None => PathKind::None,
    }
}
