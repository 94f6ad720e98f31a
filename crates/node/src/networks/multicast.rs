//! Who listens to which multicast group, between nodes.
//!
//! Nobody is told who did not ask. A node whose payload sends multicast asks the other members'
//! nodes; until one has answered it gets every multicast packet and sorts them itself. An answer is
//! kept up to date by the node that gave it, for as long as the two stay connected.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use gvpn_model::{NetworkId, NodeId};
use gvpn_switch::Live;
use parking_lot::Mutex;
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    NodeError,
    core::Core,
    networks::local::Local,
    peers::{ANSWER_LIMIT, Call},
    proto::{self, GroupsRequest, GroupsUpdate},
};

/// Changes are told, and unknown nodes asked, at most this often.
const PACE: Duration = Duration::from_millis(100);
/// How often payloads are asked what they listen to (RFC 3376, section 8.2).
const REFRESH: Duration = Duration::from_secs(125);
/// How long a node that could not be asked is left alone.
const AGAIN: Duration = Duration::from_secs(30);

/// One network's exchange.
struct Exchange {
    network: NetworkId,
    live: Arc<Live>,
    /// Changes with the network's live state.
    ticks: watch::Sender<()>,
    asked: Mutex<HashSet<NodeId>>,
    gone: CancellationToken,
}

type Exchanges = Arc<Mutex<HashMap<NetworkId, Arc<Exchange>>>>;

/// Asks and answers for every network, until the node stops.
pub(crate) fn serve(core: &Arc<Core>, local: &Arc<Local>) {
    let exchanges = Exchanges::default();
    let mut calls = core.peers.serve(proto::GROUPS);
    let (inner, rosters, known) = (core.clone(), local.clone(), exchanges.clone());
    core.spawn(async move {
        while let Some(call) = calls.recv().await {
            let (rosters, known) = (rosters.clone(), known.clone());
            inner.spawn(async move { answer(call, &rosters, &known).await });
        }
    });
    let plane = core.dataplane().clone();
    core.spawn(async move {
        let mut beat = tokio::time::interval(REFRESH);
        loop {
            beat.tick().await;
            plane.refresh_groups();
        }
    });
    let (inner, rosters) = (core.clone(), local.clone());
    core.spawn(async move {
        let mut changes = rosters.subscribe();
        for id in rosters.ids() {
            follow(&inner, &rosters, &exchanges, id);
        }
        loop {
            match changes.recv().await {
                Ok(id) => follow(&inner, &rosters, &exchanges, id),
                Err(RecvError::Lagged(_)) => {
                    let known: Vec<_> = exchanges.lock().keys().copied().collect();
                    for id in known.into_iter().chain(rosters.ids()) {
                        follow(&inner, &rosters, &exchanges, id);
                    }
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
}

/// A network is new, or gone.
fn follow(core: &Arc<Core>, local: &Arc<Local>, exchanges: &Exchanges, id: NetworkId) {
    let mut exchanges = exchanges.lock();
    let Some(table) = local.table(id) else {
        if let Some(exchange) = exchanges.remove(&id) {
            exchange.gone.cancel();
        }
        return;
    };
    if let Some(known) = exchanges.get(&id) {
        if Arc::ptr_eq(&known.live, table.live()) {
            return;
        }
        known.gone.cancel();
    }
    let exchange = Arc::new(Exchange {
        network: id,
        live: table.live().clone(),
        ticks: watch::Sender::new(()),
        asked: Mutex::default(),
        gone: core.stop.child_token(),
    });
    let ticks = exchange.ticks.clone();
    exchange.live.watch(move || ticks.send_modify(|()| {}));
    exchanges.insert(id, exchange.clone());
    let (inner, local) = (core.clone(), local.clone());
    core.spawn(async move { exchange.ask_when_wanted(&inner, &local).await });
}

impl Exchange {
    /// Asks other nodes whenever a payload here sends multicast and their groups are not known.
    async fn ask_when_wanted(self: Arc<Self>, core: &Arc<Core>, local: &Local) {
        let mut ticks = self.ticks.subscribe();
        loop {
            if self.live.wants_groups() {
                let nodes = local.get(self.network).map(|r| r.nodes()).unwrap_or_default();
                for node in nodes {
                    if node != core.me && !self.live.knows(node) && self.asked.lock().insert(node) {
                        let (this, inner) = (self.clone(), core.clone());
                        core.spawn(async move { this.ask(&inner, node).await });
                    }
                }
            }
            let pace = Instant::now() + PACE;
            tokio::select! {
                () = self.gone.cancelled() => return,
                changed = ticks.changed() => if changed.is_err() { return },
            }
            sleep_until(pace).await;
        }
    }

    /// Asks one node and follows its answers; when they end it counts as unknown again.
    async fn ask(&self, core: &Core, node: NodeId) {
        tokio::select! {
            () = self.gone.cancelled() => {}
            result = self.listen(core, node) => if let Err(error) = result {
                tracing::debug!(network = %self.network, %node, %error, "multicast groups unknown");
                tokio::time::sleep(AGAIN).await;
            },
        }
        self.live.forget_node(node);
        self.asked.lock().remove(&node);
    }

    async fn listen(&self, core: &Core, node: NodeId) -> Result<(), NodeError> {
        let request = GroupsRequest { network: self.network };
        let ((), mut channel) = core.peers.ask(node, proto::GROUPS, &request, ANSWER_LIMIT).await?;
        while let Ok(Some(update)) = proto::receive::<GroupsUpdate>(&mut channel).await {
            self.live.announce(node, update.groups);
        }
        Ok(())
    }
}

/// Tells another member's node the groups here, now and after every change.
async fn answer(mut call: Call, local: &Local, exchanges: &Exchanges) {
    let Some(GroupsRequest { network }) = call.request().await else { return };
    let member = local.get(network).is_some_and(|roster| roster.has_node(call.peer));
    let exchange = exchanges.lock().get(&network).cloned().filter(|_| member);
    let Some(exchange) = exchange else {
        let refusal = NodeError::forbidden(format!("node {} is not in the network", call.peer));
        call.answer::<()>(Err(refusal)).await;
        return;
    };
    if call.reply(&Ok(())).await.is_err() {
        return;
    }
    let mut ticks = exchange.ticks.subscribe();
    let mut told = None;
    loop {
        let groups = exchange.live.groups();
        if told.as_ref() != Some(&groups) {
            let update = GroupsUpdate { groups: groups.iter().copied().collect() };
            if proto::send(&mut call.channel, &update).await.is_err() {
                return;
            }
            told = Some(groups);
        }
        let pace = Instant::now() + PACE;
        tokio::select! {
            () = exchange.gone.cancelled() => return,
            // The asker sends nothing more: what comes is its end.
            _ = proto::receive_frame(&mut call.channel) => return,
            changed = ticks.changed() => if changed.is_err() { return },
        }
        sleep_until(pace).await;
        if !local.get(network).is_some_and(|roster| roster.has_node(call.peer)) {
            return;
        }
    }
}
