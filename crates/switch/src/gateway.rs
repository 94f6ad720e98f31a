//! The switch as a host: what it answers itself.

use std::net::IpAddr;

use gvpn_model::MemberId;
use gvpn_roster::Subnet;

use crate::{
    DropReason, MemberIx, Table,
    bucket::Rate,
    compose::{self, Unreachable},
    header::{Addresses, TCP, Transport, UDP},
    igmp, names,
};

/// Questions to the name server that a member may ask: 1,000 a second, half of them at once.
const QUESTIONS: Rate = Rate { per_second: 1000, burst: 500_000_000 };
/// Questions that are asked elsewhere for a member: 100 a second, twice as many at once.
const FOREIGN: Rate = Rate { per_second: 100, burst: 2_000_000_000 };
/// Segments that a member may send to the name server: 2,000 a second, half of them at once.
const SEGMENTS: Rate = Rate { per_second: 2000, burst: 500_000_000 };
/// ICMP errors that the switch sends: 100 a second, half of them at once.
const ERRORS: Rate = Rate { per_second: 100, burst: 500_000_000 };

/// A DNS question that is none of the network's business: its owner allows that the provider's
/// resolver is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Who asks.
    pub member: MemberId,
    /// Address and port that it asks from.
    pub client: (IpAddr, u16),
    /// Address and port that it asks.
    pub server: (IpAddr, u16),
    /// The DNS message.
    pub question: Vec<u8>,
}

impl Asked {
    /// The packet that brings a DNS message as the answer.
    pub fn reply(&self, message: &[u8]) -> Option<Vec<u8>> {
        compose::udp(self.server, self.client, message)
    }
}

impl Table {
    /// The switch's own reply to a packet of the local member at `port` that had the verdict
    /// [`Answer`](crate::Verdict::Answer), if it has one. Multicast reports are followed here.
    /// `now` is nanoseconds of a monotonic clock.
    pub fn answer(&self, port: MemberIx, ip: &[u8], now: u64) -> Option<Vec<u8>> {
        let row = self.member(port)?;
        let addresses = Addresses::of(ip)?;
        let transport = Transport::of(ip)?;
        if igmp::is_membership(ip, &transport) {
            self.live.report(row.id, &igmp::read(ip), now);
            return None;
        }
        if transport.fragment {
            return None;
        }
        if transport.protocol == UDP && self.answers_names(ip) {
            if !row.live.questions.take(QUESTIONS, 1, now) {
                return None;
            }
            let (from, to) = transport.ports?;
            let question = ip.get(transport.offset + 8..compose::total_length(ip)?)?;
            let reply = names::answer(self, question)?;
            let asked = Asked {
                member: row.id,
                client: (addresses.source(), from),
                server: (addresses.destination(), to),
                question: question.to_vec(),
            };
            let elsewhere = reply.foreign
                && self.policy().dns_forward
                && row.live.foreign.take(FOREIGN, 1, now);
            if elsewhere && self.live.ask_elsewhere(&asked) {
                return None;
            }
            return asked.reply(&reply.bytes);
        }
        if transport.protocol == TCP
            && self.answers_names(ip)
            && row.live.segments.take(SEGMENTS, 1, now)
            && self.live.serve_names(row.id, ip)
        {
            return None;
        }
        if !self.live.errors.take(ERRORS, 1, now) {
            return None;
        }
        match transport.protocol {
            TCP => compose::reset(ip, &transport),
            UDP => compose::unreachable(addresses.destination(), ip, Unreachable::Port),
            _ => compose::echo_reply(ip, &transport),
        }
    }

    /// What tells the local sender of a dropped packet that it was dropped: an ICMP error from the
    /// gateway, for drops that the sender should know of, and not too many of them.
    pub fn refusal(&self, ip: &[u8], reason: DropReason, now: u64) -> Option<Vec<u8>> {
        let why = match reason {
            DropReason::NoSuchMember => Unreachable::Host,
            DropReason::Denied | DropReason::Quarantined => Unreachable::Prohibited,
            _ => return None,
        };
        let addresses = Addresses::of(ip)?;
        if addresses.is_multicast() {
            return None;
        }
        let gateway = self.gateway_for(addresses.source())?;
        if !self.live.errors.take(ERRORS, 1, now) {
            return None;
        }
        compose::unreachable(gateway, ip, why)
    }

    /// The gateway of the subnet that `address` lies in, else any of its family.
    pub fn gateway_for(&self, address: IpAddr) -> Option<IpAddr> {
        let subnets = &self.settings.subnets;
        let home = |s: &&Subnet| s.prefix.contains(&address);
        let family = |s: &&Subnet| s.gateway.is_ipv4() == address.is_ipv4();
        subnets.iter().find(home).or_else(|| subnets.iter().find(family)).map(|s| s.gateway)
    }

    /// Packets that make the listeners at a port report their multicast groups: send them when a
    /// port is attached, and every two minutes.
    pub fn membership_queries(&self) -> Vec<Vec<u8>> {
        let gateways = self.settings.subnets.iter().map(|s| s.gateway);
        let v4 = gateways.clone().find(IpAddr::is_ipv4);
        let v6 = gateways.clone().find(IpAddr::is_ipv6);
        [v4, v6].into_iter().flatten().map(igmp::query).collect()
    }
}
