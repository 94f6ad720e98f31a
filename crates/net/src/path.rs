//! Drives the path agent of one peer.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use gvpn_dataplane::{DataPlane, Hop, Route};
use gvpn_model::NodeId;
use gvpn_path::{Agent, Event, Report, Timing, is_socket};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc, watch};

use crate::{guess::Held, ways::Ways};

/// What a path tells the rest of the net.
#[derive(Debug)]
pub(crate) enum PathEvent {
    /// The peer does not answer on any hop.
    Distress(Arc<PeerPath>),
    /// The peer sees this node at an address.
    Observed {
        /// Where the peer is.
        by: SocketAddr,
        /// Where it sees this node.
        addr: SocketAddr,
    },
    /// The ports of the peer's NAT, or this node's, might be guessed.
    Guess(Arc<PeerPath>),
    /// The peer is to be told that this node is ready for that.
    ProposeGuess(Arc<PeerPath>),
    /// Sockets are to be opened that reach the peer.
    OpenSockets {
        /// Whose.
        path: Arc<PeerPath>,
        /// Where it is.
        to: SocketAddr,
        /// How many.
        count: usize,
    },
}

/// The path to one peer: its agent, and what carries out what the agent says.
pub(crate) struct PeerPath {
    node: NodeId,
    agent: Mutex<Agent>,
    ways: Arc<Ways>,
    /// The agent's hops, as they stand in `ways`. Locked after the agent.
    hops: Mutex<Vec<Hop>>,
    /// Locked after the agent.
    held: Mutex<Held>,
    wake: Notify,
    plane: DataPlane,
    events: mpsc::UnboundedSender<PathEvent>,
    route: watch::Sender<Option<Hop>>,
    /// Nothing was heard of the peer when it was to answer the last time.
    silent: AtomicBool,
}

impl PeerPath {
    pub(crate) fn new(
        node: NodeId,
        plane: DataPlane,
        events: mpsc::UnboundedSender<PathEvent>,
        ways: Arc<Ways>,
        (timing, seed): (Timing, u64),
    ) -> Arc<Self> {
        let (agent, held) = (Mutex::new(Agent::new(timing, seed)), Mutex::default());
        let route = watch::Sender::new(None);
        let (wake, silent, hops) = (Notify::new(), AtomicBool::new(false), Mutex::default());
        Arc::new(Self { node, agent, ways, hops, held, wake, plane, events, route, silent })
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Whether nothing was heard of the peer when it was to answer the last time.
    pub(crate) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// Tells the agent something and carries out what it says.
    pub(crate) fn tell<T>(self: &Arc<Self>, what: impl FnOnce(&mut Agent, Instant) -> T) -> T {
        let now = Instant::now();
        let mut agent = self.agent.lock();
        let before = agent.poll_timeout(now);
        let result = what(&mut agent, now);
        self.flush(&mut agent);
        self.index(&agent);
        self.settle(&agent);
        let after = agent.poll_timeout(now);
        drop(agent);
        let sooner = match (before, after) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(before), Some(after)) => after < before,
        };
        if sooner {
            self.wake.notify_one();
        }
        result
    }

    /// What is held for guessing ports.
    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock()
    }

    /// Where datagrams for the peer go that are sent to an address.
    pub(crate) fn remote(&self, addr: SocketAddr) -> SocketAddr {
        if is_socket(addr) { self.held().peer_at(addr).unwrap_or(addr) } else { addr }
    }

    /// Forgets sockets of the peer's that NATs have forgotten.
    pub(crate) fn sweep(self: &Arc<Self>) {
        if !self.held().is_empty() {
            self.tell(Agent::sweep);
        }
    }

    /// Asks the agent something.
    pub(crate) fn ask<T>(&self, what: impl FnOnce(&Agent, Instant) -> T) -> T {
        what(&self.agent.lock(), Instant::now())
    }

    pub(crate) fn report(&self) -> Report {
        self.ask(|agent, now| agent.report(now))
    }

    pub(crate) fn active(&self) -> Option<Hop> {
        self.ask(|agent, _| agent.active())
    }

    /// The hop in use, and its changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Hop>> {
        self.route.subscribe()
    }

    /// Lets time pass for the agent, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            let timeout = self.ask(|agent, now| agent.poll_timeout(now));
            let sleep = async {
                match timeout {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep => self.timeout(),
            }
        }
    }

    fn timeout(self: &Arc<Self>) {
        let activity = self.plane.activity(self.node);
        self.tell(|agent, now| {
            agent.handle_activity(now, activity.sent, activity.heard);
            agent.handle_timeout(now);
        });
    }

    fn flush(self: &Arc<Self>, agent: &mut Agent) {
        while let Some(transmit) = agent.poll_transmit() {
            if let Err(error) = self.plane.send_probe(self.node, transmit.hop, &transmit.bytes) {
                tracing::trace!(peer = %self.node, hop = %transmit.hop, %error, "probe not sent");
            }
        }
        while let Some(event) = agent.poll_event() {
            match event {
                Event::Route { hop, mtu } => {
                    tracing::debug!(peer = %self.node, %hop, mtu, "route");
                    self.plane.set_route(self.node, Some(Route { hop, mtu }));
                    self.route.send_if_modified(|route| route.replace(hop) != Some(hop));
                }
                Event::Distress => self.emit(PathEvent::Distress(Arc::clone(self))),
                Event::Observed { by, addr } => self.emit(PathEvent::Observed { by, addr }),
                Event::Guess => self.emit(PathEvent::Guess(Arc::clone(self))),
                Event::ProposeGuess => self.emit(PathEvent::ProposeGuess(Arc::clone(self))),
                Event::OpenSockets { to, count } => {
                    let path = Arc::clone(self);
                    self.emit(PathEvent::OpenSockets { path, to, count });
                }
            }
        }
    }

    /// Lets this peer be found by its hops.
    fn index(&self, agent: &Agent) {
        let mut hops = self.hops.lock();
        if !agent.hops().eq(hops.iter().copied()) {
            let now: Vec<Hop> = agent.hops().collect();
            self.ways.change(self.node, &hops, &now);
            *hops = now;
        }
    }

    /// Closes sockets that are not in use.
    fn settle(&self, agent: &Agent) {
        if !agent.is_guessing() {
            let mut held = self.held.lock();
            if !held.is_empty() {
                held.settle(|hop| agent.hops().any(|other| other == hop));
            }
        }
    }

    fn emit(&self, event: PathEvent) {
        // The receiver is gone only while the net ends.
        let _ = self.events.send(event);
    }
}

impl fmt::Debug for PeerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerPath").field("node", &self.node).finish_non_exhaustive()
    }
}
