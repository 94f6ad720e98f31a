//! A network as the payload is to see it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use gvpn_model::{MemberId, NetworkId};
use gvpn_vnic::{Interface, Namespace, Nic, Route, TunSpec};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::RuntimeError;

/// The first metric of multicast and broadcast routes; a later network's are worse, so that the
/// payload's first network carries what names no interface.
const GROUP_METRIC: u32 = 100;

/// One network as the payload is to see it, derived from the owner's roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// The network.
    pub network: NetworkId,
    /// The payload's member.
    pub member: MemberId,
    /// The payload's addresses, each with the length of its network's prefix.
    pub addresses: Vec<IpNet>,
    /// The network's gateway addresses.
    pub gateways: Vec<IpAddr>,
    /// Further prefixes reached through this network.
    pub routes: Vec<IpNet>,
    /// Largest packet.
    pub mtu: u16,
    /// Lines of `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// Name servers for `/etc/resolv.conf`.
    pub dns: Vec<IpAddr>,
    /// Search domains for `/etc/resolv.conf`.
    pub search: Vec<String>,
}

/// Queues of a payload's interface: one for what is neither TCP nor UDP, the others for flows.
const QUEUES: u32 = 8;

/// The interfaces of a payload's networks in its namespace: what [`Runtime`](crate::Runtime)'s
/// network methods do unless overridden.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    numbers: Mutex<BTreeMap<NetworkId, u32>>,
}

impl Interfaces {
    pub(crate) async fn join(
        &self,
        namespace: &Namespace,
        network: &NetworkConfig,
    ) -> Result<Nic, RuntimeError> {
        let number = self.take_number(network.network);
        let spec = TunSpec::new(name(number), network.mtu).with_queues(QUEUES);
        let joined = async {
            let tun = namespace.create_tun(spec).await?;
            namespace.configure(interface(number, network)).await?;
            Ok(Nic::from(tun))
        };
        let joined = joined.await;
        if joined.is_err() {
            let _ = self.leave(namespace, network.network).await;
        }
        joined
    }

    pub(crate) async fn update(
        &self,
        namespace: &Namespace,
        network: &NetworkConfig,
    ) -> Result<(), RuntimeError> {
        let Some(number) = self.number(network.network) else {
            let text = format!("the payload is not in network {}", network.network);
            return Err(RuntimeError::Failed(text));
        };
        Ok(namespace.configure(interface(number, network)).await?)
    }

    pub(crate) async fn leave(
        &self,
        namespace: &Namespace,
        network: NetworkId,
    ) -> Result<(), RuntimeError> {
        let Some(number) = self.number(network) else { return Ok(()) };
        namespace.remove_interface(&name(number)).await?;
        self.lock().remove(&network);
        Ok(())
    }

    fn number(&self, network: NetworkId) -> Option<u32> {
        self.lock().get(&network).copied()
    }

    /// The lowest free number; interfaces keep theirs for as long as they exist.
    fn take_number(&self, network: NetworkId) -> u32 {
        let mut numbers = self.lock();
        let free = (0..).find(|n| !numbers.values().any(|taken| taken == n)).unwrap_or_default();
        *numbers.entry(network).or_insert(free)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NetworkId, u32>> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(number: u32) -> String {
    format!("eth{number}")
}

pub(crate) fn interface(number: u32, network: &NetworkConfig) -> Interface {
    let mut routes: Vec<Route> = network.routes.iter().copied().map(Route::on_link).collect();
    if network.addresses.iter().any(|a| a.addr().is_ipv4()) {
        let metric = Some(GROUP_METRIC + number);
        for group in [IpNet::from(MULTICAST), IpNet::from(BROADCAST)] {
            routes.push(Route { metric, ..Route::on_link(group) });
        }
    }
    Interface { name: name(number), addresses: network.addresses.clone(), routes, mtu: network.mtu }
}

const MULTICAST: ipnet::Ipv4Net =
    ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(224, 0, 0, 0), 4);
const BROADCAST: ipnet::Ipv4Net = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::BROADCAST, 32);
