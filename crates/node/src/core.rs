//! What every service of a node shares.

use std::{fs, os::unix::fs::DirBuilderExt, path::PathBuf};

use gvpn_dataplane::DataPlane;
use gvpn_model::NodeId;
use gvpn_net::{Net, NetConfig};
use gvpn_store::{Store, StoreError};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{NodeConfig, NodeError, peers::Peers, runtimes::Runtimes};

/// Shared by all services; lives as long as the node.
pub(crate) struct Core {
    pub(crate) config: NodeConfig,
    pub(crate) me: NodeId,
    pub(crate) net: Net,
    pub(crate) peers: Peers,
    pub(crate) store: Store,
    pub(crate) runtimes: Runtimes,
    /// Tasks that end with the node.
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Core {
    pub(crate) async fn open(config: NodeConfig) -> Result<Self, NodeError> {
        make_directory(&config.data_dir)?;
        let store = Store::open(&config.data_dir.join("state.db"))?;
        let mut net = NetConfig::new(config.identity.clone());
        net.aes &= !config.force_chacha20;
        let net = Net::bind(NetConfig {
            listen: config.listen.clone(),
            relays: config.relays.clone(),
            stream_port: config.stream_port,
            proxy: config.proxy.clone(),
            port_mapping: config.port_mapping,
            workers: config.workers,
            ..net
        })
        .await?;
        net.dataplane().set_uplink(config.uplink);
        Ok(Self {
            me: config.identity.node_id(),
            peers: Peers::new(net.clone()),
            net,
            store,
            runtimes: Runtimes::new(),
            config,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    pub(crate) fn dataplane(&self) -> &DataPlane {
        self.net.dataplane()
    }

    /// The way to a node in words; none while there is no connection with it.
    pub(crate) fn path_to(&self, node: NodeId) -> Option<String> {
        let peer = self.net.peers().into_iter().find(|peer| peer.node == node && peer.connected)?;
        let at = peer.remote.map_or_else(String::new, |address| format!(" {address}"));
        let rtt = peer.rtt.map_or_else(String::new, |rtt| format!(", {rtt:?}"));
        Some(format!("{:?}{at}{rtt}, MTU {}", peer.kind, peer.mtu).to_lowercase())
    }

    /// Directory of the activities' directories.
    pub(crate) fn activities_dir(&self) -> PathBuf {
        self.config.data_dir.join("activities")
    }

    /// Directory of attempts at runtimes.
    pub(crate) fn probes_dir(&self) -> PathBuf {
        self.config.data_dir.join("probes")
    }

    /// Directory of unpacked images.
    pub(crate) fn images_dir(&self) -> PathBuf {
        self.config.data_dir.join("images")
    }

    /// Runs `task` until it is done or the node stops.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }
}

pub(crate) fn make_directory(path: &std::path::Path) -> Result<(), NodeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| NodeError::internal(format!("cannot make directory {}: {e}", path.display())))
}

impl From<StoreError> for NodeError {
    fn from(error: StoreError) -> Self {
        Self::internal(error)
    }
}
