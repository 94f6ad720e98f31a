//! The way of a packet.

use std::{net::IpAddr, sync::Arc};

use gvpn_roster::Action;

use crate::{
    DropReason, MemberIx, NodeIx, Table, Targets, Verdict,
    acl::{Acl, End},
    header::{Addresses, TCP, Transport, UDP},
    igmp,
    multicast::Multicast,
    table::Holder,
    verdict::TargetList,
};

/// The port of DNS.
pub(crate) const DNS: u16 = 53;

impl Table {
    /// What becomes of a packet that the payload of `port` sends. `ip` starts with an IP header and
    /// goes on at least to the transport header; it may be a super-packet.
    pub fn from_port(&self, port: MemberIx, ip: &[u8]) -> Verdict {
        let Some(row) = self.member(port) else { return Verdict::Drop(DropReason::UnknownSender) };
        let Some(addresses) = Addresses::of(ip) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        if row.quarantined {
            return Verdict::Drop(DropReason::Quarantined);
        }
        let receiver = self.receiver(&addresses);
        let unicast = matches!(receiver, Some(Holder::Member { .. } | Holder::Gateway));
        if !unicast && let Some(verdict) = plumbing(ip, addresses) {
            return verdict;
        }
        if self.sender(&addresses) != Some(port) {
            return Verdict::Drop(DropReason::SpoofedSource);
        }
        match receiver {
            Some(Holder::Member { ix, gateway }) => {
                if gateway && self.answers_names(ip) {
                    return Verdict::Answer;
                }
                self.unicast(port, ix, &addresses, ip, true)
            }
            Some(Holder::Gateway) => Verdict::Answer,
            Some(Holder::Broadcast) => self.replicate(port, None, addresses, ip, true),
            None if addresses.is_multicast() => {
                let group = Some(addresses.destination());
                self.replicate(port, group, addresses, ip, true)
            }
            None => Verdict::Drop(DropReason::NoSuchMember),
        }
    }

    /// What becomes of a packet that arrives from the node at `peer`.
    pub fn from_peer(&self, peer: NodeIx, ip: &[u8]) -> Verdict {
        let Some(addresses) = Addresses::of(ip) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        let sender = self.sender(&addresses);
        let Some(from) = sender.filter(|ix| self.rows[ix.0 as usize].node_ix == peer) else {
            return Verdict::Drop(DropReason::SpoofedSource);
        };
        if self.rows[from.0 as usize].quarantined {
            return Verdict::Drop(DropReason::Quarantined);
        }
        match self.receiver(&addresses) {
            Some(Holder::Member { ix, .. }) => {
                if self.rows[ix.0 as usize].local {
                    self.unicast(from, ix, &addresses, ip, false)
                } else {
                    Verdict::Drop(DropReason::NotHere)
                }
            }
            Some(Holder::Broadcast) => self.replicate(from, None, addresses, ip, false),
            None if addresses.is_multicast() => {
                let group = Some(addresses.destination());
                self.replicate(from, group, addresses, ip, false)
            }
            _ => Verdict::Drop(DropReason::NotHere),
        }
    }

    /// The member that may send from this source.
    #[inline]
    pub(crate) fn sender(&self, addresses: &Addresses) -> Option<MemberIx> {
        let holder = match addresses {
            Addresses::V4 { source, .. } => self.holder4(*source),
            Addresses::V6 { source, .. } => self.holder6(*source),
        };
        match holder {
            Some(Holder::Member { ix, .. }) => Some(ix),
            Some(_) => None,
            None if self.routes.is_empty() => None,
            None => self.route(addresses.source()),
        }
    }

    #[inline]
    pub(crate) fn receiver(&self, addresses: &Addresses) -> Option<Holder> {
        let holder = match addresses {
            Addresses::V4 { destination, .. } => self.holder4(*destination),
            Addresses::V6 { destination, .. } => self.holder6(*destination),
        };
        if holder.is_some() || self.routes.is_empty() || addresses.is_multicast() {
            return holder;
        }
        let via = self.route(addresses.destination())?;
        Some(Holder::Member { ix: via, gateway: false })
    }

    /// Whether a packet to a gateway address is a question for the switch's name server.
    pub(crate) fn answers_names(&self, ip: &[u8]) -> bool {
        self.policy().dns
            && Transport::of(ip).is_some_and(|t| {
                matches!(t.protocol, UDP | TCP) && t.ports.is_some_and(|(_, to)| to == DNS)
            })
    }

    #[inline]
    fn unicast(
        &self,
        from: MemberIx,
        to: MemberIx,
        addresses: &Addresses,
        ip: &[u8],
        starts_here: bool,
    ) -> Verdict {
        if self.rows[to.0 as usize].quarantined {
            return Verdict::Drop(DropReason::Quarantined);
        }
        match &self.acl {
            None => Verdict::Deliver(to),
            Some(acl) => self.unicast_by_rules(acl, from, to, addresses, ip, starts_here),
        }
    }

    #[inline(never)]
    fn unicast_by_rules(
        &self,
        acl: &Acl,
        from: MemberIx,
        to: MemberIx,
        addresses: &Addresses,
        ip: &[u8],
        starts_here: bool,
    ) -> Verdict {
        let Some(transport) = Transport::of(ip) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        let from = End { ip: addresses.source(), member: Some(from) };
        let end = End { ip: addresses.destination(), member: Some(to) };
        match acl.decide(from, end, &transport, starts_here) {
            Action::Allow => Verdict::Deliver(to),
            Action::Deny => Verdict::Drop(DropReason::Denied),
        }
    }

    /// Replication to a group, or to everybody.
    fn replicate(
        &self,
        from: MemberIx,
        group: Option<IpAddr>,
        addresses: Addresses,
        ip: &[u8],
        from_here: bool,
    ) -> Verdict {
        if !self.policy().multicast {
            return Verdict::Drop(DropReason::MulticastOff);
        }
        let multicast = self.multicast();
        let mut targets = match group {
            Some(group) => multicast.group(group, from_here).clone(),
            None => multicast.everybody(from_here).clone(),
        };
        if from_here && multicast.unknown && group.is_some() {
            self.live.want_groups();
        }
        if self.acl.is_some() || self.quarantine {
            let Some(transport) = Transport::of(ip) else {
                return Verdict::Drop(DropReason::Malformed);
            };
            let source = End { ip: addresses.source(), member: Some(from) };
            match self.permitted(&targets, source, addresses.destination(), &transport, true) {
                Some(permitted) => targets = permitted,
                None => return Verdict::Drop(DropReason::Denied),
            }
        }
        if targets.is_empty() {
            return Verdict::Drop(DropReason::NoListener);
        }
        Verdict::Replicate(targets)
    }

    /// The receivers that the policy permits; `None` when it permits none at all. Each node decides
    /// (and counts) about its own members: a packet goes to a node where any member may have it.
    pub(crate) fn permitted(
        &self,
        targets: &Targets,
        from: End,
        ip: IpAddr,
        transport: &Transport,
        count: bool,
    ) -> Option<Targets> {
        let may = |ix: MemberIx, count: bool| {
            let to = End { ip, member: Some(ix) };
            let allows = |acl: &Acl| match count {
                true => acl.decide(from, to, transport, true) == Action::Allow,
                false => acl.explain(from, to, transport).action == Action::Allow,
            };
            !self.rows[ix.0 as usize].quarantined && self.acl.as_ref().is_none_or(allows)
        };
        let local: Vec<_> = targets.local().iter().copied().filter(|ix| may(*ix, count)).collect();
        let node_may = |node: &NodeIx| self.node_members(*node).any(|ix| may(ix, false));
        let nodes: Vec<_> = targets.nodes().iter().copied().filter(node_may).collect();
        let denied = local.is_empty() && nodes.is_empty() && !targets.is_empty();
        (!denied).then(|| Targets(Arc::new(TargetList { local, nodes })))
    }

    /// The receivers of what a member here sends to a group, or to everybody.
    pub(crate) fn receivers(&self, group: Option<IpAddr>) -> Targets {
        let multicast = self.multicast();
        match group {
            Some(group) => multicast.group(group, true).clone(),
            None => multicast.everybody(true).clone(),
        }
    }

    /// Who listens to what, brought up to date if memberships changed.
    fn multicast(&self) -> Arc<Multicast> {
        let current = self.multicast.load();
        if current.version == self.live.version() {
            return Arc::clone(&current);
        }
        let fresh = Arc::new(Multicast::build(&self.rows, &self.nodes, &self.live));
        self.multicast.store(Arc::clone(&fresh));
        fresh
    }
}

/// Messages between a payload's kernel and the switch, which come from addresses that are no
/// member's: memberships go to the switch, neighbour discovery ends here.
fn plumbing(ip: &[u8], addresses: Addresses) -> Option<Verdict> {
    if !addresses.is_multicast() {
        return None;
    }
    let transport = Transport::of(ip)?;
    if igmp::is_membership(ip, &transport) {
        return Some(Verdict::Answer);
    }
    let icmpv6 = transport.protocol == crate::header::ICMPV6;
    let discovery = icmpv6 && matches!(ip.get(transport.offset), Some(133..=137));
    discovery.then_some(Verdict::Drop(DropReason::Consumed))
}
