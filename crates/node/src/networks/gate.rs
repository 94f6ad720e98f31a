//! Gates: per owned network a namespace with the owner's addresses, made ahead or when first needed.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    pin::Pin,
    sync::{Arc, Once},
};

use gvpn_dataplane::{Nic, PortId, PortSpec};
use gvpn_gate::{Dial, GateStream, Gateway, GatewayOptions, UserStack, frame_sockets};
use gvpn_model::NetworkId;
use gvpn_roster::Roster;
use gvpn_vnic::{AgentCommand, IdRange, Namespace, NamespaceError, TunSpec};
use parking_lot::Mutex;

use crate::{ErrorKind, GateKind, NodeError, core::Core, networks::view, nic::nic};

/// The interface in a gate's namespace.
const INTERFACE: &str = "vpn0";
/// Its queues: a bulk transfer delays a terminal through the same gate seldom.
const QUEUES: u32 = 4;

/// The ports of raw taps, by network.
type Taps = Arc<Mutex<HashMap<NetworkId, Vec<PortId>>>>;

/// The gates of a node.
pub(crate) struct Gates {
    core: Arc<Core>,
    gates: Mutex<HashMap<NetworkId, Arc<tokio::sync::Mutex<Option<Gate>>>>>,
    taps: Taps,
    warned: Once,
}

/// One network's gate.
struct Gate {
    host: Host,
    gateway: Gateway,
    port: PortId,
    epoch: u64,
}

/// Where a gate's sockets live.
enum Host {
    Namespace(Arc<Namespace>),
    Stack(Arc<UserStack>),
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
        Self { core, gates: Mutex::default(), taps: Taps::default(), warned: Once::new() }
    }

    /// The gateway of a network, made if need be.
    pub(crate) async fn gateway(&self, roster: &Roster) -> Result<Gateway, NodeError> {
        self.with(roster, |gate| gate.gateway.clone()).await
    }

    /// The namespace of a network's gate, made if need be.
    pub(crate) async fn namespace(&self, roster: &Roster) -> Result<Arc<Namespace>, NodeError> {
        let found = self.with(roster, |gate| match &gate.host {
            Host::Namespace(namespace) => Some(namespace.clone()),
            Host::Stack(_) => None,
        });
        let text = "the gate of this node is a TCP stack without a namespace";
        found.await?.ok_or_else(|| NodeError::new(ErrorKind::Unavailable, text))
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
        match gate.host.configure(roster).await {
            Ok(()) => gate.epoch = roster.epoch,
            Err(error) => tracing::warn!(network = %roster.network, %error, "the gate is behind"),
        }
    }

    /// The network is gone, and its gate with it.
    pub(crate) async fn remove(&self, network: NetworkId) {
        for port in self.taps.lock().remove(&network).into_iter().flatten() {
            self.core.dataplane().detach(port);
        }
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
        let (mine, theirs) = frame_sockets()
            .map_err(|e| NodeError::internal(format!("no socket for a raw connection: {e}")))?;
        let plane = self.core.dataplane();
        let port = plane.attach_pair(network, local, remote, Nic::Dgram(theirs))?;
        self.taps.lock().entry(network).or_default().push(port);
        Ok((mine, Tap { core: self.core.clone(), taps: self.taps.clone(), network, port }))
    }

    async fn with<T>(
        &self,
        roster: &Roster,
        read: impl FnOnce(&Gate) -> T,
    ) -> Result<T, NodeError> {
        let slot = self.gates.lock().entry(roster.network).or_default().clone();
        let mut gate = slot.lock().await;
        if let Some(dead) = gate.take_if(|gate| !gate.host.is_alive()) {
            tracing::warn!(network = %roster.network, "the gate's agent has ended; opening it again");
            self.core.dataplane().detach(dead.port);
        }
        if gate.is_none() {
            *gate = Some(self.open(roster).await?);
        }
        gate.as_ref().map(read).ok_or_else(|| NodeError::internal("the gate is closed"))
    }

    async fn open(&self, roster: &Roster) -> Result<Gate, NodeError> {
        let (host, nic) = self.host(roster.settings.mtu).await?;
        host.configure(roster).await?;
        let member = owner_member(roster)?;
        let port =
            self.core.dataplane().attach(PortSpec { network: roster.network, member, nic })?;
        let gateway = match &host {
            Host::Namespace(namespace) => {
                Gateway::new(NamespaceDial(namespace.clone()), GatewayOptions::default())
            }
            Host::Stack(stack) => Gateway::new(stack.clone(), GatewayOptions::default()),
        };
        Ok(Gate { host, gateway, port, epoch: roster.epoch })
    }

    /// A place for sockets, and its vNIC.
    async fn host(&self, mtu: u16) -> Result<(Host, Nic), NodeError> {
        let kind = self.core.config.gate;
        if kind == GateKind::UserSpace {
            return stack(mtu);
        }
        match self.namespace_host(mtu).await {
            Err(error @ NamespaceError::Forbidden(_)) if kind == GateKind::Auto => {
                self.warned.call_once(|| {
                    tracing::warn!(%error, "gates use a TCP stack of their own, which is slower");
                });
                stack(mtu)
            }
            made => Ok(made?),
        }
    }

    async fn namespace_host(&self, mtu: u16) -> Result<(Host, Nic), NamespaceError> {
        let command = AgentCommand {
            exe: self.core.config.exe.clone(),
            tun_device: self.core.config.tun_device.clone(),
            ids: IdRange::Single,
            ..AgentCommand::default()
        };
        let namespace = Namespace::spawn(command).await?;
        let tun = namespace.create_tun(TunSpec::new(INTERFACE, mtu).with_queues(QUEUES)).await?;
        Ok((Host::Namespace(Arc::new(namespace)), nic(tun.into())))
    }
}

fn stack(mtu: u16) -> Result<(Host, Nic), NodeError> {
    let (stack, wire) = UserStack::new(mtu)
        .map_err(|e| NodeError::internal(format!("no sockets for the gate: {e}")))?;
    Ok((Host::Stack(Arc::new(stack)), Nic::Dgram(wire)))
}

impl Host {
    /// Whether sockets can still be made there.
    fn is_alive(&self) -> bool {
        match self {
            Self::Namespace(namespace) => namespace.is_alive(),
            Self::Stack(stack) => stack.is_alive(),
        }
    }

    /// Gives it the addresses that the owner has now.
    async fn configure(&self, roster: &Roster) -> Result<(), NodeError> {
        match self {
            Self::Namespace(namespace) => configure(namespace, roster).await,
            Self::Stack(stack) => {
                let id = owner_member(roster)?;
                let member = roster.member(id).ok_or_else(|| no_owner(roster))?;
                let gateways: Vec<_> = roster.settings.subnets.iter().map(|s| s.gateway).collect();
                stack.set_addresses(&roster.nic_addresses(member), &gateways);
                Ok(())
            }
        }
    }
}

/// A raw tap, attached as long as this and its network live.
pub struct Tap {
    core: Arc<Core>,
    taps: Taps,
    network: NetworkId,
    port: PortId,
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut taps = self.taps.lock();
        // The network is removed already if it is not there.
        let Some(ports) = taps.get_mut(&self.network) else { return };
        ports.retain(|port| *port != self.port);
        if ports.is_empty() {
            taps.remove(&self.network);
        }
        drop(taps);
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
