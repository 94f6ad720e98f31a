//! This node and its relays: it registers with all that it is told of, asks them for peers, and
//! visits those where a peer is at home.

mod client;
mod lookup;
mod streamed;

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use gvpn_dataplane::{CONTROL_UNKNOWN_SESSION, Hop, read_control_message};
use gvpn_home::{Action, Activity, Home, Timing};
use gvpn_model::NodeId;
use gvpn_path::{Source, carrier_id};
use parking_lot::Mutex;
use quinn::VarInt;
use tokio::sync::{Notify, mpsc};

use crate::{RelayState, connection::Conn, shared::Shared};
use client::{Order, Wanted};
pub(crate) use lookup::Found;
use lookup::News;

/// The relays of this node: drives what decides about them.
#[derive(Debug)]
pub(crate) struct Relays {
    configured: Vec<SocketAddr>,
    home: Mutex<Home>,
    wake: Notify,
    /// Calls in progress, and connections, by call.
    talks: Mutex<HashMap<u64, Talk>>,
    /// Who looks for a peer, by look-up.
    look_ups: Mutex<HashMap<u32, mpsc::UnboundedSender<News>>>,
    /// Relays that are reached over a stream, and the address of what carries it.
    carriers: Mutex<HashMap<SocketAddr, SocketAddr>>,
    /// The number of the last record.
    sequence: AtomicU64,
}

#[derive(Debug)]
struct Talk {
    relay: SocketAddr,
    connected: Option<Connected>,
}

/// A connection with a relay.
#[derive(Debug, Clone)]
struct Connected {
    conn: Arc<Conn>,
    orders: mpsc::UnboundedSender<Order>,
}

impl Relays {
    pub(crate) fn new(configured: Vec<SocketAddr>) -> Self {
        let home = Home::new(Instant::now(), &configured, Timing::default());
        Self {
            configured,
            home: Mutex::new(home),
            wake: Notify::new(),
            talks: Mutex::default(),
            look_ups: Mutex::default(),
            carriers: Mutex::default(),
            sequence: AtomicU64::new(0),
        }
    }

    /// Connects to all relays and stays connected.
    pub(crate) fn start(shared: &Arc<Shared>) {
        shared.spawn(run(Arc::clone(shared)));
    }

    /// Tells all relays where this node is now.
    pub(crate) fn publish(shared: &Arc<Shared>) {
        Self::tell(shared, Home::publish);
    }

    /// This node may be seen elsewhere now, or reach other relays.
    pub(crate) fn moved(shared: &Arc<Shared>) {
        Self::look_after(shared, Home::handle_moved);
    }

    /// Relays at hand, and the nodes that they are; the home first, then the nearest.
    pub(crate) fn connected(&self) -> Vec<(SocketAddr, NodeId)> {
        let home = self.home.lock().home();
        let talks = self.talks.lock();
        let connected = talks.values().filter_map(|t| Some((t.relay, &t.connected.as_ref()?.conn)));
        let mut relays: Vec<_> = connected
            .map(|(addr, conn)| (home != Some(addr), conn.quic.rtt(), addr, conn.node))
            .collect();
        relays.sort();
        relays.into_iter().map(|(.., addr, node)| (addr, node)).collect()
    }

    /// Those that were configured.
    pub(crate) fn states(&self) -> Vec<RelayState> {
        // Copied, so that no lock is held while another is taken.
        let carriers = self.carriers.lock().clone();
        let rtts: HashMap<SocketAddr, Duration> = {
            let talks = self.talks.lock();
            let connected = talks.values().filter_map(|t| Some((t.relay, t.connected.as_ref()?)));
            connected.map(|(relay, connected)| (relay, connected.conn.quic.rtt())).collect()
        };
        let home = self.home.lock();
        let state = |addr: &SocketAddr| {
            let rtt = rtts.get(addr).copied();
            let reason = || home.failure(*addr).unwrap_or("it has just gone").to_owned();
            let stream = carriers.contains_key(addr);
            RelayState { addr: *addr, rtt, stream, reason: rtt.is_none().then(reason) }
        };
        self.configured.iter().map(state).collect()
    }

    /// There is doubt whether a relay still knows this node: finds out.
    pub(crate) fn doubt(shared: &Arc<Shared>, addr: SocketAddr) {
        let relay = shared.relays.owner(addr);
        Self::look_after(shared, |home, now| home.doubt(now, relay));
    }

    /// A control message of a relay came in. It is not authentic: a reason to look, no more.
    pub(crate) fn handle_control(shared: &Arc<Shared>, hop: Hop, message: &[u8]) {
        let Some((kind, number)) = read_control_message(message) else { return };
        let relay = shared.relays.owner(hop.wire_addr());
        Self::look_after(shared, |home, now| match kind {
            CONTROL_UNKNOWN_SESSION => home.handle_unknown_session(now, relay, number),
            _ => home.handle_hint(now, relay),
        });
    }

    /// Tells what decides about relays something, and carries out what it says.
    fn tell<T>(shared: &Arc<Shared>, what: impl FnOnce(&mut Home, Instant) -> T) -> T {
        let relays = &shared.relays;
        let mut home = relays.home.lock();
        let before = home.poll_timeout();
        let result = what(&mut home, Instant::now());
        // The order counts, so the lock is held; nothing here asks for it.
        while let Some(action) = home.poll_action() {
            relays.act(shared, action);
        }
        let after = home.poll_timeout();
        drop(home);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            relays.wake.notify_one();
        }
        result
    }

    /// As [`tell`](Self::tell), once it knows what has happened on the connections.
    fn look_after(shared: &Arc<Shared>, what: impl FnOnce(&mut Home, Instant)) {
        let activities = shared.relays.activities(shared);
        Self::tell(shared, |home, now| {
            for (call, activity) in &activities {
                home.handle_activity(now, *call, activity);
            }
            what(home, now);
        });
    }

    fn activities(&self, shared: &Arc<Shared>) -> Vec<(u64, Activity)> {
        let visited = |relay: &SocketAddr| !self.configured.contains(relay);
        let talks: Vec<(u64, SocketAddr, Arc<Conn>)> = {
            let talks = self.talks.lock();
            let all = talks.iter();
            let connected =
                all.filter_map(|(c, t)| Some((*c, t.relay, &t.connected.as_ref()?.conn)));
            connected.map(|(call, relay, conn)| (call, relay, Arc::clone(conn))).collect()
        };
        let visits = talks.iter().any(|(_, relay, _)| visited(relay));
        let used = if visits { self.used(shared) } else { HashSet::new() };
        let activity = |(call, relay, conn): (u64, SocketAddr, Arc<Conn>)| {
            let (received, rtt) = (conn.received(), conn.quic.rtt());
            (call, Activity { received, rtt, used: used.contains(&relay) })
        };
        talks.into_iter().map(activity).collect()
    }

    /// The relays through which peers are reached.
    fn used(&self, shared: &Arc<Shared>) -> HashSet<SocketAddr> {
        let peers: Vec<_> = shared.peers.lock().values().cloned().collect();
        let usable = peers.iter().filter(|peer| peer.usable().is_some());
        let relayed = usable.filter_map(|peer| peer.path.active().filter(Hop::is_relayed));
        relayed.map(|hop| self.owner(hop.wire_addr())).collect()
    }

    fn act(&self, shared: &Arc<Shared>, action: Action) {
        match action {
            Action::Call { relay, call } => {
                self.talks.lock().insert(call, Talk { relay, connected: None });
                shared.spawn(client::call(Arc::clone(shared), Wanted { addr: relay, call }));
            }
            Action::HangUp { relay, call, silent } => {
                let talk = self.talks.lock().get_mut(&call).and_then(|talk| talk.connected.take());
                // Its task finds out.
                match talk {
                    Some(connected) if silent => {
                        tracing::info!(%relay, "the relay has forgotten this node, or is gone");
                        connected.conn.give_up();
                    }
                    Some(connected) => connected.conn.quic.close(VarInt::from_u32(0), b"farewell"),
                    None => {}
                }
            }
            Action::Send { call, request, .. } => {
                if let Some(connected) = self.connection(call) {
                    // The task is gone only while the connection ends.
                    let _ = connected.orders.send(Order::Request(request));
                }
            }
            Action::Ping { call, .. } => {
                self.connection(call).into_iter().for_each(|connected| connected.conn.ping());
            }
            Action::Session { relay, session, peer } => {
                self.forwards(shared, relay, session, peer);
            }
            Action::Way { look_up, addrs, session } => {
                let session = session.map(|(relay, session)| self.hop(relay, session));
                let hops = addrs.into_iter().map(Hop::Direct).chain(session).collect();
                self.inform(look_up, Ok(hops));
            }
            Action::Done { look_up, failed } => {
                failed.into_iter().for_each(|reason| self.inform(look_up, Err(reason)));
                self.look_ups.lock().remove(&look_up);
            }
        }
    }

    fn connection(&self, call: u64) -> Option<Connected> {
        self.talks.lock().get(&call)?.connected.clone()
    }

    /// A relay forwards to a peer under this number from now on.
    fn forwards(&self, shared: &Arc<Shared>, relay: SocketAddr, session: u32, node: NodeId) {
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
            for (session, peer) in self.sessions_of(relay) {
                self.forwards(shared, relay, session, peer);
            }
        }
    }

    /// The number of a record as of now: later ones have larger ones, also within a millisecond.
    fn next_sequence(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self.sequence.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        last.map_or(now, |last| now.max(last.saturating_add(1)))
    }

    /// Whether UDP reaches a relay; `None` if no relay is reached at all.
    pub(crate) fn udp_works(&self) -> Option<bool> {
        let connected: Vec<_> = {
            let talks = self.talks.lock();
            talks.values().filter(|t| t.connected.is_some()).map(|t| t.relay).collect()
        };
        let carriers = self.carriers.lock();
        let on_udp = connected.iter().any(|relay| !carriers.contains_key(relay));
        (!connected.is_empty()).then_some(on_udp)
    }

    /// Relays that UDP reaches, the home first, then the nearest.
    pub(crate) fn on_udp(&self) -> Vec<SocketAddr> {
        let connected = self.connected();
        let carriers = self.carriers.lock();
        let addrs = connected.into_iter().map(|(addr, _)| addr);
        addrs.filter(|addr| !carriers.contains_key(addr)).collect()
    }

    /// Has a relay send a datagram with this number to another socket of this node's.
    pub(crate) fn knock(&self, relay: SocketAddr, number: u32, at: SocketAddr) {
        let talks = self.talks.lock();
        let connected = talks.values().filter(|talk| talk.relay == relay);
        for connected in connected.filter_map(|talk| talk.connected.as_ref()) {
            // Its task is gone only while the connection ends.
            let _ = connected.orders.send(Order::Knock { number, at });
        }
    }

    /// The sessions with a relay.
    fn sessions_of(&self, relay: SocketAddr) -> Vec<(u32, NodeId)> {
        self.home.lock().sessions(relay)
    }
}

/// Lets time pass for what decides about relays, for ever.
async fn run(shared: Arc<Shared>) {
    loop {
        let timeout = shared.relays.home.lock().poll_timeout();
        let sleep = async {
            match timeout {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.relays.wake.notified() => {}
            () = sleep => Relays::look_after(&shared, Home::handle_timeout),
        }
    }
}
