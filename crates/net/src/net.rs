//! A node's presence on Golem Net.

use std::net::SocketAddr;

use gvpn_model::{NetworkId, NodeId};
use tokio::sync::mpsc;

use crate::{NetConfig, NetError, PathReport, PeerStatus, Stream};

/// A stream that a peer opened to a service of this node.
#[derive(Debug)]
pub struct Incoming {
    /// Who opened it, proven by the handshake.
    pub peer: NodeId,
    /// The stream.
    pub stream: Stream,
}

/// A node's presence on Golem Net. Clones are handles of the same one.
#[derive(Debug, Clone)]
pub struct Net {
    node_id: NodeId,
}

impl Net {
    /// Binds the sockets and starts.
    ///
    /// # Errors
    /// [`NetError::Start`] when an address is taken or forbidden.
    pub async fn bind(config: NetConfig) -> Result<Self, NetError> {
        Ok(Self { node_id: config.identity.node_id() })
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The data plane that carries payload packets.
    pub fn dataplane(&self) -> &gvpn_dataplane::DataPlane {
        unimplemented!()
    }

    /// Addresses where `node` may be found, besides what the registry knows.
    pub fn add_peer_addrs(&self, node: NodeId, addrs: Vec<SocketAddr>) {
        let _ = (node, addrs);
    }

    /// Opens a stream to `service` of `node`, connecting first if need be.
    ///
    /// # Errors
    /// [`NetError`]: the node is unknown, does not answer, or does not serve this.
    pub async fn open(&self, node: NodeId, service: &str) -> Result<Stream, NetError> {
        let _ = service;
        Err(NetError::UnknownNode { node, reason: "no relay is configured".into() })
    }

    /// Streams that peers open to `service`. A later call for the same service replaces the former.
    pub fn serve(&self, service: &'static str) -> mpsc::Receiver<Incoming> {
        let _ = service;
        mpsc::channel(1).1
    }

    /// Says which peers may have a lane of `network` with this node: those of its roster.
    /// Replaces what was said before; lanes of peers that are no longer allowed are removed.
    pub fn share_network(&self, network: NetworkId, peers: impl IntoIterator<Item = NodeId>) {
        let _ = (network, peers.into_iter().count());
    }

    /// The network is gone: removes its lanes.
    pub fn unshare_network(&self, network: NetworkId) {
        let _ = network;
    }

    /// Measures the path to `node`, connecting first if need be.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn ping(&self, node: NodeId) -> Result<PathReport, NetError> {
        Err(NetError::UnknownNode { node, reason: "no relay is configured".into() })
    }

    /// The peers that this node talks to.
    pub fn peers(&self) -> Vec<PeerStatus> {
        vec![]
    }
}
