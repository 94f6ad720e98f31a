//! A running relay.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use gvpn_identity::{Identity, tls::TlsError};
use gvpn_model::NodeId;
use gvpn_net::{
    CONTROL_RESTARTED, Datagram, Hop, Net, NetConfig, NetError, control_message, relay_protocol,
};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    FleetConfig, FleetStats, Limits, RegistryError,
    client::{Clients, serve},
    fleet::Fleet,
    metrics,
    offers::Offers,
    registry::Registry,
    streams::Streams,
};

/// How to run a relay.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// Who the relay is.
    pub identity: Identity,
    /// UDP addresses to listen on, at most one for each address family.
    pub listen: Vec<SocketAddr>,
    /// TCP addresses to accept TLS streams on, for clients that UDP does not reach.
    pub listen_stream: Vec<TcpAddress>,
    /// Where to serve Prometheus metrics by HTTP, if anywhere.
    pub metrics: Option<TcpAddress>,
    /// The registry's file; without one it is forgotten when the relay ends.
    pub database: Option<PathBuf>,
    /// The fleet to share the registry with.
    pub fleet: Option<FleetConfig>,
    /// Threads; 0 takes as many as there are cores, at most 4.
    pub workers: usize,
    /// What clients may ask.
    pub limits: Limits,
}

/// A TCP address to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcpAddress {
    /// This one, or the relay does not start.
    Required(SocketAddr),
    /// This one; if it cannot be had, the relay does without and says so in its log.
    IfFree(SocketAddr),
}

impl From<SocketAddr> for TcpAddress {
    fn from(addr: SocketAddr) -> Self {
        Self::Required(addr)
    }
}

impl TcpAddress {
    /// Listens there; `None` where the relay does without.
    fn listen(self, purpose: &str) -> Result<Option<TcpListener>, (SocketAddr, io::Error)> {
        let (Self::Required(addr) | Self::IfFree(addr)) = self;
        let listener = std::net::TcpListener::bind(addr).and_then(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        match (self, listener) {
            (_, Ok(listener)) => Ok(Some(listener)),
            (Self::Required(_), Err(error)) => Err((addr, error)),
            (Self::IfFree(_), Err(error)) => {
                tracing::warn!(%addr, %error, "cannot listen there for {purpose}: doing without");
                Ok(None)
            }
        }
    }
}

impl RelayConfig {
    /// Listens on `listen`, keeps nothing.
    pub fn new(identity: Identity, listen: Vec<SocketAddr>) -> Self {
        Self {
            identity,
            listen,
            listen_stream: Vec::new(),
            metrics: None,
            database: None,
            fleet: None,
            workers: 0,
            limits: Limits::default(),
        }
    }
}

/// Why a relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Its sockets cannot be opened.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A TCP address cannot be listened on.
    #[error(
        "cannot listen on TCP {addr} for streams: {source}; choose another address, or none to do \
         without"
    )]
    Stream {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The metrics cannot be served.
    #[error("cannot listen on TCP {addr} for metrics: {source}; choose another address, or none")]
    Metrics {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Its registry cannot be opened.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// What a relay has done.
#[derive(Debug, Clone, Default)]
pub struct RelayStats {
    /// Clients registered now.
    pub clients: usize,
    /// Records known.
    pub records: usize,
    /// Look-ups answered with a record.
    pub found: u64,
    /// Look-ups of unknown nodes.
    pub not_found: u64,
    /// Forwarding sessions.
    pub sessions: usize,
    /// TLS streams.
    pub streams: usize,
    /// Datagrams forwarded.
    pub forwarded_packets: u64,
    /// Bytes forwarded.
    pub forwarded_bytes: u64,
    /// System calls that forwarded them.
    pub forwarding_sends: u64,
    /// Datagrams not forwarded, by reason, and other drops of the data plane.
    pub drops: Vec<(&'static str, u64)>,
    /// Requests refused because the client asked too much.
    pub limited: u64,
    /// Providers whose offers are known.
    pub providers: usize,
    /// The fleet, if this relay is in one.
    pub fleet: Option<FleetStats>,
}

/// A running relay. It ends when dropped.
#[derive(Debug)]
pub struct Relay {
    parts: Arc<Parts>,
    stream_addrs: Vec<SocketAddr>,
    metrics_addr: Option<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a relay is made of.
#[derive(Debug)]
struct Parts {
    net: Net,
    registry: Arc<Registry>,
    clients: Arc<Clients>,
    offers: Arc<Offers>,
    streams: Arc<Streams>,
    fleet: Option<Arc<Fleet<Registry, Offers>>>,
}

impl Relay {
    /// Starts a relay.
    ///
    /// # Errors
    /// [`RelayError`] if an address is taken or the registry's file cannot be used.
    pub async fn start(config: RelayConfig) -> Result<Self, RelayError> {
        let listeners = listen(&config.listen_stream)?;
        let metrics = metrics_listener(config.metrics)?;
        let registry = Registry::open(config.database.as_deref(), config.limits.records)?;
        let mut net_config = NetConfig::new(config.identity.clone());
        net_config.listen = config.listen;
        net_config.workers = config.workers;
        // A relay's address is known to everybody: it must not be a way to flood others.
        net_config.amplification = 1;
        let net = Net::bind(net_config).await?;
        let plane = net.dataplane().clone();
        let streams = Streams::new(plane.clone(), &config.identity, config.limits.clone())?;
        let clients = Clients::new(plane, Arc::clone(&registry), config.limits);
        let clients = Arc::new(clients.with_knockers(&net.local_addrs()));
        let incoming = net.serve(relay_protocol::SERVICE);
        nudge(&net, &registry);
        let offers = Offers::new();
        let offer_calls = net.serve(gvpn_market::OFFERS);
        let mut tasks = vec![
            tokio::spawn(serve(Arc::clone(&clients), incoming)),
            tokio::spawn(Arc::clone(&offers).serve(offer_calls)),
        ];
        let fleet =
            config.fleet.map(|fleet| Fleet::new(fleet, Arc::clone(&registry), Arc::clone(&offers)));
        tasks.extend(fleet.iter().map(|fleet| Arc::clone(fleet).start()));
        let mut stream_addrs = Vec::new();
        for (addr, listener) in listeners {
            stream_addrs.push(addr);
            tasks.push(tokio::spawn(Arc::clone(&streams).serve(listener)));
        }
        let parts = Arc::new(Parts { net, registry, clients, offers, streams, fleet });
        let mut metrics_addr = None;
        if let Some((addr, listener)) = metrics {
            metrics_addr = Some(addr);
            let parts = Arc::clone(&parts);
            tasks.push(tokio::spawn(metrics::serve(listener, move || parts.stats())));
        }
        Ok(Self { parts, stream_addrs, metrics_addr, tasks })
    }

    /// The relay's own id.
    pub fn node_id(&self) -> NodeId {
        self.parts.net.node_id()
    }

    /// The addresses listened on.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.parts.net.local_addrs()
    }

    /// The TCP addresses on which streams are accepted.
    pub fn stream_addrs(&self) -> &[SocketAddr] {
        &self.stream_addrs
    }

    /// Where metrics are served.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_addr
    }

    /// What the relay has done.
    pub fn stats(&self) -> RelayStats {
        self.parts.stats()
    }

    /// Says goodbye to the clients and ends.
    pub async fn shutdown(self) {
        self.parts.net.shutdown().await;
    }
}

impl Parts {
    fn stats(&self) -> RelayStats {
        let plane = self.net.dataplane();
        let (forwarded_packets, forwarded_bytes) = plane.forwarder().total();
        RelayStats {
            records: self.registry.len(),
            streams: self.streams.len(),
            providers: self.offers.providers(),
            fleet: self.fleet.as_ref().map(|fleet| fleet.stats()),
            forwarded_packets,
            forwarded_bytes,
            forwarding_sends: plane.forwarder().sends(),
            drops: plane.stats().drops,
            ..self.clients.stats()
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        self.parts.streams.close();
    }
}

fn listen(addrs: &[TcpAddress]) -> Result<Vec<(SocketAddr, TcpListener)>, RelayError> {
    let mut listeners = Vec::new();
    for wanted in addrs {
        let failed = |(addr, source)| RelayError::Stream { addr, source };
        let purpose = "TLS streams: nodes whose UDP is blocked cannot use this relay";
        if let Some(listener) = wanted.listen(purpose).map_err(failed)? {
            listeners.push((bound(&listener, *wanted), listener));
        }
    }
    Ok(listeners)
}

fn metrics_listener(
    wanted: Option<TcpAddress>,
) -> Result<Option<(SocketAddr, TcpListener)>, RelayError> {
    let Some(wanted) = wanted else { return Ok(None) };
    let failed = |(addr, source)| RelayError::Metrics { addr, source };
    let listener = wanted.listen("metrics").map_err(failed)?;
    Ok(listener.map(|listener| (bound(&listener, wanted), listener)))
}

/// Where a listener is: with the port that it got where any was wanted.
fn bound(listener: &TcpListener, wanted: TcpAddress) -> SocketAddr {
    let (TcpAddress::Required(addr) | TcpAddress::IfFree(addr)) = wanted;
    listener.local_addr().unwrap_or(addr)
}

/// Tells the clients of a former run that it is over: they need not find out by themselves.
fn nudge(net: &Net, registry: &Registry) {
    let contents = &control_message(CONTROL_RESTARTED, 0)[..];
    for addr in registry.observed() {
        let hop = Hop::Direct(addr);
        let datagram = Datagram { hop, contents, segment_size: None, ecn: 0 };
        if let Err(error) = net.dataplane().send_datagram(&datagram) {
            tracing::debug!(%addr, %error, "client not told of the restart");
        }
    }
}
