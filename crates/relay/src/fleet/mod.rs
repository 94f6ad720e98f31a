//! A fleet of relays: what is registered at one is known at all, through NATS JetStream.
//!
//! Everything shared is signed by the node that it is about, and the newest wins, so that a
//! [`Shelf`] takes what comes from the fleet as it takes what comes from a client. Without NATS
//! each relay goes on with what it has; what changed meanwhile is shared when NATS is back.

mod session;

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use gvpn_model::NodeId;
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle};

/// The pause between attempts to reach NATS.
const PAUSE: Duration = Duration::from_secs(1);

/// How a relay shares its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetConfig {
    /// NATS servers: URLs such as `nats://user:password@host:4222`, separated by commas.
    pub servers: String,
    /// The fleet's name, which its buckets bear: letters, digits, `-` and `_`.
    pub name: String,
}

impl FleetConfig {
    /// The fleet of the default name.
    pub fn new(servers: impl Into<String>) -> Self {
        Self { servers: servers.into(), name: "gvpn".to_owned() }
    }
}

/// The fleet as one of its relays sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FleetStats {
    /// Whether NATS is reached now.
    pub connected: bool,
    /// What was learnt from other relays.
    pub learnt: u64,
    /// What was shared with them.
    pub shared: u64,
    /// What waits to be shared.
    pub waiting: usize,
    /// What came from NATS and was of no use: neither signed nor valid.
    pub refused: u64,
}

/// What a shelf says to something that comes from the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It was news.
    Learnt,
    /// It is known already.
    Known,
    /// Something newer is known here, which the fleet should have.
    Outdated,
    /// It makes no sense.
    Refused,
}

/// Something kept for each node that a fleet shares.
pub(crate) trait Shelf: Send + Sync + 'static {
    /// The bucket's name, after the fleet's.
    const NAME: &'static str;
    /// How long a bucket keeps what is not renewed.
    const KEPT: Duration;

    /// What is kept of a node, as it travels.
    fn get(&self, node: NodeId) -> Option<Vec<u8>>;
    /// The nodes that registered at this relay itself.
    fn own(&self) -> Vec<NodeId>;
    /// Takes in what another relay shared.
    fn take(&self, node: NodeId, bytes: &[u8]) -> Verdict;
    /// What has changed here and is to be shared.
    fn outbox(&self) -> &Outbox;
}

/// Nodes of which something is to be shared.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Nothing is gathered for nobody.
    open: AtomicBool,
    nodes: Mutex<HashSet<NodeId>>,
    filled: Notify,
}

impl Outbox {
    pub(crate) fn add(&self, node: NodeId) {
        if self.open.load(Relaxed) {
            self.nodes.lock().insert(node);
            self.filled.notify_one();
        }
    }

    fn add_all(&self, nodes: impl IntoIterator<Item = NodeId>) {
        self.nodes.lock().extend(nodes);
        self.filled.notify_one();
    }

    async fn take(&self) -> Vec<NodeId> {
        loop {
            let nodes = std::mem::take(&mut *self.nodes.lock());
            if !nodes.is_empty() {
                return nodes.into_iter().collect();
            }
            self.filled.notified().await;
        }
    }
}

/// This relay's part in a fleet.
#[derive(Debug)]
pub(crate) struct Fleet<R, O> {
    config: FleetConfig,
    records: Arc<R>,
    offers: Arc<O>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    connected: AtomicBool,
    learnt: AtomicU64,
    shared: AtomicU64,
    refused: AtomicU64,
}

impl<R: Shelf, O: Shelf> Fleet<R, O> {
    pub(crate) fn new(config: FleetConfig, records: Arc<R>, offers: Arc<O>) -> Arc<Self> {
        records.outbox().open.store(true, Relaxed);
        offers.outbox().open.store(true, Relaxed);
        Arc::new(Self { config, records, offers, counts: Arc::default() })
    }

    pub(crate) fn stats(&self) -> FleetStats {
        let waiting = |outbox: &Outbox| outbox.nodes.lock().len();
        FleetStats {
            connected: self.counts.connected.load(Relaxed),
            learnt: self.counts.learnt.load(Relaxed),
            shared: self.counts.shared.load(Relaxed),
            waiting: waiting(self.records.outbox()) + waiting(self.offers.outbox()),
            refused: self.counts.refused.load(Relaxed),
        }
    }

    /// Takes part for ever.
    pub(crate) fn start(self: Arc<Self>) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                // In a task of its own, so that a panic of the client library ends no more than it.
                let mut session = tokio::task::JoinSet::new();
                let this = Arc::clone(&self);
                session.spawn(async move { this.session().await });
                let ended = session.join_next().await;
                let reason = match ended {
                    Some(Ok(Err(reason))) => reason,
                    Some(Err(error)) => error.to_string(),
                    Some(Ok(Ok(()))) | None => "it ended".to_owned(),
                };
                self.set_connected(false, &reason);
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    /// Notes whether NATS is reached, and says so when that changes.
    fn set_connected(&self, connected: bool, reason: &str) {
        let before = self.counts.connected.swap(connected, Relaxed);
        let servers = session::without_passwords(&self.config.servers);
        match (before, connected) {
            (false, true) => tracing::info!(%servers, "the fleet's NATS is connected"),
            (true, false) => tracing::warn!(
                %servers, %reason,
                "the fleet's NATS is not reached: this relay goes on with what it knows"
            ),
            (false, false) => tracing::debug!(%servers, %reason, "the fleet's NATS is not reached"),
            (true, true) => {}
        }
    }
}
