//! A running relay.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use gvpn_identity::Identity;
use gvpn_model::NodeId;
use gvpn_net::{
    CONTROL_RESTARTED, Datagram, Hop, Net, NetConfig, NetError, control_message, relay_protocol,
};
use tokio::task::JoinHandle;

use crate::{
    Limits, RegistryError,
    client::{Clients, serve},
    offers::Offers,
    registry::Registry,
};

/// How to run a relay.
#[derive(Debug, Clone)]
pub struct RelayConfig {
    /// Who the relay is.
    pub identity: Identity,
    /// UDP addresses to listen on, at most one for each address family.
    pub listen: Vec<SocketAddr>,
    /// The registry's file; without one it is forgotten when the relay ends.
    pub database: Option<PathBuf>,
    /// Threads; 0 takes as many as there are cores, at most 4.
    pub workers: usize,
    /// What clients may ask.
    pub limits: Limits,
}

impl RelayConfig {
    /// Listens on `listen`, keeps nothing.
    pub fn new(identity: Identity, listen: Vec<SocketAddr>) -> Self {
        Self { identity, listen, database: None, workers: 0, limits: Limits::default() }
    }
}

/// Why a relay does not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// Its sockets cannot be opened.
    #[error(transparent)]
    Net(#[from] NetError),
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
    /// Datagrams forwarded.
    pub forwarded_packets: u64,
    /// Bytes forwarded.
    pub forwarded_bytes: u64,
    /// Datagrams not forwarded, by reason, and other drops of the data plane.
    pub drops: Vec<(&'static str, u64)>,
    /// Requests refused because the client asked too much.
    pub limited: u64,
    /// Providers whose offers are known.
    pub providers: usize,
}

/// A running relay. It ends when dropped.
#[derive(Debug)]
pub struct Relay {
    net: Net,
    registry: Arc<Registry>,
    clients: Arc<Clients>,
    offers: Arc<Offers>,
    tasks: [JoinHandle<()>; 2],
}

impl Relay {
    /// Starts a relay.
    ///
    /// # Errors
    /// [`RelayError`] if an address is taken or the registry's file cannot be used.
    pub async fn start(config: RelayConfig) -> Result<Self, RelayError> {
        let registry = Registry::open(config.database.as_deref())?;
        let mut net_config = NetConfig::new(config.identity);
        net_config.listen = config.listen;
        net_config.workers = config.workers;
        let net = Net::bind(net_config).await?;
        let clients =
            Arc::new(Clients::new(net.dataplane().clone(), Arc::clone(&registry), config.limits));
        let incoming = net.serve(relay_protocol::SERVICE);
        nudge(&net, &registry);
        let offers = Offers::new();
        let offer_calls = net.serve(gvpn_market::OFFERS);
        let tasks = [
            tokio::spawn(serve(Arc::clone(&clients), incoming)),
            tokio::spawn(Arc::clone(&offers).serve(offer_calls)),
        ];
        Ok(Self { net, registry, clients, offers, tasks })
    }

    /// The relay's own id.
    pub fn node_id(&self) -> NodeId {
        self.net.node_id()
    }

    /// The addresses listened on.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.net.local_addrs()
    }

    /// What the relay has done.
    pub fn stats(&self) -> RelayStats {
        let plane = self.net.dataplane();
        let (forwarded_packets, forwarded_bytes) = plane.forwarder().total();
        RelayStats {
            records: self.registry.len(),
            providers: self.offers.providers(),
            forwarded_packets,
            forwarded_bytes,
            drops: plane.stats().drops,
            ..self.clients.stats()
        }
    }

    /// Says goodbye to the clients and ends.
    pub async fn shutdown(self) {
        self.net.shutdown().await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
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
