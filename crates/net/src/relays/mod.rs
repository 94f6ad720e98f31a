//! This node and its relays: it registers with all that it is told of, asks them for peers, and
//! visits those where a peer is at home.

mod client;
mod lookup;
mod streamed;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

use gvpn_dataplane::{CONTROL_UNKNOWN_SESSION, Hop, read_control_message};
use gvpn_model::NodeId;
use gvpn_path::{Source, carrier_id};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use crate::{RelayState, connection::Conn, shared::Shared};
use client::Command;
pub(crate) use lookup::Found;

/// How soon a relay must show that it still knows this node, once there is doubt.
const CHECK: Duration = Duration::from_secs(1);
/// Sessions that are remembered, to be resumed after a restart of their relay.
const MAX_SESSIONS: usize = 4096;

/// The relays of this node.
#[derive(Debug)]
pub(crate) struct Relays {
    configured: Vec<SocketAddr>,
    connected: Mutex<HashMap<SocketAddr, Connected>>,
    /// Relays of others that this node visits.
    visiting: Mutex<HashSet<SocketAddr>>,
    /// A relay was connected.
    arrived: Notify,
    /// Why a relay is not connected.
    failures: Mutex<HashMap<SocketAddr, String>>,
    sessions: Mutex<HashMap<(SocketAddr, u32), NodeId>>,
    /// Relays that are reached over a stream, and the address of what carries it.
    carriers: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// Relays in doubt, and when the doubt began.
    doubted: Mutex<HashMap<SocketAddr, Instant>>,
    next_request: AtomicU32,
}

#[derive(Debug, Clone)]
struct Connected {
    node: NodeId,
    conn: Arc<Conn>,
    commands: mpsc::UnboundedSender<Command>,
}

impl Relays {
    pub(crate) fn new(configured: Vec<SocketAddr>) -> Self {
        Self {
            configured,
            connected: Mutex::default(),
            visiting: Mutex::default(),
            arrived: Notify::new(),
            failures: Mutex::default(),
            sessions: Mutex::default(),
            carriers: Mutex::default(),
            doubted: Mutex::default(),
            next_request: AtomicU32::new(0),
        }
    }

    /// Connects to all relays and stays connected.
    pub(crate) fn start(shared: &Arc<Shared>) {
        for addr in shared.relays.configured.clone() {
            shared.spawn(client::stay(Arc::clone(shared), addr));
        }
    }

    /// Tells all relays where this node is now.
    pub(crate) fn publish(&self) {
        for relay in self.connected.lock().values() {
            // The relay's task is gone only while it reconnects, and will register then.
            let _ = relay.commands.send(Command::Register);
        }
    }

    /// Relays at hand, and the nodes that they are; the nearest first.
    pub(crate) fn connected(&self) -> Vec<(SocketAddr, NodeId)> {
        let connected = self.connected.lock();
        let mut relays: Vec<_> =
            connected.iter().map(|(a, r)| (r.conn.quic.rtt(), *a, r.node)).collect();
        relays.sort();
        relays.into_iter().map(|(_, addr, node)| (addr, node)).collect()
    }

    /// Those that were configured.
    pub(crate) fn states(&self) -> Vec<RelayState> {
        // Cloned, so that no lock is held while another is taken.
        let carriers = self.carriers.lock().clone();
        let failures = self.failures.lock().clone();
        let connected = self.connected.lock();
        let state = |addr: &SocketAddr| {
            let rtt = connected.get(addr).map(|relay| relay.conn.quic.rtt());
            let unheard = || "it has not answered yet".to_owned();
            let reason = || failures.get(addr).cloned().unwrap_or_else(unheard);
            let stream = carriers.contains_key(addr);
            RelayState { addr: *addr, rtt, stream, reason: rtt.is_none().then(reason) }
        };
        self.configured.iter().map(state).collect()
    }

    /// The relays where this node can be found, its home first.
    fn homes(&self) -> Vec<SocketAddr> {
        let visiting = self.visiting.lock().clone();
        let mut homes: Vec<_> = self.connected().into_iter().map(|(addr, _)| addr).collect();
        homes.retain(|addr| !visiting.contains(addr));
        homes.truncate(crate::MAX_RECORD_ADDRS);
        homes
    }

    /// There is doubt whether a relay still knows this node: finds out.
    pub(crate) fn doubt(shared: &Arc<Shared>, addr: SocketAddr) {
        let relays = &shared.relays;
        let addr = relays.owner(addr);
        let Some(relay) = relays.connected.lock().get(&addr).cloned() else { return };
        let now = Instant::now();
        let mut doubted = relays.doubted.lock();
        if doubted.get(&addr).is_some_and(|at| now.duration_since(*at) < CHECK * 2) {
            return;
        }
        doubted.insert(addr, now);
        drop(doubted);
        shared.spawn(async move {
            if !relay.conn.must_answer(CHECK).await {
                tracing::info!(relay = %addr, "the relay has forgotten this node");
            }
        });
    }

    /// A control message of a relay came in. It is not authentic: a reason to look, no more.
    pub(crate) fn handle_control(shared: &Arc<Shared>, hop: Hop, message: &[u8]) {
        let Some((kind, session)) = read_control_message(message) else { return };
        let addr = shared.relays.owner(hop.wire_addr());
        Self::doubt(shared, addr);
        let node = shared.relays.sessions.lock().get(&(addr, session)).copied();
        if let (CONTROL_UNKNOWN_SESSION, Some(node)) = (kind, node) {
            lookup::renew_session(shared, addr, session, node);
        }
    }

    /// A relay forwards to a peer under this number from now on.
    fn learn_session(&self, shared: &Arc<Shared>, relay: SocketAddr, session: u32, node: NodeId) {
        let mut sessions = self.sessions.lock();
        if sessions.len() >= MAX_SESSIONS {
            sessions.clear();
        }
        sessions.retain(|(r, _), n| *r != relay || *n != node);
        sessions.insert((relay, session), node);
        drop(sessions);
        let hop = self.hop(relay, session);
        let others: HashSet<SocketAddr> = {
            let carriers = self.carriers.lock();
            carriers.iter().filter(|(r, _)| **r != relay).map(|(_, c)| *c).collect()
        };
        let same = |other: SocketAddr| {
            other == relay || (carrier_id(other).is_some() && !others.contains(&other))
        };
        shared.peer(node).path.tell(|agent, now| {
            let old: Vec<Hop> = agent
                .hops()
                .filter(|old| *old != hop && old.is_relayed() && same(old.wire_addr()))
                .collect();
            agent.add_candidate(now, hop, Source::Relay);
            for hop in old {
                agent.remove_candidate(now, hop);
            }
        });
    }

    /// The relay that is reached at an address.
    pub(crate) fn owner(&self, addr: SocketAddr) -> SocketAddr {
        let carriers = self.carriers.lock();
        let owner = carriers.iter().find(|(_, carrier)| **carrier == addr);
        owner.map_or(addr, |(relay, _)| *relay)
    }

    /// The way to a peer by a session of a relay.
    fn hop(&self, relay: SocketAddr, session: u32) -> Hop {
        let carrier = self.carriers.lock().get(&relay).copied();
        Hop::Relay { relay: carrier.unwrap_or(relay), session }
    }

    /// The relay is reached in this way from now on: the ways to peers change with it.
    fn rerouted(&self, shared: &Arc<Shared>, relay: SocketAddr, active: Option<Hop>) {
        let carrier = active.map(|hop| hop.wire_addr()).filter(|addr| carrier_id(*addr).is_some());
        let before = {
            let mut carriers = self.carriers.lock();
            match carrier {
                Some(carrier) => carriers.insert(relay, carrier),
                None => carriers.remove(&relay),
            }
        };
        if before != carrier {
            for (session, node) in self.sessions_of(relay) {
                self.learn_session(shared, relay, session, node);
            }
        }
    }

    /// Whether UDP reaches a relay; `None` if no relay is reached at all.
    pub(crate) fn udp_works(&self) -> Option<bool> {
        let connected: Vec<_> = self.connected.lock().keys().copied().collect();
        let carriers = self.carriers.lock();
        let on_udp = connected.iter().any(|relay| !carriers.contains_key(relay));
        (!connected.is_empty()).then_some(on_udp)
    }

    /// Relays that UDP reaches, the nearest first.
    pub(crate) fn on_udp(&self) -> Vec<SocketAddr> {
        let connected = self.connected();
        let carriers = self.carriers.lock();
        let addrs = connected.into_iter().map(|(addr, _)| addr);
        addrs.filter(|addr| !carriers.contains_key(addr)).collect()
    }

    /// Has a relay send a datagram with this number to another socket of this node's.
    pub(crate) fn knock(&self, relay: SocketAddr, number: u32, at: SocketAddr) {
        if let Some(relay) = self.connected.lock().get(&relay) {
            // The relay's task is gone only while it reconnects.
            let _ = relay.commands.send(Command::Knock { number, at });
        }
    }

    /// The sessions with a relay.
    fn sessions_of(&self, relay: SocketAddr) -> Vec<(u32, NodeId)> {
        let sessions = self.sessions.lock();
        let own = sessions.iter().filter(|((r, _), _)| *r == relay);
        own.map(|((_, session), node)| (*session, *node)).collect()
    }
}
