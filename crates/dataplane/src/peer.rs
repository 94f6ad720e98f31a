//! Peers and the lanes shared with them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use gvpn_model::NodeId;
use gvpn_path::Hop;
use gvpn_session::{AGING_PACKETS, LaneKeys, MAX_AGE, Opener, ReplayWindow, Sealer, Suite};
use parking_lot::Mutex;

use crate::{PeerActivity, Route, fragment::Reassembly, held::Held, network::Network};

/// After this long without an event about it, hearing a peer is an event again.
const HEARD_EVERY_MS: u64 = 250;

/// How many control messages one lane may bring in a while.
const PROBES_IN_WINDOW: u32 = 200;
const PROBE_WINDOW_MS: u64 = 100;

/// How often a lane that should be replaced is mentioned.
const AGING_EVERY_MS: u64 = 5000;

/// After this long without a packet to it, sending to a peer is an event again.
const PAUSE_MS: u64 = 1000;

/// Another node, as the data path needs it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) route: ArcSwapOption<Route>,
    sent: AtomicU64,
    heard: AtomicU64,
    packets_sent: AtomicU64,
    packets_received: AtomicU64,
    last: Mutex<Option<(Hop, u64)>>,
    too_small: AtomicU64,
}

/// What there is between this node and a peer for one network: the lane that seals, and packets
/// that wait for one.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) peer: Arc<Peer>,
    pub(crate) network: Option<Arc<Network>>,
    pub(crate) active: ArcSwapOption<Lane>,
    pub(crate) held: Mutex<Held>,
}

/// One pair of keys.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) slot: Arc<Slot>,
    /// Later lanes have higher numbers.
    pub(crate) sequence: u64,
    pub(crate) local_index: u32,
    pub(crate) remote_index: u32,
    pub(crate) suite: Suite,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    pub(crate) inbound: Mutex<Inbound>,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) packets_received: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    first_use: AtomicU64,
    aging: AtomicU64,
}

/// The receiving side of a lane, locked once for each batch.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    pub(crate) window: ReplayWindow,
    pub(crate) reassembly: Reassembly,
    probes: (u64, u32),
}

impl Inbound {
    /// Whether a control message may be handed on: an honest peer sends a few a second.
    pub(crate) fn admit_probe(&mut self, now: u64) -> bool {
        let window = now / PROBE_WINDOW_MS;
        if self.probes.0 != window {
            self.probes = (window, 0);
        }
        self.probes.1 += 1;
        self.probes.1 <= PROBES_IN_WINDOW
    }
}

impl Peer {
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            node,
            route: ArcSwapOption::empty(),
            sent: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            packets_sent: AtomicU64::new(0),
            packets_received: AtomicU64::new(0),
            last: Mutex::new(None),
            too_small: AtomicU64::new(0),
        }
    }

    /// Takes note of a datagram that was too large; returns whether to say so.
    pub(crate) fn note_too_small(&self, now: u64) -> bool {
        let before = self.too_small.load(Relaxed);
        let news = before == 0 || now.saturating_sub(before) >= HEARD_EVERY_MS;
        if news {
            self.too_small.store(now, Relaxed);
        }
        news
    }

    /// Takes note of packets sent; returns whether there was a pause before them.
    pub(crate) fn note_sent(&self, packets: u64, now: u64) -> bool {
        self.packets_sent.fetch_add(packets, Relaxed);
        let before = self.sent.load(Relaxed);
        if before == now {
            return false;
        }
        self.sent.store(now, Relaxed);
        before == 0 || now - before.min(now) > PAUSE_MS
    }

    /// Takes note of authentic messages; returns whether that is news.
    pub(crate) fn note_heard(&self, hop: Hop, packets: u64, now: u64) -> bool {
        self.packets_received.fetch_add(packets, Relaxed);
        self.heard.store(now, Relaxed);
        let mut last = self.last.lock();
        let news = last.is_none_or(|(other, at)| {
            let since = now.saturating_sub(at);
            // A peer that changes hops with every packet is not worth an event each.
            since >= HEARD_EVERY_MS || (other != hop && since > 0)
        });
        if news {
            *last = Some((hop, now));
        }
        news
    }

    pub(crate) fn activity(&self, start: Instant) -> PeerActivity {
        let at = |ms: u64| (ms > 0).then(|| start + std::time::Duration::from_millis(ms));
        PeerActivity {
            sent: at(self.sent.load(Relaxed)),
            heard: at(self.heard.load(Relaxed)),
            packets_sent: self.packets_sent.load(Relaxed),
            packets_received: self.packets_received.load(Relaxed),
        }
    }
}

impl Slot {
    pub(crate) fn new(peer: Arc<Peer>, network: Option<Arc<Network>>) -> Self {
        Self { peer, network, active: ArcSwapOption::empty(), held: Mutex::default() }
    }
}

impl Lane {
    pub(crate) fn new(
        slot: Arc<Slot>,
        keys: &LaneKeys,
        local_index: u32,
        remote_index: u32,
        sequence: u64,
    ) -> Self {
        Self {
            slot,
            sequence,
            local_index,
            remote_index,
            suite: keys.suite,
            sealer: keys.sealer(),
            opener: keys.opener(),
            inbound: Mutex::default(),
            bytes_sent: AtomicU64::new(0),
            packets_received: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            first_use: AtomicU64::new(0),
            aging: AtomicU64::new(0),
        }
    }

    /// Takes note of a use for sealing; true when the lane should be replaced, and again every
    /// [`AGING_EVERY_MS`] until it is.
    pub(crate) fn note_use(&self, now: u64) -> bool {
        let first = self.first_use.load(Relaxed);
        if first == 0 {
            self.first_use.store(now, Relaxed);
            return false;
        }
        // Early enough for the new lane to be there before this one is too old.
        let old = now.saturating_sub(first) > MAX_AGE.as_millis() as u64 * 3 / 4;
        if !old && self.sealer.used() <= AGING_PACKETS {
            return false;
        }
        let said = self.aging.load(Relaxed);
        let again = said == 0 || now.saturating_sub(said) >= AGING_EVERY_MS;
        if again {
            self.aging.store(now, Relaxed);
        }
        again
    }
}

const BUCKETS: usize = 256;

/// Lanes by our index. Reads take no lock; a change copies one bucket.
#[derive(Debug)]
pub(crate) struct LaneTable {
    buckets: Box<[ArcSwap<Vec<Arc<Lane>>>]>,
    changes: Mutex<()>,
}

impl Default for LaneTable {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| ArcSwap::default()).collect(),
            changes: Mutex::new(()),
        }
    }
}

impl LaneTable {
    fn bucket(&self, index: u32) -> &ArcSwap<Vec<Arc<Lane>>> {
        &self.buckets[index as usize % BUCKETS]
    }

    pub(crate) fn get(&self, index: u32) -> Option<Arc<Lane>> {
        self.bucket(index).load().iter().find(|lane| lane.local_index == index).cloned()
    }

    pub(crate) fn insert(&self, lane: Arc<Lane>) {
        let _changing = self.changes.lock();
        let bucket = self.bucket(lane.local_index);
        let mut lanes = Vec::clone(&bucket.load());
        lanes.retain(|other| other.local_index != lane.local_index);
        lanes.push(lane);
        bucket.store(Arc::new(lanes));
    }

    pub(crate) fn remove(&self, index: u32) -> Option<Arc<Lane>> {
        let _changing = self.changes.lock();
        let bucket = self.bucket(index);
        let mut lanes = Vec::clone(&bucket.load());
        let at = lanes.iter().position(|lane| lane.local_index == index)?;
        let lane = lanes.swap_remove(at);
        bucket.store(Arc::new(lanes));
        Some(lane)
    }

    pub(crate) fn all(&self) -> Vec<Arc<Lane>> {
        self.buckets.iter().flat_map(|bucket| Vec::clone(&bucket.load())).collect()
    }
}
