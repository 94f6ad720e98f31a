//! Distribution: every change of a network goes to every node in it, again until acknowledged.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use gvpn_model::{NetworkId, NodeId};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    ErrorKind, NodeError,
    core::Core,
    networks::{
        Progress,
        owner::{Books, Update},
    },
    peers,
    proto::{self, RosterReply, RosterRequest, UpdateKind},
};

/// Pauses between attempts to reach a node: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// How long a node may take to take a roster: it is small, and there is another attempt.
const PUSH_LIMIT: Duration = Duration::from_secs(10);

/// A node of which nothing is heard for so long is not waited for.
const SILENCE: Duration = Duration::from_secs(5);

/// Tells member nodes about their networks.
pub(crate) struct Pusher {
    core: Arc<Core>,
    books: Arc<Books>,
    queues: Mutex<HashMap<NodeId, Arc<Queue>>>,
    reached: Mutex<HashMap<(NetworkId, NodeId), Reached>>,
    /// Changes whenever `reached` does.
    ticks: watch::Sender<u64>,
}

/// What one node has yet to hear; a task works on it while there is something.
#[derive(Default)]
struct Queue {
    dirty: Mutex<Option<BTreeSet<NetworkId>>>,
    more: Notify,
}

#[derive(Default, Clone)]
struct Reached {
    epoch: Option<u64>,
    hash: String,
    error: Option<NodeError>,
    /// Attempts at which the node could not be reached.
    failed: u64,
}

impl Pusher {
    pub(crate) fn new(core: Arc<Core>, books: Arc<Books>) -> Self {
        Self {
            core,
            books,
            queues: Mutex::default(),
            reached: Mutex::default(),
            ticks: watch::Sender::new(0),
        }
    }

    /// `nodes` must hear about `network`.
    pub(crate) fn tell(self: &Arc<Self>, network: NetworkId, nodes: &[NodeId]) {
        for node in nodes {
            let queue = self.queues.lock().entry(*node).or_default().clone();
            let mut dirty = queue.dirty.lock();
            let idle = dirty.is_none();
            dirty.get_or_insert_default().insert(network);
            drop(dirty);
            queue.more.notify_one();
            if idle {
                let (this, node) = (self.clone(), *node);
                self.core.spawn(async move { this.serve(node, &queue).await });
            }
        }
    }

    /// The node says that it has `epoch`: it gets what it misses.
    pub(crate) fn pulled(self: &Arc<Self>, network: NetworkId, node: NodeId, epoch: u64) {
        let has = (epoch > 0).then_some(epoch);
        self.note(network, node, |reached| reached.epoch = has);
        self.tell(network, &[node]);
    }

    /// Waits until `node` follows the present roster of `network`.
    pub(crate) async fn ensure(
        self: &Arc<Self>,
        network: NetworkId,
        node: NodeId,
        limit: Duration,
    ) -> Result<(), NodeError> {
        let mut ticks = self.ticks.subscribe();
        let failed = || self.reached.lock().get(&(network, node)).map_or(0, |r| r.failed);
        let (start, before) = (Instant::now(), failed());
        if !self.is_current(network, node) {
            self.tell(network, &[node]);
        }
        let silent = || start.elapsed() >= SILENCE && failed() > before;
        let current = async {
            while !self.is_current(network, node) && !silent() {
                if ticks.changed().await.is_err() {
                    break;
                }
            }
        };
        let in_time = tokio::time::timeout(limit, current).await.is_ok();
        if in_time && self.is_current(network, node) {
            return Ok(());
        }
        let reason = self.reached.lock().get(&(network, node)).and_then(|r| r.error.clone());
        let reason = reason.map_or_else(|| "no answer".to_owned(), |e| e.message);
        Err(NodeError::new(
            ErrorKind::Unreachable,
            format!(
                "provider {node} does not know the present state of network {network}: {reason}"
            ),
        ))
    }

    /// Waits until all of `nodes` follow the present roster, and says whether they do.
    pub(crate) async fn settled(
        &self,
        network: NetworkId,
        nodes: &[NodeId],
        limit: Duration,
    ) -> bool {
        let mut ticks = self.ticks.subscribe();
        let all = || {
            let Some((epoch, hash)) = self.present(network) else { return false };
            let reached = self.reached.lock();
            let current = |node: &NodeId| {
                let at = reached.get(&(network, *node));
                at.is_some_and(|at| at.epoch == Some(epoch) && at.hash == hash)
            };
            nodes.iter().all(current)
        };
        let current = async {
            while !all() {
                if ticks.changed().await.is_err() {
                    break;
                }
            }
        };
        tokio::time::timeout(limit, current).await.is_ok() && all()
    }

    /// How far each of `nodes` is.
    pub(crate) fn progress(&self, network: NetworkId, nodes: &[NodeId]) -> Vec<Progress> {
        let all = self.reached.lock();
        nodes
            .iter()
            .map(|node| {
                let reached = all.get(&(network, *node)).cloned().unwrap_or_default();
                Progress {
                    node: *node,
                    epoch: reached.epoch,
                    current: self.matches(network, *node, &reached),
                    error: reached.error.map(|e| e.message),
                }
            })
            .collect()
    }

    fn is_current(&self, network: NetworkId, node: NodeId) -> bool {
        if node == self.core.me {
            return true;
        }
        let reached = self.reached.lock().get(&(network, node)).cloned();
        reached.is_some_and(|reached| self.matches(network, node, &reached))
    }

    fn matches(&self, network: NetworkId, node: NodeId, reached: &Reached) -> bool {
        let Some(owned) = self.books.get(network) else { return false };
        let book = owned.book.lock();
        book.roster().has_node(node)
            && reached.epoch == Some(book.epoch())
            && reached.hash == hex::encode(book.hash().as_bytes())
    }

    /// Epoch and hash of the roster that everybody should follow.
    fn present(&self, network: NetworkId) -> Option<(u64, String)> {
        let owned = self.books.get(network)?;
        let book = owned.book.lock();
        Some((book.epoch(), hex::encode(book.hash().as_bytes())))
    }

    fn note(&self, network: NetworkId, node: NodeId, edit: impl FnOnce(&mut Reached)) {
        edit(self.reached.lock().entry((network, node)).or_default());
        self.ticks.send_modify(|tick| *tick += 1);
    }

    /// Works a node's queue off.
    async fn serve(self: Arc<Self>, node: NodeId, queue: &Queue) {
        let mut pause = PAUSE.0;
        loop {
            let next = {
                let mut dirty = queue.dirty.lock();
                let next = dirty.as_mut().and_then(BTreeSet::pop_first);
                if next.is_none() {
                    *dirty = None;
                }
                next
            };
            let Some(network) = next else { return };
            match self.push(network, node).await {
                Ok(()) => pause = PAUSE.0,
                Err(error) => {
                    tracing::debug!(%network, %node, %error, "the node was not told");
                    self.note(network, node, |reached| {
                        reached.failed += u64::from(error.kind == ErrorKind::Unreachable);
                        reached.error = Some(error);
                    });
                    queue.dirty.lock().get_or_insert_default().insert(network);
                    let _ = tokio::time::timeout(pause, queue.more.notified()).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    /// Tells one node about one network, as it is now.
    async fn push(&self, network: NetworkId, node: NodeId) -> Result<(), NodeError> {
        let mut has = self.reached.lock().get(&(network, node)).and_then(|r| r.epoch);
        // A delta may not fit what the node has, then a snapshot does; twice is enough.
        for _ in 0..3 {
            let Some((update, epoch, hash)) = self.books.update_for(network, node, has) else {
                return self.farewell(network, node).await;
            };
            match self.send(network, node, &update).await? {
                RosterReply::At { epoch: at, hash: got } if at == epoch && got == hash => {
                    self.core.store.remove_farewell(network, node)?;
                    self.note(network, node, |reached| {
                        *reached = Reached { epoch: Some(epoch), hash, ..Reached::default() };
                    });
                    return Ok(());
                }
                RosterReply::At { epoch: at, .. } => {
                    self.books.overtake(network, at)?;
                    has = None;
                }
                RosterReply::Need { epoch } => {
                    has = (epoch > 0 && has != Some(epoch)).then_some(epoch)
                }
                RosterReply::Done => break,
            }
        }
        Err(NodeError::internal(format!("node {node} does not follow network {network}")))
    }

    async fn send(
        &self,
        network: NetworkId,
        node: NodeId,
        update: &Update,
    ) -> Result<RosterReply, NodeError> {
        let (kind, bytes) = match update {
            Update::Snapshot(snapshot) => (UpdateKind::Snapshot, snapshot.encode()),
            Update::Delta(delta) => (UpdateKind::Delta, delta.encode()),
        };
        let exchange = async {
            let mut channel = self.core.peers.open(node, proto::ROSTER).await?;
            let request = RosterRequest::Push { network, kind };
            proto::send(&mut channel, &request).await.map_err(|e| peers::broken(node, &e))?;
            proto::send_frame(&mut channel, &bytes).await.map_err(|e| peers::broken(node, &e))?;
            peers::answer(node, &mut channel).await
        };
        tokio::time::timeout(PUSH_LIMIT, exchange).await.unwrap_or_else(|_| {
            Err(NodeError::new(ErrorKind::Timeout, format!("node {node} did not answer")))
        })
    }

    async fn farewell(&self, network: NetworkId, node: NodeId) -> Result<(), NodeError> {
        let request = RosterRequest::Forget { network };
        let _: RosterReply = self.core.peers.request(node, proto::ROSTER, &request).await?;
        self.core.store.remove_farewell(network, node)?;
        self.reached.lock().remove(&(network, node));
        Ok(())
    }
}
