//! The handle of a running data plane.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use gvpn_model::{NetworkId, NodeId};
use gvpn_path::Hop;
use gvpn_switch::Table;
use tokio::sync::mpsc;

use crate::{
    AttachError, Config, Datagram, DatagramReceiver, Event, LaneSpec, Nic, PeerActivity, PortId,
    PortSpec, Route, SendError, StartError, Stats,
};

/// A running data plane. Clones share it; when the last one is dropped its threads end and its
/// sockets and vNICs are closed. Every call is cheap and may come from any thread.
#[derive(Debug, Clone)]
pub struct DataPlane {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {}

impl DataPlane {
    /// Opens the sockets and starts the threads.
    ///
    /// # Errors
    /// [`StartError`] if an address cannot be listened on or a thread cannot be started.
    pub fn start(
        config: Config,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>, DatagramReceiver), StartError> {
        if config.listen.is_empty() {
            return Err(StartError::NoAddress);
        }
        todo!()
    }

    /// The addresses listened on, in the order of [`Config::listen`].
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        todo!()
    }

    /// Adds a lane: what the peer seals with it is opened from now on.
    pub fn add_lane(&self, lane: LaneSpec) {
        drop(lane);
        todo!()
    }

    /// From now on this is the lane that seals for its peer and network. Older lanes go on opening
    /// until they are removed.
    pub fn activate_lane(&self, local_index: u32) {
        let _ = local_index;
        todo!()
    }

    /// Forgets a lane and its keys.
    pub fn remove_lane(&self, local_index: u32) {
        let _ = local_index;
        todo!()
    }

    /// Sets where a peer's datagrams go; `None` when no way is known.
    pub fn set_route(&self, peer: NodeId, route: Option<Route>) {
        let _ = (peer, route);
        todo!()
    }

    /// Sets a network's forwarding table, new or changed.
    pub fn set_network(&self, network: NetworkId, table: Arc<Table>) {
        let _ = (network, table, &self.shared);
        todo!()
    }

    /// Forgets a network. Its ports stay attached and carry nothing.
    pub fn remove_network(&self, network: NetworkId) {
        let _ = network;
        todo!()
    }

    /// Attaches a member's vNIC.
    ///
    /// # Errors
    /// [`AttachError`] if the member has one, or the descriptor is not a vNIC of that kind.
    pub fn attach(&self, port: PortSpec) -> Result<PortId, AttachError> {
        drop(port);
        todo!()
    }

    /// Attaches a vNIC that stands for one pair of addresses: packets from `remote` to `local`
    /// go to it instead of the member's own vNIC, and it may send from `local` to `remote`.
    ///
    /// # Errors
    /// [`AttachError`] if the descriptor is not a vNIC of that kind.
    pub fn attach_pair(
        &self,
        network: NetworkId,
        local: IpAddr,
        remote: IpAddr,
        nic: Nic,
    ) -> Result<PortId, AttachError> {
        let _ = (network, local, remote, nic);
        todo!()
    }

    /// Detaches a port and closes its descriptor.
    pub fn detach(&self, port: PortId) {
        let _ = port;
        todo!()
    }

    /// Sends a datagram of the QUIC lane.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full, or what the system said.
    pub fn send_datagram(&self, datagram: &Datagram<'_>) -> io::Result<()> {
        let _ = datagram;
        todo!()
    }

    /// Seals a control message on the peer lane and sends it on one hop.
    ///
    /// # Errors
    /// [`SendError`] if there is no active peer lane or the system refused.
    pub fn send_probe(&self, peer: NodeId, hop: Hop, plaintext: &[u8]) -> Result<(), SendError> {
        let _ = (peer, hop, plaintext);
        todo!()
    }

    /// When a peer was last sent to and heard from.
    pub fn activity(&self, peer: NodeId) -> PeerActivity {
        let _ = peer;
        todo!()
    }

    /// All counters.
    pub fn stats(&self) -> Stats {
        todo!()
    }
}
