//! The lanes that this node has, in the data plane and in its own books.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use gvpn_dataplane::{DataPlane, LaneSpec};
use gvpn_model::{NetworkId, NodeId};
use gvpn_session::{EXPORTER_LABEL, LaneKeys, Suite};
use parking_lot::Mutex;
use zeroize::Zeroizing;

/// A lane that was replaced goes on opening for this long: packets may still be on their way.
const GRACE: Duration = Duration::from_secs(10);
/// A lane that carried nothing for this long is forgotten.
const UNUSED: Duration = Duration::from_secs(180);

/// A lane's place in the books.
#[derive(Debug, Clone)]
struct Lane {
    peer: NodeId,
    network: Option<NetworkId>,
    /// The number of the connection that it came from.
    connection: usize,
    active: bool,
    made: Instant,
    replaced: Option<Instant>,
    /// What it had carried when that was last looked at, and when that last changed.
    carried: u64,
    used: Instant,
}

/// All lanes of a node.
#[derive(Debug)]
pub(crate) struct Lanes {
    plane: DataPlane,
    books: Mutex<HashMap<u32, Lane>>,
}

impl Lanes {
    pub(crate) fn new(plane: DataPlane) -> Self {
        Self { plane, books: Mutex::default() }
    }

    /// A fresh index, which no lane has.
    pub(crate) fn fresh_index(&self) -> u32 {
        let books = self.books.lock();
        loop {
            let index = rand::random();
            if !books.contains_key(&index) {
                return index;
            }
        }
    }

    /// Opens with the keys that a connection gives for a network.
    pub(crate) fn add(
        &self,
        connection: &quinn::Connection,
        lane: (NodeId, Option<NetworkId>),
        client: bool,
        suite: Suite,
        indices: (u32, u32),
    ) {
        let (peer, network) = lane;
        let context = network.map_or([0; 16], |n| *n.as_bytes());
        let mut output = Zeroizing::new([0; 64]);
        let exported = connection.export_keying_material(&mut *output, EXPORTER_LABEL, &context);
        if exported.is_err() {
            tracing::error!(%peer, "TLS gives no keys for a lane");
            return;
        }
        self.plane.add_lane(LaneSpec {
            peer,
            network,
            keys: LaneKeys::from_exporter(suite, &output, client),
            local_index: indices.0,
            remote_index: indices.1,
        });
        let now = Instant::now();
        let entry = Lane {
            peer,
            network,
            connection: connection.stable_id(),
            active: false,
            made: now,
            replaced: None,
            carried: 0,
            used: now,
        };
        self.books.lock().insert(indices.0, entry);
    }

    /// Seals with this lane from now on.
    pub(crate) fn activate(&self, local: u32) {
        let now = Instant::now();
        let mut books = self.books.lock();
        let Some(lane) = books.get_mut(&local) else { return };
        lane.active = true;
        let (peer, network) = (lane.peer, lane.network);
        for (index, other) in books.iter_mut() {
            let same = other.peer == peer && other.network == network;
            if same && *index != local && other.active && other.replaced.is_none() {
                other.replaced = Some(now);
            }
        }
        drop(books);
        self.plane.activate_lane(local);
    }

    /// The peer and the network of a lane, if it is the one in use.
    pub(crate) fn in_use(&self, local: u32) -> Option<(NodeId, Option<NetworkId>)> {
        let books = self.books.lock();
        let lane = books.get(&local)?;
        (lane.active && lane.replaced.is_none()).then_some((lane.peer, lane.network))
    }

    /// The networks for which there is a lane with a peer.
    pub(crate) fn networks(&self, peer: NodeId) -> HashSet<NetworkId> {
        let books = self.books.lock();
        books.values().filter(|l| l.peer == peer).filter_map(|l| l.network).collect()
    }

    /// How many lanes are in use with a peer.
    pub(crate) fn count(&self, peer: NodeId) -> usize {
        let books = self.books.lock();
        books.values().filter(|l| l.peer == peer && l.active && l.replaced.is_none()).count()
    }

    /// How old the oldest keys in use with a peer are.
    pub(crate) fn keys_age(&self, peer: NodeId) -> Option<Duration> {
        let books = self.books.lock();
        let in_use = books.values().filter(|l| l.peer == peer && l.active && l.replaced.is_none());
        in_use.map(|lane| lane.made.elapsed()).max()
    }

    /// Forgets the lanes for which this holds, by connection, peer and network.
    pub(crate) fn remove_if(&self, gone: impl Fn(usize, NodeId, Option<NetworkId>) -> bool) {
        self.remove(|lane| gone(lane.connection, lane.peer, lane.network));
    }

    /// Forgets what was replaced a while ago, or has not been used for long.
    pub(crate) fn sweep(&self, now: Instant) {
        let stats = self.plane.stats();
        let mut carried = HashMap::<u32, u64>::new();
        let mut by_peer = HashMap::<NodeId, u64>::new();
        for lane in &stats.lanes {
            let packets = lane.packets_sent.wrapping_add(lane.packets_received);
            carried.insert(lane.local_index, packets);
            let sum = by_peer.entry(lane.peer).or_default();
            *sum = sum.wrapping_add(packets);
        }
        let mut books = self.books.lock();
        for (index, lane) in books.iter_mut() {
            // The peer lane is of use as long as any other lane of the peer is.
            let now_carried = match lane.network {
                Some(_) => carried.get(index),
                None => by_peer.get(&lane.peer),
            };
            let now_carried = now_carried.copied().unwrap_or(0);
            if now_carried != lane.carried {
                (lane.carried, lane.used) = (now_carried, now);
            }
        }
        drop(books);
        self.remove(|lane| {
            let since = |at: Instant| now.saturating_duration_since(at);
            lane.replaced.is_some_and(|at| since(at) > GRACE) || since(lane.used) > UNUSED
        });
    }

    fn remove(&self, gone: impl Fn(&Lane) -> bool) {
        let mut books = self.books.lock();
        let indices: Vec<u32> =
            books.iter().filter(|(_, lane)| gone(lane)).map(|(index, _)| *index).collect();
        for index in &indices {
            books.remove(index);
        }
        drop(books);
        for index in indices {
            self.plane.remove_lane(index);
        }
    }

    /// Whether there is a peer lane with a peer.
    pub(crate) fn has_peer_lane(&self, peer: NodeId) -> bool {
        let books = self.books.lock();
        books.values().any(|l| l.peer == peer && l.network.is_none() && l.active)
    }
}
