//! Reacts to what the data plane and the path agents report.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use gvpn_dataplane::{Event, Hop, PortId};
use gvpn_model::{NetworkId, NodeId};
use tokio::sync::mpsc;

use crate::{
    NetError, awake::Awake, connection::Command, guess, path::PathEvent, peer::Peer,
    relays::Relays, shared::Shared,
};

/// How long a connection may take to show that it lives before a new one is made.
const POKE: Duration = Duration::from_millis(400);
/// The same where packets wait for a lane: they wait longer than that.
const POKE_FOR_LANE: Duration = Duration::from_secs(1);
/// Both ends see a lane age at the same time; the one with the larger id waits for the other.
const YIELD: Duration = Duration::from_secs(4);
/// How often the clocks are compared, and the interfaces looked at where nothing reports changes.
const LOOK: Duration = Duration::from_millis(300);
/// What happens within this time after a change belongs to it.
const SETTLE: Duration = Duration::from_millis(20);
/// How often books are swept.
const SWEEP: Duration = Duration::from_secs(5);

/// Handles the data plane's events until it ends.
pub(crate) async fn run_plane(
    shared: Arc<Shared>,
    mut events: mpsc::UnboundedReceiver<Event>,
    closed_ports: mpsc::UnboundedSender<PortId>,
) {
    while let Some(event) = events.recv().await {
        match event {
            Event::LaneWanted { peer, network } => {
                shared.spawn(want_lane(Arc::clone(&shared), peer, network));
            }
            Event::LaneAging { local_index } => {
                shared.spawn(renew(Arc::clone(&shared), local_index));
            }
            Event::Probe { peer, hop, bytes } => {
                shared.peer(peer).path.tell(|agent, now| agent.handle_probe(now, hop, &bytes));
            }
            Event::Heard { peer, hop } => {
                shared.peer(peer).path.tell(|agent, now| agent.handle_heard(now, hop));
            }
            Event::Active { peer } => {
                shared.peer(peer).path.tell(|agent, now| agent.handle_sent(now));
            }
            Event::PathTooSmall { peer, size } => {
                shared.peer(peer).path.tell(|agent, now| agent.handle_too_large(now, size));
            }
            // Nobody has to be interested.
            Event::PortClosed { port } => drop(closed_ports.send(port)),
        }
    }
}

/// Handles what the path agents report.
pub(crate) async fn run_paths(shared: Arc<Shared>, mut events: mpsc::UnboundedReceiver<PathEvent>) {
    while let Some(event) = events.recv().await {
        match event {
            PathEvent::Distress(path) => {
                let peer = shared.peer(path.node());
                if !peer.in_distress.swap(true, Ordering::AcqRel) {
                    shared.spawn(distress(Arc::clone(&shared), peer));
                }
            }
            PathEvent::Observed { by, addr } => shared.observed(by, addr),
            PathEvent::Guess(path) => {
                let peer = shared.peer(path.node());
                shared.spawn(guess::prepare(Arc::clone(&shared), peer));
            }
            PathEvent::ProposeGuess(path) => guess::propose(&shared.peer(path.node())),
            PathEvent::OpenSockets { path, to, count } => guess::open(&shared, &path, to, count),
        }
    }
}

/// Handles control messages of relays.
pub(crate) async fn run_relay_control(
    shared: Arc<Shared>,
    mut messages: mpsc::UnboundedReceiver<(Hop, BytesMut)>,
) {
    while let Some((hop, message)) = messages.recv().await {
        Relays::handle_control(&shared, hop, &message);
    }
}

/// Sweeps books from time to time.
pub(crate) async fn run_sweeps(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        shared.links.sweep(now);
        shared.lanes.sweep(now);
        let peers: Vec<Arc<Peer>> = shared.peers.lock().values().cloned().collect();
        for peer in peers.iter().filter(|p| !shared.lanes.has_peer_lane(p.node)) {
            peer.path.tell(|agent, _| agent.session_down());
        }
        peers.iter().for_each(|peer| peer.path.sweep());
    }
}

/// Notices changes of this node's addresses and routes, and that the machine has slept.
pub(crate) async fn run_addresses(shared: Arc<Shared>) {
    let interfaces = shared.addresses.interfaces();
    let mut awake = Awake::default();
    let mut looked = Instant::now();
    loop {
        let changed = tokio::select! {
            () = interfaces.changed() => {
                // One change is many reports.
                tokio::time::sleep(SETTLE).await;
                true
            }
            () = tokio::time::sleep(LOOK) => !interfaces.reported(),
        };
        if let Some(slept) = awake.slept() {
            tracing::info!(?slept, "the machine has slept");
            shared.addresses.refresh();
            shared.displaced();
        } else if (changed || looked.elapsed() > SWEEP) && shared.addresses.refresh() {
            shared.readdressed();
        } else if !changed {
            continue;
        }
        looked = Instant::now();
    }
}

/// Packets wait for a lane.
async fn want_lane(shared: Arc<Shared>, node: NodeId, network: NetworkId) {
    if !shared.allowed(network, node) {
        tracing::debug!(%node, %network, "packets for a node that is not a member");
        return;
    }
    let peer = shared.peer(node);
    let asked = async {
        let conn = peer.connect(&shared).await?;
        conn.command(Command::Want(network));
        // The peer may have been started anew since, and remember nothing.
        if conn.answers(POKE_FOR_LANE).await {
            return Ok(());
        }
        tracing::debug!(peer = %node, "silent peer is called anew for a lane");
        peer.path.set_silent(true);
        renew_with(&shared, node, true, Some(network)).await
    };
    let asked: Result<(), NetError> = asked.await;
    if let Err(error) = asked {
        tracing::info!(%node, %error, "no lane");
    }
}

/// A lane in use is old.
async fn renew(shared: Arc<Shared>, local_index: u32) {
    let Some((node, _)) = shared.lanes.in_use(local_index) else { return };
    if shared.identity.node_id() > node {
        tokio::time::sleep(YIELD).await;
    }
    while shared.lanes.in_use(local_index).is_some() {
        if let Err(error) = renew_now(&shared, node, false).await {
            tracing::info!(%node, %error, "lanes not renewed");
        }
        tokio::time::sleep(YIELD).await;
    }
}

/// Makes a fresh connection and negotiates on it the lanes that other connections have.
pub(crate) async fn renew_now(
    shared: &Arc<Shared>,
    node: NodeId,
    look_up: bool,
) -> Result<(), NetError> {
    renew_with(shared, node, look_up, None).await
}

/// As [`renew_now`], with one lane more.
async fn renew_with(
    shared: &Arc<Shared>,
    node: NodeId,
    look_up: bool,
    more: Option<NetworkId>,
) -> Result<(), NetError> {
    let conn = shared.peer(node).reconnect(shared, look_up).await?;
    let mut networks: BTreeSet<_> = shared.lanes.networks(node).into_iter().collect();
    networks.extend(more);
    for network in networks {
        if shared.allowed(network, node) {
            conn.command(Command::Want(network));
        }
    }
    Ok(())
}

/// A peer is silent: finds out whether it still knows this node, and calls it anew if not.
async fn distress(shared: Arc<Shared>, peer: Arc<Peer>) {
    match peer.path.active() {
        Some(Hop::Relay { relay, .. }) => Relays::doubt(&shared, relay),
        // It is asked beside whether a relay forwards to it: sessions are learned in any case.
        _ => drop(Relays::look_up(&shared, peer.node)),
    }
    let alive = match peer.usable() {
        Some(conn) => conn.answers(POKE).await,
        None => false,
    };
    if !alive {
        tracing::debug!(peer = %peer.node, "silent peer is called anew");
        peer.path.set_silent(true);
        if let Err(error) = renew_now(&shared, peer.node, true).await {
            tracing::info!(peer = %peer.node, %error, "silent peer");
        }
    }
    peer.in_distress.store(false, Ordering::Release);
}
