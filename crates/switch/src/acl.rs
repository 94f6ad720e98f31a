//! The policy's rules, made for matching.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use gvpn_roster::{Action, PortRange, Protocol, Roster, Rule, RuleId, Selector};
use ipnet::IpNet;

use crate::{
    MemberIx,
    header::{ICMP, ICMPV6, TCP, Transport, UDP},
};

/// How often a rule decided.
#[derive(Debug, Default)]
pub(crate) struct Counter(pub(crate) AtomicU64);

/// The rules of a table; there are none where everything is allowed.
#[derive(Debug)]
pub(crate) struct Acl {
    default: Action,
    rules: Box<[Compiled]>,
}

#[derive(Debug)]
struct Compiled {
    id: RuleId,
    action: Action,
    from: Matcher,
    to: Matcher,
    protocol: Protocol,
    ports: Box<[PortRange]>,
    counter: Arc<Counter>,
}

#[derive(Debug)]
enum Matcher {
    Any,
    Members(Bits),
    Prefix(IpNet),
}

/// One end of a packet: its address, and the member behind it (none for a multicast group).
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) ip: IpAddr,
    pub(crate) member: Option<MemberIx>,
}

/// What decided about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(crate) action: Action,
    /// The rule, or none for the default.
    pub(crate) rule: Option<RuleId>,
    /// Whether the packet passes as the reply to one that the rule allows.
    pub(crate) reply: bool,
}

impl Acl {
    /// The rules of `roster`; `counter` finds the counter of a rule that keeps it from epoch to epoch.
    pub(crate) fn build(
        roster: &Roster,
        mut counter: impl FnMut(RuleId) -> Arc<Counter>,
    ) -> Option<Self> {
        let policy = &roster.settings.policy;
        if policy.default == Action::Allow && policy.rules.is_empty() {
            return None;
        }
        let compile = |rule: &Rule| Compiled {
            id: rule.id,
            action: rule.action,
            from: Matcher::of(&rule.from, roster),
            to: Matcher::of(&rule.to, roster),
            protocol: rule.protocol,
            ports: rule.ports.clone().into_boxed_slice(),
            counter: counter(rule.id),
        };
        let rules = policy.rules.iter().map(compile).collect();
        Some(Self { default: policy.default, rules })
    }

    /// What happens to a packet; counted where it starts. Where it comes in, only what should not
    /// have been sent counts: the rest has been counted already.
    pub(crate) fn decide(
        &self,
        from: End,
        to: End,
        transport: &Transport,
        starts_here: bool,
    ) -> Action {
        let (decision, counter) = self.find(from, to, transport);
        if let Some(counter) = counter
            && (starts_here || decision.action == Action::Deny)
        {
            counter.0.fetch_add(1, Ordering::Relaxed);
        }
        decision.action
    }

    /// What would happen to a packet, and why; not counted.
    pub(crate) fn explain(&self, from: End, to: End, transport: &Transport) -> Decision {
        self.find(from, to, transport).0
    }

    fn find(&self, from: End, to: End, transport: &Transport) -> (Decision, Option<&Counter>) {
        for rule in &self.rules {
            if let Some(reply) = rule.matches(from, to, transport) {
                let decision = Decision { action: rule.action, rule: Some(rule.id), reply };
                return (decision, Some(&rule.counter));
            }
        }
        (Decision { action: self.default, rule: None, reply: false }, None)
    }
}

impl Compiled {
    /// Whether the rule matches; `Some(true)` when it does so for a reply.
    fn matches(&self, from: End, to: End, transport: &Transport) -> Option<bool> {
        if !self.speaks_of(transport.protocol) {
            return None;
        }
        if self.from.matches(from) && self.to.matches(to) && self.has_port(transport, |p| p.1) {
            return Some(false);
        }
        let reply = self.action == Action::Allow
            && !transport.opens
            && self.from.matches(to)
            && self.to.matches(from)
            && self.has_port(transport, |p| p.0);
        reply.then_some(true)
    }

    fn speaks_of(&self, protocol: u8) -> bool {
        match self.protocol {
            Protocol::Any => true,
            Protocol::Tcp => protocol == TCP,
            Protocol::Udp => protocol == UDP,
            Protocol::Icmp => matches!(protocol, ICMP | ICMPV6),
            Protocol::Number(number) => protocol == number,
        }
    }

    /// A fragment that has no ports passes an allowing rule for its protocol: without its first
    /// fragment, which has them, it is of no use.
    fn has_port(&self, transport: &Transport, port: impl Fn((u16, u16)) -> u16) -> bool {
        if self.ports.is_empty() {
            return true;
        }
        match transport.ports {
            Some(ports) => self.ports.iter().any(|range| range.contains(port(ports))),
            None => transport.later_fragment && self.action == Action::Allow,
        }
    }
}

impl Matcher {
    fn of(selector: &Selector, roster: &Roster) -> Self {
        let members = |matches: &dyn Fn(&gvpn_roster::Member) -> bool| {
            let mut bits = Bits::new(roster.members.len());
            for (at, member) in roster.members.iter().enumerate() {
                if matches(member) {
                    bits.set(at);
                }
            }
            Self::Members(bits)
        };
        match selector {
            Selector::Any => Self::Any,
            Selector::Prefix(prefix) => Self::Prefix(*prefix),
            Selector::Member(id) => members(&|m| m.id == *id),
            Selector::Group(group) => members(&|m| m.groups.contains(group)),
        }
    }

    fn matches(&self, end: End) -> bool {
        match self {
            Self::Any => true,
            Self::Prefix(prefix) => prefix.contains(&end.ip),
            Self::Members(bits) => end.member.is_some_and(|ix| bits.get(ix.0 as usize)),
        }
    }
}

#[derive(Debug)]
struct Bits(Box<[u64]>);

impl Bits {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)].into_boxed_slice())
    }

    fn set(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn get(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}
