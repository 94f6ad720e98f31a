//! Gates: per owned network a namespace with the owner's addresses, made ahead or when first needed.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    pin::Pin,
    sync::Arc,
};

use gvpn_dataplane::{Nic, PortId, PortSpec};
use gvpn_gate::{Dial, GateStream, Gateway, GatewayOptions};
use gvpn_model::NetworkId;
use gvpn_roster::Roster;
use gvpn_vnic::{AgentCommand, IdRange, Namespace, NamespaceError, TunSpec};
use parking_lot::Mutex;

use crate::{ErrorKind, NodeError, core::Core, networks::view, nic::nic};

/// The interface in a gate's namespace.
const INTERFACE: &str = "vpn0";

/// The gates of a node.
pub(crate) struct Gates {
    core: Arc<Core>,
    gates: Mutex<HashMap<NetworkId, Arc<tokio::sync::Mutex<Option<Gate>>>>>,
}

/// One network's gate.
struct Gate {
    namespace: Arc<Namespace>,
    gateway: Gateway,
    port: PortId,
    epoch: u64,
}

struct NamespaceDial(Arc<Namespace>);

impl Dial for NamespaceDial {
    fn dial(
        &self,
        remote: SocketAddr,
        from: Option<IpAddr>,
    ) -> Pin<Box<dyn Future<Output = io::Result<GateStream>> + Send + '_>> {
        Box::pin(async move { Ok(self.0.tcp_connect(remote, from).await?.into()) })
    }
}

impl Gates {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core, gates: Mutex::default() }
    }

    /// The gateway of a network, made if need be.
    pub(crate) async fn gateway(&self, roster: &Roster) -> Result<Gateway, NodeError> {
        self.with(roster, |gate| gate.gateway.clone()).await
    }

    /// The namespace of a network's gate, made if need be.
    pub(crate) async fn namespace(&self, roster: &Roster) -> Result<Arc<Namespace>, NodeError> {
        self.with(roster, |gate| gate.namespace.clone()).await
    }

    /// Opens a gate that nobody has asked for yet, while there are few of them.
    pub(crate) async fn open_ahead(&self, roster: &Roster) {
        if roster.members.len() < 2 || self.gates.lock().len() >= self.core.config.gates_ahead {
            return;
        }
        if let Err(error) = self.with(roster, |_| ()).await {
            tracing::warn!(network = %roster.network, %error, "the owner's address does not answer");
        }
    }

    /// The gateway, if there is one already.
    pub(crate) async fn existing(&self, network: NetworkId) -> Option<Gateway> {
        let slot = self.gates.lock().get(&network).cloned()?;
        let gate = slot.lock().await;
        gate.as_ref().map(|gate| gate.gateway.clone())
    }

    /// The network changed: its gate, if there is one, follows.
    pub(crate) async fn refresh(&self, roster: &Roster) {
        let Some(slot) = self.gates.lock().get(&roster.network).cloned() else { return };
        let mut gate = slot.lock().await;
        let Some(gate) = gate.as_mut() else { return };
        if gate.epoch >= roster.epoch {
            return;
        }
        match configure(&gate.namespace, roster).await {
            Ok(()) => gate.epoch = roster.epoch,
            Err(error) => tracing::warn!(network = %roster.network, %error, "the gate is behind"),
        }
    }

    /// The network is gone, and its gate with it.
    pub(crate) async fn remove(&self, network: NetworkId) {
        let slot = self.gates.lock().remove(&network);
        if let Some(slot) = slot
            && let Some(gate) = slot.lock().await.take()
        {
            self.core.dataplane().detach(gate.port);
        }
    }

    /// A raw tap: the other end of a socket of Ethernet frames between two addresses.
    pub(crate) fn tap(
        &self,
        network: NetworkId,
        local: IpAddr,
        remote: IpAddr,
    ) -> Result<(OwnedFd, Tap), NodeError> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (mine, theirs) = socketpair(AddressFamily::Unix, SockType::Datagram, None, flags)
            .map_err(|e| NodeError::internal(format!("no socket for a raw connection: {e}")))?;
        let plane = self.core.dataplane();
        let port = plane.attach_pair(network, local, remote, Nic::Dgram(theirs))?;
        Ok((mine, Tap { core: self.core.clone(), port }))
    }

    async fn with<T>(
        &self,
        roster: &Roster,
        read: impl FnOnce(&Gate) -> T,
    ) -> Result<T, NodeError> {
        let slot = self.gates.lock().entry(roster.network).or_default().clone();
        let mut gate = slot.lock().await;
        if gate.is_none() {
            *gate = Some(self.open(roster).await?);
        }
        gate.as_ref().map(read).ok_or_else(|| NodeError::internal("the gate is closed"))
    }

    async fn open(&self, roster: &Roster) -> Result<Gate, NodeError> {
        let command = AgentCommand {
            exe: self.core.config.exe.clone(),
            tun_device: self.core.config.tun_device.clone(),
            ids: IdRange::Single,
            ..AgentCommand::default()
        };
        let namespace = Namespace::spawn(command).await?;
        let tun = namespace.create_tun(TunSpec::new(INTERFACE, roster.settings.mtu)).await?;
        configure(&namespace, roster).await?;
        let member = owner_member(roster)?;
        let spec = PortSpec { network: roster.network, member, nic: nic(tun.into()) };
        let port = self.core.dataplane().attach(spec)?;
        let namespace = Arc::new(namespace);
        let gateway = Gateway::new(NamespaceDial(namespace.clone()), GatewayOptions::default());
        Ok(Gate { namespace, gateway, port, epoch: roster.epoch })
    }
}

/// A raw tap, attached as long as this lives.
pub struct Tap {
    core: Arc<Core>,
    port: PortId,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.core.dataplane().detach(self.port);
    }
}

async fn configure(namespace: &Namespace, roster: &Roster) -> Result<(), NodeError> {
    let id = owner_member(roster)?;
    let member = roster.member(id).ok_or_else(|| no_owner(roster))?;
    Ok(namespace.configure(view::interface(roster, member, INTERFACE)).await?)
}

fn owner_member(roster: &Roster) -> Result<gvpn_model::MemberId, NodeError> {
    let mut own = roster.members_of(roster.owner);
    own.next().map(|member| member.id).ok_or_else(|| no_owner(roster))
}

fn no_owner(roster: &Roster) -> NodeError {
    NodeError::internal(format!("network {} has no member of its owner", roster.network))
}

impl From<NamespaceError> for NodeError {
    fn from(error: NamespaceError) -> Self {
        Self::new(ErrorKind::Unavailable, format!("the gate cannot be opened: {error}"))
    }
}
