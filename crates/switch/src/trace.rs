//! What would happen to a packet, and why.

use std::{fmt, net::IpAddr};

use gvpn_model::{MemberId, NodeId};
use gvpn_roster::{Action, Protocol, RuleId};
use serde::{Deserialize, Serialize};

use crate::{
    DropReason, Table, Targets,
    acl::End,
    forward::DNS,
    header::{Addresses, ICMP, ICMPV6, TCP, Transport, UDP},
    table::Holder,
};

/// A packet to ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Question {
    /// Where it comes from.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub source: IpAddr,
    /// Where it goes to.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub destination: IpAddr,
    /// Its protocol; any means ICMP.
    #[serde(default)]
    pub protocol: Protocol,
    /// Its destination port, where it has ports.
    #[serde(default)]
    pub port: u16,
}

/// What would happen to a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trace {
    /// What is looked at, in order.
    pub steps: Vec<Step>,
    /// What comes of it.
    pub outcome: Outcome,
}

/// One thing that decides about a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Step {
    /// The source is this member's address.
    Source {
        /// The member.
        member: MemberId,
        /// Its node.
        node: NodeId,
    },
    /// The destination is this member's address.
    Destination {
        /// The member.
        member: MemberId,
        /// Its node.
        node: NodeId,
    },
    /// The destination is outside the prefixes; a route leads through this member.
    Route {
        /// The member.
        member: MemberId,
        /// Its node.
        node: NodeId,
    },
    /// The destination is a gateway that no member holds.
    Gateway,
    /// The destination is everybody, or a multicast group.
    Group {
        /// Listeners on this node.
        members: Vec<MemberId>,
        /// Other nodes that get a copy.
        nodes: Vec<NodeId>,
    },
    /// This rule matches.
    Rule {
        /// The rule.
        id: RuleId,
        /// What it does.
        action: Action,
        /// Whether it matches as the reply to what it allows.
        reply: bool,
    },
    /// No rule matches; the default decides.
    Default {
        /// What it does.
        action: Action,
    },
    /// A limit applies to the sender.
    #[serde(rename_all = "camelCase")]
    Limited {
        /// Bits a second, zero for none.
        bits_per_second: u64,
        /// Packets a second, zero for none.
        packets_per_second: u64,
    },
}

/// What comes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// The member gets it.
    Delivered(MemberId),
    /// The listeners get it.
    Replicated,
    /// The switch answers it: `dns` or `gateway`.
    Answered(String),
    /// It is dropped, for a reason with this name.
    Dropped(String),
}

impl Table {
    /// What would happen to such a packet, wherever in the network it is sent, and why. Counts
    /// nothing and charges nobody.
    pub fn trace(&self, question: &Question) -> Trace {
        let mut steps = Vec::new();
        let outcome = match self.follow(question, &mut steps) {
            Ok(outcome) => outcome,
            Err(reason) => Outcome::Dropped(reason.name().to_owned()),
        };
        Trace { steps, outcome }
    }

    fn follow(&self, question: &Question, steps: &mut Vec<Step>) -> Result<Outcome, DropReason> {
        let (addresses, transport) = question.parts().ok_or(DropReason::Malformed)?;
        let from = self.sender(&addresses).ok_or(DropReason::SpoofedSource)?;
        let row = &self.rows[from.0 as usize];
        steps.push(Step::Source { member: row.id, node: row.node });
        if row.quarantined {
            return Err(DropReason::Quarantined);
        }
        let source = End { ip: question.source, member: Some(from) };
        let outcome = match self.receiver(&addresses) {
            Some(Holder::Member { ix, gateway }) => {
                let to = &self.rows[ix.0 as usize];
                let (member, node) = (to.id, to.node);
                let direct = self.holder(question.destination).is_some();
                steps.push(match direct {
                    true => Step::Destination { member, node },
                    false => Step::Route { member, node },
                });
                let dns = transport.protocol == UDP && question.port == DNS && self.policy().dns;
                if gateway && dns {
                    return Ok(Outcome::Answered("dns".into()));
                }
                if to.quarantined {
                    return Err(DropReason::Quarantined);
                }
                let end = End { ip: question.destination, member: Some(ix) };
                self.rule_step(source, end, &transport, steps)?;
                Outcome::Delivered(member)
            }
            Some(Holder::Gateway) => {
                steps.push(Step::Gateway);
                let dns = transport.protocol == UDP && question.port == DNS && self.policy().dns;
                return Ok(Outcome::Answered(if dns { "dns" } else { "gateway" }.into()));
            }
            Some(Holder::Broadcast) => {
                let targets = self.receivers(None);
                self.group_step(targets, source, question.destination, &transport, steps)?
            }
            None if addresses.is_multicast() => {
                let targets = self.receivers(Some(question.destination));
                self.group_step(targets, source, question.destination, &transport, steps)?
            }
            None => return Err(DropReason::NoSuchMember),
        };
        if row.limit != Default::default() {
            let (bits_per_second, packets_per_second) =
                (row.limit.bits_per_second, row.limit.packets_per_second);
            steps.push(Step::Limited { bits_per_second, packets_per_second });
        }
        Ok(outcome)
    }

    fn rule_step(
        &self,
        from: End,
        to: End,
        transport: &Transport,
        steps: &mut Vec<Step>,
    ) -> Result<(), DropReason> {
        let Some(acl) = &self.acl else {
            steps.push(Step::Default { action: Action::Allow });
            return Ok(());
        };
        let decision = acl.explain(from, to, transport);
        let action = decision.action;
        steps.push(match decision.rule {
            Some(id) => Step::Rule { id, action, reply: decision.reply },
            None => Step::Default { action },
        });
        if action == Action::Deny { Err(DropReason::Denied) } else { Ok(()) }
    }

    fn group_step(
        &self,
        targets: Targets,
        from: End,
        to: IpAddr,
        transport: &Transport,
        steps: &mut Vec<Step>,
    ) -> Result<Outcome, DropReason> {
        if !self.policy().multicast {
            return Err(DropReason::MulticastOff);
        }
        let permitted = self.permitted(&targets, from, to, transport, false);
        let targets = permitted.ok_or(DropReason::Denied)?;
        let members = targets.local().iter().map(|ix| self.rows[ix.0 as usize].id).collect();
        let nodes = targets.nodes().iter().map(|ix| self.nodes[ix.0 as usize]).collect();
        steps.push(Step::Group { members, nodes });
        if targets.is_empty() { Err(DropReason::NoListener) } else { Ok(Outcome::Replicated) }
    }
}

impl Question {
    fn parts(&self) -> Option<(Addresses, Transport)> {
        let addresses = match (self.source, self.destination) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                Addresses::V4 { source: s.into(), destination: d.into() }
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                Addresses::V6 { source: s.into(), destination: d.into() }
            }
            _ => return None,
        };
        let icmp = if self.source.is_ipv4() { ICMP } else { ICMPV6 };
        let protocol = match self.protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
            Protocol::Any | Protocol::Icmp => icmp,
            Protocol::Number(number) => number,
        };
        let transport = Transport {
            protocol,
            offset: 0,
            // From an ephemeral port, as the first packet of a connection.
            ports: self.protocol.has_ports().then_some((49152, self.port)),
            opens: protocol == TCP,
            later_fragment: false,
            fragment: false,
        };
        Some((addresses, transport))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = |action: &Action| match action {
            Action::Allow => "allows it",
            Action::Deny => "denies it",
        };
        match self {
            Self::Source { member, node } => write!(f, "from member {member} on {node}"),
            Self::Destination { member, node } => write!(f, "to member {member} on {node}"),
            Self::Route { member, node } => {
                write!(f, "routed through member {member} on {node}")
            }
            Self::Gateway => f.write_str("to the gateway, which no member holds"),
            Self::Group { members, nodes } => {
                write!(f, "to {} members here and {} other nodes", members.len(), nodes.len())
            }
            Self::Rule { id, action, reply: false } => write!(f, "rule {id} {}", verb(action)),
            Self::Rule { id, action, .. } => {
                write!(f, "rule {id} {} as a reply", verb(action))
            }
            Self::Default { action } => write!(f, "no rule matches; the default {}", verb(action)),
            Self::Limited { bits_per_second, packets_per_second } => write!(
                f,
                "limited to {bits_per_second} bit/s and {packets_per_second} packets/s (0: no limit)"
            ),
        }
    }
}
