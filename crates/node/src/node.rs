//! The node: its services and what they share.

use std::sync::Arc;

use gvpn_model::NodeId;
use gvpn_net::{Filtering, NatKind, Net, PathReport, PeerStatus, PortMapping, RelayState};
use gvpn_store::Store;
use serde::Serialize;

use crate::{
    Activities, Agreements, Files, Images, Keys, Markets, Networks, NodeConfig, NodeError,
    Payments, ProviderPolicy, core::Core, metrics,
};

/// A running node. Clones are handles of the same one.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    networks: Networks,
    agreements: Agreements,
    activities: Activities,
    files: Files,
    keys: Keys,
    payments: Payments,
    markets: Markets,
    images: Images,
}

/// What a node is doing.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Who the node is.
    pub node_id: NodeId,
    /// The daemon's version.
    pub version: String,
    /// UDP addresses it listens on.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub listen: Vec<std::net::SocketAddr>,
    /// Where others see it, when somebody told.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub public: Option<std::net::SocketAddr>,
    /// The NAT that it is behind.
    pub nat: NatKind,
    /// What that lets in.
    #[serde(default)]
    pub filtering: Filtering,
    /// A port of the router's that leads to it.
    pub port_mapping: PortMapping,
    /// The relays that it is told to use.
    pub relays: Vec<RelayState>,
    /// Its provider policy, when it is a provider.
    pub provider: Option<ProviderPolicy>,
    /// Networks it owns.
    pub networks: usize,
    /// Networks of others that it is a member of.
    pub memberships: usize,
    /// Activities it requested that have not ended.
    pub requested: usize,
    /// Activities it runs for others.
    pub running: usize,
    /// Peers with an open session.
    pub sessions: usize,
}

impl Node {
    /// Opens the node's state, binds its sockets and resumes what was going on when it stopped.
    ///
    /// # Errors
    /// [`NodeError`] when the state cannot be opened or no socket can be bound.
    pub async fn start(config: NodeConfig) -> Result<Self, NodeError> {
        let core = Arc::new(Core::open(config).await?);
        let networks = Networks::start(&core)?;
        let agreements = Agreements::start(&core)?;
        let files = Files::start(&core);
        let activities = Activities::start(&core, &networks, &agreements, &files).await?;
        let keys = Keys::new(&core);
        let payments = Payments::start(&core, &agreements, &activities)?;
        let images = Images::start(&core, &files).await?;
        let markets = Markets::start(&core, &agreements, &activities, &payments, &images)?;
        let inner = Inner {
            core,
            networks,
            agreements,
            activities,
            files,
            keys,
            payments,
            markets,
            images,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Who the node is.
    pub fn id(&self) -> NodeId {
        self.inner.core.me
    }

    /// Its set-up.
    pub fn config(&self) -> &NodeConfig {
        &self.inner.core.config
    }

    /// Its presence on Golem Net, for services of other crates.
    pub fn net(&self) -> &Net {
        &self.inner.core.net
    }

    /// Its state file, for documents of other crates.
    pub fn store(&self) -> &Store {
        &self.inner.core.store
    }

    /// Its networks: owned ones and memberships.
    pub fn networks(&self) -> &Networks {
        &self.inner.networks
    }

    /// Its contracts, as requestor and as provider.
    pub fn agreements(&self) -> &Agreements {
        &self.inner.agreements
    }

    /// The activities it requested and those it runs.
    pub fn activities(&self) -> &Activities {
        &self.inner.activities
    }

    /// Files it serves and receives.
    pub fn files(&self) -> &Files {
        &self.inner.files
    }

    /// App keys of its API.
    pub fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// Its part in the market, as requestor and as provider.
    pub fn markets(&self) -> &Markets {
        &self.inner.markets
    }

    /// Images that it keeps for its clients.
    pub fn images(&self) -> &Images {
        &self.inner.images
    }

    /// Its payment documents.
    pub fn payments(&self) -> &Payments {
        &self.inner.payments
    }

    /// The peers it talks to.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.inner.core.net.peers()
    }

    /// Measures the path to a node.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn ping(&self, node: NodeId) -> Result<PathReport, NodeError> {
        Ok(self.inner.core.net.ping(node).await?)
    }

    /// What it is doing, in numbers.
    pub fn status(&self) -> NodeStatus {
        let live = |all: Vec<crate::ActivityInfo>| all.iter().filter(|a| !a.is_over()).count();
        NodeStatus {
            node_id: self.id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: self.inner.core.dataplane().local_addrs(),
            public: self.inner.core.net.observed_addrs().first().copied(),
            nat: self.inner.core.net.nat(),
            filtering: self.inner.core.net.filtering(),
            port_mapping: self.inner.core.net.port_mapping(),
            relays: self.inner.core.net.relay_states(),
            provider: self.agreements().policy(),
            networks: self.networks().owned(),
            memberships: self.networks().memberships(),
            requested: live(self.activities().requested()),
            running: live(self.activities().hosted()),
            sessions: self.peers().iter().filter(|peer| peer.connected).count(),
        }
    }

    /// Prometheus text of everything it counts.
    pub fn metrics(&self) -> String {
        metrics::text(&self.status(), &self.peers(), &self.inner.core.dataplane().stats())
    }

    /// Ends the node in order: its activities as a provider are terminated, its tasks ended.
    /// Requested activities and owned networks stay, to be resumed at the next start.
    pub async fn stop(&self) {
        self.inner.activities.stop().await;
        self.inner.agreements.stop();
        self.inner.core.stop.cancel();
        self.inner.core.tasks.close();
        self.inner.core.tasks.wait().await;
        self.inner.core.net.shutdown().await;
    }
}
