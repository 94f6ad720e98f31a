//! A node's presence on Golem Net.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use gvpn_dataplane::{
    Config, DataPlane, DatagramReceiver, Event, Hop, Offloads, PortId, StartError,
};
use gvpn_identity::tls::TransportKey;
use gvpn_model::{NetworkId, NodeId};
use gvpn_path::Source;
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    NetConfig, NetError, PathReport, PeerStatus, RelayState, Stream,
    addresses::Addresses,
    connection::{CODE_SHUTDOWN, Command, Conn},
    endpoint::{Quic, start_error},
    events,
    filtering::{self, Filtering},
    lanes::Lanes,
    link::Links,
    mapping::{self, PortMapping},
    nat::NatKind,
    path::PathEvent,
    relay_stream::Dialer,
    relays::Relays,
    report,
    shared::Shared,
    socket::Socket,
};

/// How long a connection that was there before may be silent when a stream is opened on it before
/// a new one is made: the peer may have gone without a word.
const UNNOTICED: Duration = Duration::from_secs(2);
/// How long peers are given to take note of the end.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long an address that is taken is waited for: whoever held it may be about to end, or another
/// process may hold a copy of its socket between its fork and its exec.
const TAKEN: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// A stream that a peer opened to a service of this node.
#[derive(Debug)]
pub struct Incoming {
    /// Who opened it, proven by the handshake.
    pub peer: NodeId,
    /// The stream.
    pub stream: Stream,
}

/// A node's presence on Golem Net. Clones are handles of the same one; it ends with the last.
#[derive(Debug, Clone)]
pub struct Net {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    closed_ports: Mutex<Option<mpsc::UnboundedReceiver<PortId>>>,
    /// The task that has a port mapped, and gives it back when all others have ended.
    mapping: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.ended.cancel();
        self.shared.quic.endpoint.close(CODE_SHUTDOWN, b"");
        self.shared.peers.lock().clear();
        self.shared.services.lock().clear();
    }
}

impl Net {
    /// Binds the sockets and starts. An address that is taken is waited for, 2 s at most.
    ///
    /// # Errors
    /// [`NetError::Start`] when an address is taken or forbidden.
    pub async fn bind(config: NetConfig) -> Result<Self, NetError> {
        let plane_config = Config {
            listen: config.listen.clone(),
            workers: config.workers,
            offloads: Offloads::ALL,
        };
        let (plane, plane_events, datagrams) =
            start(plane_config).await.map_err(|e| NetError::Start(e.to_string()))?;
        let links = Arc::new(Links::new(config.amplification));
        let (relay_control, relay_inbox) = mpsc::unbounded_channel();
        let socket = Socket::new(plane.clone(), datagrams, Arc::clone(&links), relay_control);
        let key = TransportKey::generate(&config.identity).map_err(start_error)?;
        let quic = Quic::start(&config.identity, &key, socket)?;
        let dialer = config.stream_port.map(|port| Dialer::new(port, config.proxy, &key));
        let (path_events, path_inbox) = mpsc::unbounded_channel::<PathEvent>();
        let shared = Arc::new(Shared {
            addresses: Addresses::new(plane.local_addrs(), config.advertise),
            identity: config.identity,
            lanes: Lanes::new(plane.clone()),
            plane,
            quic,
            links,
            relays: Relays::new(config.relays),
            dialer: dialer.transpose().map_err(start_error)?,
            aes: config.aes,
            path_events,
            guessing: Arc::new(Semaphore::new(1)),
            guess_again: config.guess_again,
            told_nature: Mutex::default(),
            ended: CancellationToken::new(),
            peers: Mutex::default(),
            services: Mutex::default(),
            shares: RwLock::default(),
        });
        let (port_sender, closed_ports) = mpsc::unbounded_channel();
        shared.spawn(events::run_plane(Arc::clone(&shared), plane_events, port_sender));
        shared.spawn(events::run_paths(Arc::clone(&shared), path_inbox));
        shared.spawn(events::run_relay_control(Arc::clone(&shared), relay_inbox));
        shared.spawn(events::run_sweeps(Arc::clone(&shared)));
        shared.spawn(events::run_addresses(Arc::clone(&shared)));
        shared.spawn(filtering::run(Arc::clone(&shared)));
        shared.spawn(answer(Arc::clone(&shared)));
        Relays::start(&shared);
        let mapping = config.port_mapping.then(|| {
            shared.mapped(PortMapping::Asking);
            tokio::spawn(mapping::run(Arc::clone(&shared)))
        });
        let closed_ports = Mutex::new(Some(closed_ports));
        let mapping = Mutex::new(mapping);
        Ok(Self { handle: Arc::new(Handle { shared, closed_ports, mapping }) })
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.shared().identity.node_id()
    }

    /// The data plane under it: networks and vNICs are attached there.
    pub fn dataplane(&self) -> &DataPlane {
        &self.shared().plane
    }

    /// The addresses listened on.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.shared().plane.local_addrs()
    }

    /// The network under this node may have changed in a way that it does not notice by itself:
    /// looks at its interfaces again, and has peers and relays look where it is now.
    pub fn look_again(&self) {
        self.shared().addresses.refresh();
        self.shared().displaced();
    }

    /// The NAT that this node is behind, as far as others have told.
    pub fn nat(&self) -> NatKind {
        self.shared().addresses.nat()
    }

    /// What the NAT lets in, as far as relays have tried.
    pub fn filtering(&self) -> Filtering {
        match self.shared().relays.udp_works() {
            Some(false) => Filtering::Blocked,
            _ => self.shared().addresses.filtering(),
        }
    }

    /// What the router said about a port that leads to this node.
    pub fn port_mapping(&self) -> PortMapping {
        self.shared().addresses.mapping()
    }

    /// All addresses at which this node may be reached, as it tells others.
    pub fn addrs(&self) -> Vec<SocketAddr> {
        self.shared().addrs()
    }

    /// The relays that this node is told to use.
    pub fn relay_states(&self) -> Vec<RelayState> {
        self.shared().relays.states()
    }

    /// This node's addresses as other nodes see them, newest first.
    pub fn observed_addrs(&self) -> Vec<SocketAddr> {
        self.shared().addresses.observed()
    }

    /// The relays that are connected, and which nodes they are.
    pub fn relays(&self) -> Vec<(SocketAddr, NodeId)> {
        self.shared().relays.connected()
    }

    /// Addresses where `node` may be found, besides what the registry knows.
    pub fn add_peer_addrs(&self, node: NodeId, addrs: Vec<SocketAddr>) {
        self.shared().peer(node).path.tell(|agent, now| {
            for addr in addrs {
                agent.add_candidate(now, Hop::Direct(addr), Source::Given);
            }
        });
    }

    /// Opens a stream to `service` of `node`, connecting first if need be.
    ///
    /// # Errors
    /// [`NetError`]: the node is unknown, does not answer, or does not serve this.
    pub async fn open(&self, node: NodeId, service: &str) -> Result<Stream, NetError> {
        let shared = self.shared();
        let peer = shared.peer(node);
        let conn = peer.connect(shared).await?;
        let result = tokio::select! {
            result = Stream::open(&conn, service) => result,
            () = conn.silence(UNNOTICED) => {
                peer.path.set_silent(true);
                Err(conn.error("nothing is heard of it"))
            }
        };
        match result {
            // The connection may have died unnoticed: the peer is given one more chance.
            Err(NetError::Closed { .. } | NetError::Unreachable { .. }) => {
                let conn = peer.reconnect(shared, true).await?;
                Stream::open(&conn, service).await
            }
            result => result,
        }
    }

    /// Streams that peers open to `service`. A later call for the same service replaces the former.
    pub fn serve(&self, service: &'static str) -> mpsc::Receiver<Incoming> {
        self.shared().register(service)
    }

    /// Says which peers may have a lane of `network` with this node: those of its roster.
    /// Replaces what was said before; lanes of peers that are no longer allowed are removed.
    pub fn share_network(&self, network: NetworkId, peers: impl IntoIterator<Item = NodeId>) {
        let shared = self.shared();
        let me = shared.identity.node_id();
        let peers = peers.into_iter().filter(|peer| *peer != me).collect();
        let before = shared.shares.write().insert(network, peers).unwrap_or_default();
        let shares = shared.shares.read();
        let Some(after) = shares.get(&network) else { return };
        let gone: Vec<NodeId> = before.difference(after).copied().collect();
        let added: Vec<NodeId> = after.difference(&before).copied().collect();
        drop(shares);
        self.forget(network, &gone);
        let peers = shared.peers.lock();
        for peer in added.iter().filter_map(|node| peers.get(node)) {
            peer.allow(network);
        }
    }

    /// The network is gone: removes its lanes.
    pub fn unshare_network(&self, network: NetworkId) {
        let gone = self.shared().shares.write().remove(&network).unwrap_or_default();
        self.forget(network, &gone.into_iter().collect::<Vec<_>>());
    }

    /// Measures the path to `node`, connecting first if need be.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn ping(&self, node: NodeId) -> Result<PathReport, NetError> {
        let shared = self.shared();
        let peer = shared.peer(node);
        let conn = peer.connect(shared).await?;
        report::ping(shared, &peer, &conn).await
    }

    /// Makes new keys with a peer, as happens by itself every two minutes of use.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn renew_keys(&self, node: NodeId) -> Result<(), NetError> {
        events::renew_now(self.shared(), node, false).await
    }

    /// The peers that this node talks to.
    pub fn peers(&self) -> Vec<PeerStatus> {
        report::peers(self.shared())
    }

    /// The ports that the data plane closes because the other end of their vNIC is gone. Only the
    /// first caller gets them.
    pub fn closed_ports(&self) -> Option<mpsc::UnboundedReceiver<PortId>> {
        self.handle.closed_ports.lock().take()
    }

    /// Says goodbye to all peers, so that they need not find out, and ends. Streams end too.
    pub async fn shutdown(&self) {
        let endpoint = &self.shared().quic.endpoint;
        endpoint.close(CODE_SHUTDOWN, b"the node ends");
        // Whoever does not take note in time will find out.
        let _ = tokio::time::timeout(FAREWELL, endpoint.wait_idle()).await;
        self.shared().ended.cancel();
        let mapping = self.handle.mapping.lock().take();
        if let Some(task) = mapping {
            // A router that does not answer forgets the port by itself.
            let _ = tokio::time::timeout(FAREWELL, task).await;
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    fn forget(&self, network: NetworkId, gone: &[NodeId]) {
        let shared = self.shared();
        shared.lanes.remove_if(|_, peer, n| n == Some(network) && gone.contains(&peer));
        let peers = shared.peers.lock();
        for peer in gone.iter().filter_map(|node| peers.get(node)) {
            for conn in peer.all() {
                conn.command(Command::Forget(network));
            }
        }
    }
}

type Started = (DataPlane, mpsc::UnboundedReceiver<Event>, DatagramReceiver);

async fn start(config: Config) -> Result<Started, StartError> {
    let end = Instant::now() + TAKEN;
    loop {
        match DataPlane::start(config.clone()) {
            Err(StartError::Bind { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse && Instant::now() < end =>
            {
                sleep(LOOK).await;
            }
            started => return started,
        }
    }
}

/// Answers those who call.
async fn answer(shared: Arc<Shared>) {
    while let Some(incoming) = shared.quic.endpoint.accept().await {
        let link = shared.links.get(incoming.remote_address());
        let Some(link) = link.filter(|link| link.claim()) else {
            incoming.ignore();
            continue;
        };
        let task = Arc::clone(&shared);
        shared.spawn(async move {
            let connected = async {
                tokio::select! {
                    quic = incoming.into_future() => quic,
                    never = Socket::say_again(&task.plane, &link) => match never {},
                }
            };
            let adopted = match connected.await {
                Ok(quic) => {
                    Conn::adopt(&task, quic, Arc::clone(&link), false).map_err(|e| e.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = adopted {
                tracing::debug!(reason, "a call failed");
                task.links.remove(&link);
            }
        });
    }
}
