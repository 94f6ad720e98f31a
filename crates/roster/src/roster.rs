//! The roster itself: plain data.

use std::{collections::BTreeMap, net::IpAddr};

use gvpn_model::{MemberId, NetworkId, NodeId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{Member, Policy, RosterHash, digest};

/// Everything that is true about a network at one epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Roster {
    /// The network.
    pub network: NetworkId,
    /// The node that may change it.
    pub owner: NodeId,
    /// What the network's id was made from, with the owner.
    pub salt: [u8; 16],
    /// Number of this state; every change makes a larger one.
    pub epoch: u64,
    /// Everything but the members.
    pub settings: Settings,
    /// The members, by rising id.
    pub members: Vec<Member>,
}

/// What holds for the whole network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Settings {
    /// The network's name, as in `web.NAME.vpn`; its id serves as well.
    pub name: Option<String>,
    /// The prefixes, the first given at creation.
    pub subnets: Vec<Subnet>,
    /// MTU of every member's interface.
    pub mtu: u16,
    /// Destinations outside the prefixes that a member forwards to.
    pub routes: Vec<Route>,
    /// Further names, for every member: name to addresses.
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, Vec<String>>))]
    pub hosts: BTreeMap<String, Vec<IpAddr>>,
    /// What may be sent.
    pub policy: Policy,
}

/// One prefix of a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Subnet {
    /// The prefix, host bits clear.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub prefix: IpNet,
    /// The address where the switch answers; it may be a member's own too.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub gateway: IpAddr,
}

/// A destination that a member forwards to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Route {
    /// The destination, outside the network's prefixes.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub destination: IpNet,
    /// The member that forwards.
    pub via: MemberId,
}

impl Roster {
    /// The member with this id.
    pub fn member(&self, id: MemberId) -> Option<&Member> {
        self.position(id).ok().map(|at| &self.members[at])
    }

    /// The member that has `address`.
    pub fn holder(&self, address: IpAddr) -> Option<&Member> {
        self.members.iter().find(|m| m.ips.contains(&address))
    }

    /// The members on `node`.
    pub fn members_of(&self, node: NodeId) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(move |m| m.node == node)
    }

    /// Whether `node` has a member here, or owns the network.
    pub fn has_node(&self, node: NodeId) -> bool {
        self.owner == node || self.members_of(node).next().is_some()
    }

    /// Every node with a member, each once.
    pub fn nodes(&self) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.members.iter().map(|m| m.node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes
    }

    /// The subnet that `address` lies in.
    pub fn subnet_of(&self, address: IpAddr) -> Option<&Subnet> {
        self.settings.subnets.iter().find(|s| s.prefix.contains(&address))
    }

    /// Whether `address` is a gateway.
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        self.settings.subnets.iter().any(|s| s.gateway == address)
    }

    /// The name that the network goes by in DNS: its name, or its id.
    pub fn dns_label(&self) -> String {
        self.settings.name.clone().unwrap_or_else(|| self.network.to_string())
    }

    /// A member's addresses with the prefix lengths of their subnets.
    pub fn interface_addresses(&self, member: &Member) -> Vec<IpNet> {
        let with_length = |ip: &IpAddr| {
            let length = self.subnet_of(*ip)?.prefix.prefix_len();
            IpNet::new(*ip, length).ok()
        };
        member.ips.iter().filter_map(with_length).collect()
    }

    /// The addresses of a member's interface: its own, and its link-local one where the network has
    /// IPv6 (the switch lets no other pass).
    pub fn nic_addresses(&self, member: &Member) -> Vec<IpNet> {
        let v6 = self.settings.subnets.iter().any(|s| s.prefix.network().is_ipv6());
        let link_local = IpNet::new(member.link_local().into(), 64).ok().filter(|_| v6);
        self.interface_addresses(member).into_iter().chain(link_local).collect()
    }

    /// Hash of the whole, for comparison and proof.
    pub fn hash(&self) -> RosterHash {
        digest::Digest::of(self).root(self.epoch)
    }

    pub(crate) fn position(&self, id: MemberId) -> Result<usize, usize> {
        self.members.binary_search_by_key(&id, |m| m.id)
    }
}
