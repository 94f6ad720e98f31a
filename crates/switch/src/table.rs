//! The snapshot of a roster, made for lookups.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, OnceLock},
};

use arc_swap::ArcSwap;
use gvpn_model::{MemberId, NetworkId, NodeId};
use gvpn_roster::{Limit, Member, Policy, Roster, Service, Settings};
use ipnet::IpNet;

use crate::{Live, acl::Acl, flat::FlatMap, live::MemberLive, multicast::Multicast};

/// A member's place in one [`Table`]; another table may place it elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberIx(pub u32);

/// A node's place in one [`Table`]; another table may place it elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIx(pub u32);

/// One member, as the data path needs it.
#[derive(Debug, Clone)]
pub struct MemberRow {
    /// The member.
    pub id: MemberId,
    /// Its node.
    pub node: NodeId,
    /// Its node's place.
    pub node_ix: NodeIx,
    /// Whether it is on this node.
    pub local: bool,
    /// Whether it is cut off.
    pub quarantined: bool,
    /// Its addresses.
    pub ips: Box<[IpAddr]>,
    /// What it may send.
    pub limit: Limit,
    pub(crate) name: Option<Box<str>>,
    pub(crate) services: Box<[Service]>,
    pub(crate) live: Arc<MemberLive>,
}

/// An immutable snapshot of one network, as seen by one node.
#[derive(Debug)]
pub struct Table {
    pub(crate) network: NetworkId,
    pub(crate) me: NodeId,
    pub(crate) epoch: u64,
    pub(crate) rows: Box<[MemberRow]>,
    pub(crate) nodes: Box<[NodeId]>,
    node_places: HashMap<NodeId, NodeIx>,
    pub(crate) v4: FlatMap<u32>,
    pub(crate) v6: FlatMap<u128>,
    /// Destinations beyond the prefixes, the longest first.
    pub(crate) routes: Box<[(IpNet, MemberIx)]>,
    pub(crate) settings: Settings,
    pub(crate) live: Arc<Live>,
    /// The policy's rules, if it is not "everything is allowed".
    pub(crate) acl: Option<Acl>,
    /// Whether any member has a limit.
    pub(crate) limited: bool,
    /// Whether any member is quarantined.
    pub(crate) quarantine: bool,
    pub(crate) multicast: ArcSwap<Multicast>,
    pub(crate) names: OnceLock<HashMap<Box<str>, MemberIx>>,
}

/// What an address stands for: a member (its place), a gateway that nobody holds, or a broadcast;
/// and beside a member, whether the address is a gateway too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Member { ix: MemberIx, gateway: bool },
    Gateway,
    Broadcast,
}

const GATEWAY_BIT: u32 = 1 << 31;
// Not GATEWAY_BIT - 1: with the gateway bit it would be the value that the map keeps for itself.
const NOBODY: u32 = GATEWAY_BIT - 2;
const BROADCAST: u32 = GATEWAY_BIT - 3;

impl Table {
    /// The table of `roster` on node `me`.
    pub fn build(roster: &Roster, me: NodeId) -> Self {
        Self::with_live(roster, me, Arc::new(Live::default()))
    }

    /// The table of a later roster of the same network; it goes on with this one's live state.
    pub fn rebuild(&self, roster: &Roster) -> Self {
        Self::with_live(roster, self.me, Arc::clone(&self.live))
    }

    /// The network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The epoch of the roster.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The members; a [`MemberIx`] is a place in this list.
    pub fn members(&self) -> &[MemberRow] {
        &self.rows
    }

    /// The member at this place, if the place is this table's.
    pub fn member(&self, ix: MemberIx) -> Option<&MemberRow> {
        self.rows.get(ix.0 as usize)
    }

    /// The place of a member.
    pub fn member_ix(&self, id: MemberId) -> Option<MemberIx> {
        self.rows.binary_search_by_key(&id, |row| row.id).ok().map(|at| MemberIx(at as u32))
    }

    /// The nodes; a [`NodeIx`] is a place in this list.
    pub fn nodes(&self) -> &[NodeId] {
        &self.nodes
    }

    /// The place of a node.
    pub fn node_ix(&self, node: &NodeId) -> Option<NodeIx> {
        self.node_places.get(node).copied()
    }

    /// The MTU of the network.
    pub fn mtu(&self) -> u16 {
        self.settings.mtu
    }

    /// The state that later tables share.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    pub(crate) fn node_members(&self, node: NodeIx) -> impl Iterator<Item = MemberIx> + '_ {
        let members = (0..).map(MemberIx).zip(&self.rows);
        members.filter(move |(_, row)| row.node_ix == node).map(|(ix, _)| ix)
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.settings.policy
    }

    #[inline]
    pub(crate) fn holder4(&self, address: u32) -> Option<Holder> {
        self.v4.get(address).map(Holder::decode)
    }

    #[inline]
    pub(crate) fn holder6(&self, address: u128) -> Option<Holder> {
        self.v6.get(address).map(Holder::decode)
    }

    pub(crate) fn holder(&self, address: IpAddr) -> Option<Holder> {
        match address {
            IpAddr::V4(a) => self.holder4(a.into()),
            IpAddr::V6(a) => self.holder6(a.into()),
        }
    }

    /// The member that forwards to `address`; inside the prefixes nobody does.
    pub(crate) fn route(&self, address: IpAddr) -> Option<MemberIx> {
        if self.settings.subnets.iter().any(|s| s.prefix.contains(&address)) {
            return None;
        }
        self.routes.iter().find(|(net, _)| net.contains(&address)).map(|(_, via)| *via)
    }

    fn with_live(roster: &Roster, me: NodeId, live: Arc<Live>) -> Self {
        let nodes = roster.nodes();
        let node_places: HashMap<_, _> = nodes.iter().copied().zip((0..).map(NodeIx)).collect();
        let rows: Box<[MemberRow]> = roster
            .members
            .iter()
            .map(|m| MemberRow {
                id: m.id,
                node: m.node,
                node_ix: node_places[&m.node],
                local: m.node == me,
                quarantined: m.quarantined,
                ips: m.ips.clone().into_boxed_slice(),
                limit: m.limit,
                name: m.name.clone().map(String::into_boxed_str),
                services: m.services.clone().into_boxed_slice(),
                live: live.member(m.id, m.limit),
            })
            .collect();
        live.retain(roster, &nodes);
        let multicast = ArcSwap::from_pointee(Multicast::not_yet());
        let (v4, v6) = address_maps(roster);
        let place = |id: MemberId| roster.members.binary_search_by_key(&id, |m| m.id).ok();
        let mut routes: Vec<_> = roster
            .settings
            .routes
            .iter()
            .filter_map(|r| Some((r.destination, MemberIx(place(r.via)? as u32))))
            .collect();
        routes.sort_by_key(|(net, _)| std::cmp::Reverse(net.prefix_len()));
        Self {
            network: roster.network,
            me,
            epoch: roster.epoch,
            rows,
            nodes: nodes.into_boxed_slice(),
            node_places,
            v4,
            v6,
            routes: routes.into_boxed_slice(),
            settings: roster.settings.clone(),
            acl: Acl::build(roster, |id| live.rule(id)),
            limited: roster.members.iter().any(|m| m.limit != Limit::default()),
            quarantine: roster.members.iter().any(|m| m.quarantined),
            multicast,
            names: OnceLock::new(),
            live,
        }
    }
}

impl Holder {
    #[inline]
    fn decode(value: u32) -> Self {
        match value & !GATEWAY_BIT {
            NOBODY => Self::Gateway,
            BROADCAST => Self::Broadcast,
            ix => Self::Member { ix: MemberIx(ix), gateway: value & GATEWAY_BIT != 0 },
        }
    }
}

fn address_maps(roster: &Roster) -> (FlatMap<u32>, FlatMap<u128>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    let mut put = |ip: IpAddr, value: u32| match ip {
        IpAddr::V4(a) => v4.push((u32::from(a), value)),
        IpAddr::V6(a) => v6.push((u128::from(a), value)),
    };
    for (member, ix) in roster.members.iter().zip(0..) {
        for ip in addresses_of(roster, member) {
            put(ip, if roster.is_gateway(ip) { ix | GATEWAY_BIT } else { ix });
        }
    }
    put(Ipv4Addr::BROADCAST.into(), BROADCAST);
    for subnet in &roster.settings.subnets {
        if subnet.prefix.network().is_ipv4() {
            put(subnet.prefix.broadcast(), BROADCAST);
        }
        put(subnet.gateway, NOBODY | GATEWAY_BIT);
    }
    (FlatMap::build(&v4), FlatMap::build(&v6))
}

/// A member's addresses, its link-local one included where the network has IPv6.
fn addresses_of<'a>(roster: &Roster, member: &'a Member) -> impl Iterator<Item = IpAddr> + 'a {
    let v6 = roster.settings.subnets.iter().any(|s| s.prefix.network().is_ipv6());
    let link_local = v6.then(|| IpAddr::V6(member.link_local()));
    member.ips.iter().copied().chain(link_local)
}
