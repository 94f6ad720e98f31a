//! What all parts of a node's presence share.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use gvpn_dataplane::{DataPlane, Hop};
use gvpn_identity::{Identity, tls};
use gvpn_model::{NetworkId, NodeId};
use gvpn_path::{Nature, Timing, carrier_id};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    Incoming, NetError, Stream,
    addresses::Addresses,
    connection::{Command, Conn},
    endpoint::Quic,
    guess,
    lanes::Lanes,
    link::{Link, Links},
    mapping::PortMapping,
    path::{PathEvent, PeerPath},
    peer::Peer,
    relay_stream::Dialer,
    relays::Relays,
    socket::Socket,
};

/// How many streams may wait for a service to take them.
const BACKLOG: usize = 64;

pub(crate) struct Shared {
    pub(crate) identity: Identity,
    pub(crate) plane: DataPlane,
    pub(crate) quic: Quic,
    pub(crate) links: Arc<Links>,
    pub(crate) lanes: Lanes,
    pub(crate) relays: Relays,
    /// Opens streams to relays, if that is wanted.
    pub(crate) dialer: Option<Dialer>,
    pub(crate) addresses: Addresses,
    /// Whether this CPU has AES instructions.
    pub(crate) aes: bool,
    pub(crate) path_events: mpsc::UnboundedSender<PathEvent>,
    /// Held by who guesses ports: one peer's at a time.
    pub(crate) guessing: Arc<Semaphore>,
    /// How long after they were guessed in vain ports are guessed again.
    pub(crate) guess_again: Duration,
    /// What the NAT did when peers were last told.
    pub(crate) told_nature: Mutex<Nature>,
    pub(crate) ended: CancellationToken,
    pub(crate) peers: Mutex<HashMap<NodeId, Arc<Peer>>>,
    pub(crate) services: Mutex<HashMap<&'static str, mpsc::Sender<Incoming>>>,
    /// Which nodes may have lanes of which networks.
    pub(crate) shares: RwLock<HashMap<NetworkId, HashSet<NodeId>>>,
}

impl Shared {
    /// Runs a task until it, or the net, ends.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = ended.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// The peer with this id, made if need be.
    pub(crate) fn peer(&self, node: NodeId) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(&node) {
            return Arc::clone(peer);
        }
        let (plane, events) = (self.plane.clone(), self.path_events.clone());
        let timing = Timing { guess_again: self.guess_again, ..Timing::default() };
        let path = PeerPath::new(node, plane, events, self.links.ways(), (timing, rand::random()));
        let nature = self.nature();
        path.tell(|agent, _| agent.set_nature(nature));
        self.spawn(Arc::clone(&path).run());
        let peer = Peer::new(node, path);
        peers.insert(node, Arc::clone(&peer));
        peer
    }

    /// Calls whoever a link leads to.
    pub(crate) fn call(
        &self,
        link: &Link,
        node: Option<NodeId>,
    ) -> Result<quinn::Connecting, NetError> {
        let name = tls::server_name(node);
        self.quic
            .endpoint
            .connect_with(self.quic.client.clone(), link.address(), &name)
            .map_err(|e| NetError::Start(e.to_string()))
    }

    /// Calls whoever answers at an address within `limit`.
    pub(crate) async fn call_addr(
        self: &Arc<Self>,
        addr: SocketAddr,
        limit: Duration,
    ) -> Result<(Arc<Peer>, Arc<Conn>), String> {
        let link = self.links.call_hop(Hop::Direct(addr));
        let called = async {
            let quic = self.call(&link, None).map_err(|e| e.to_string())?;
            let quic = tokio::select! {
                quic = quic => quic.map_err(|e| e.to_string())?,
                never = Socket::say_again(&self.plane, &link) => match never {},
            };
            Conn::adopt(self, quic, Arc::clone(&link), true).map_err(|e| e.to_string())
        };
        let called = tokio::time::timeout(limit, called).await;
        let called = called.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
        if called.is_err() {
            self.links.remove(&link);
        }
        called
    }

    /// Whether a peer may have a lane of a network.
    pub(crate) fn allowed(&self, network: NetworkId, peer: NodeId) -> bool {
        self.shares.read().get(&network).is_some_and(|peers| peers.contains(&peer))
    }

    /// The addresses at which this node may be reached.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.addresses.all()
    }

    /// The node at `by` sees this one at an address.
    pub(crate) fn observed(self: &Arc<Self>, by: SocketAddr, addr: SocketAddr) {
        // At the other end of a stream nobody sees a UDP address.
        if carrier_id(by).is_some() || carrier_id(addr).is_some() {
            return;
        }
        if self.addresses.observe(by, addr) {
            tracing::debug!(%addr, "observed address");
            self.tell_addrs();
        }
        self.tell_nature();
    }

    /// What this node's NAT does, as far as guessing of ports goes.
    pub(crate) fn nature(&self) -> Nature {
        guess::nature(self.addresses.nat(), self.addresses.filtering())
    }

    /// Tells peers what this node's NAT does, if that is news.
    pub(crate) fn tell_nature(&self) {
        let nature = self.nature();
        if std::mem::replace(&mut *self.told_nature.lock(), nature) == nature {
            return;
        }
        tracing::debug!(?nature, "NAT");
        let peers: Vec<Arc<Peer>> = self.peers.lock().values().cloned().collect();
        for peer in peers {
            peer.path.tell(|agent, _| agent.set_nature(nature));
            if let Some(conn) = peer.usable() {
                conn.command(Command::Nature(nature));
            }
        }
    }

    /// This node's own addresses or routes changed.
    pub(crate) fn readdressed(self: &Arc<Self>) {
        tracing::info!(addrs = ?self.addrs(), "this node's addresses changed");
        self.displaced();
    }

    /// This node may be seen elsewhere now: peers are told, and what they saw before is forgotten.
    pub(crate) fn displaced(self: &Arc<Self>) {
        self.addresses.displaced();
        let peers: Vec<Arc<Peer>> = self.peers.lock().values().cloned().collect();
        let engaged = |p: &&Arc<Peer>| p.path.active().is_some() && p.usable().is_some();
        for peer in peers.iter().filter(engaged) {
            peer.path.tell(|agent, now| agent.local_change(now));
        }
        Relays::moved(self);
        self.tell_addrs();
    }

    /// The router said something about a port.
    pub(crate) fn mapped(self: &Arc<Self>, mapping: PortMapping) {
        if self.addresses.map(mapping) {
            self.tell_addrs();
        }
    }

    /// Tells relays and peers where this node is.
    fn tell_addrs(self: &Arc<Self>) {
        Relays::publish(self);
        let peers: Vec<Arc<Peer>> = self.peers.lock().values().cloned().collect();
        for conn in peers.iter().filter_map(|peer| peer.usable()) {
            conn.command(Command::Punch(self.addrs()));
        }
    }

    /// Hands a stream to the service it is for.
    pub(crate) async fn serve(&self, service: &str, mut stream: Stream) {
        let server = self.services.lock().get(service).cloned();
        let Some(server) = server.filter(|server| !server.is_closed()) else {
            return stream.refuse("this node does not serve that").await;
        };
        let peer = stream.peer();
        if stream.accept().await.is_err() {
            return;
        }
        if let Err(error) = server.send(Incoming { peer, stream }).await {
            tracing::debug!(service, %peer, "service is gone");
            drop(error);
        }
    }

    /// Registers a service.
    pub(crate) fn register(&self, service: &'static str) -> mpsc::Receiver<Incoming> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.services.lock().insert(service, sender);
        receiver
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("node", &self.identity.node_id()).finish_non_exhaustive()
    }
}
