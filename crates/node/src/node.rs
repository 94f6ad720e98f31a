//! The node: its services and what they share.

use std::sync::Arc;

use gvpn_model::NodeId;
use serde::Serialize;

use crate::{Activities, Agreements, Files, Keys, Networks, NodeConfig, NodeError, ProviderPolicy};

/// A running node. Clones are handles of the same one.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    config: NodeConfig,
    networks: Networks,
    agreements: Agreements,
    activities: Activities,
    files: Files,
    keys: Keys,
}

/// What `GET /gvpn/v1/status` shows.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Who the node is.
    pub node_id: NodeId,
    /// The daemon's version.
    pub version: String,
    /// UDP addresses it listens on.
    pub listen: Vec<std::net::SocketAddr>,
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
        Ok(Self {
            inner: Arc::new(Inner {
                config,
                networks: Networks {},
                agreements: Agreements {},
                activities: Activities {},
                files: Files {},
                keys: Keys {},
            }),
        })
    }

    /// Who the node is.
    pub fn id(&self) -> NodeId {
        self.inner.config.identity.node_id()
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

    /// What it is doing, in numbers.
    pub fn status(&self) -> NodeStatus {
        unimplemented!()
    }

    /// Prometheus text of everything it counts.
    pub fn metrics(&self) -> String {
        unimplemented!()
    }

    /// Ends the node in order: its activities as a provider are terminated, sockets closed.
    /// Requested activities and owned networks stay, to be resumed at the next start.
    pub async fn stop(&self) {}
}
