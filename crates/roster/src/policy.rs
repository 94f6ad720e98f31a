//! What may be sent in a network: rules in order, the first that matches decides.

use gvpn_model::MemberId;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A network's policy. The default allows everything within the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Policy {
    /// What happens to a packet that no rule matches.
    pub default: Action,
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// Whether multicast and broadcast are carried.
    pub multicast: bool,
    /// Multicast and broadcast packets that each member may send in a second; zero for no limit.
    pub multicast_packets_per_second: u32,
    /// Whether the gateway answers DNS.
    pub dns: bool,
    /// Whether queries for other names go to the provider's own resolver.
    pub dns_forward: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default: Action::Allow,
            rules: Vec::new(),
            multicast: true,
            multicast_packets_per_second: 20_000,
            dns: true,
            dns_forward: false,
        }
    }
}

/// A rule's name among its network's rules.
pub type RuleId = u32;

/// One rule. It matches a packet from `from` to `to` with this protocol and one of these
/// destination ports; an allowing rule matches the replies to such packets as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rule {
    /// Its name, for counters and changes.
    #[serde(default)]
    pub id: RuleId,
    /// What happens to a packet that matches.
    pub action: Action,
    /// Who sends.
    #[serde(default)]
    pub from: Selector,
    /// Who receives.
    #[serde(default)]
    pub to: Selector,
    /// Which protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// Which destination ports; none means all.
    #[serde(default)]
    pub ports: Vec<PortRange>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The packet passes.
    #[default]
    Allow,
    /// The packet is dropped and counted.
    Deny,
}

/// One end of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Selector {
    /// Everybody.
    #[default]
    Any,
    /// One member.
    Member(MemberId),
    /// The members of a group.
    Group(String),
    /// Addresses.
    Prefix(IpNet),
}

/// The protocol of a rule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Every protocol.
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP for IPv4, ICMPv6 for IPv6.
    Icmp,
    /// Another one, by its number.
    Number(u8),
}

/// Ports from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Selector {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder};
        let one = |name: &str, what| ObjectBuilder::new().property(name, what).required(name);
        OneOfBuilder::new()
            .description(Some("One end of a rule: everybody, a member, a group or addresses."))
            .item(
                ObjectBuilder::new()
                    .schema_type(utoipa::openapi::Type::String)
                    .enum_values(Some(["any"])),
            )
            .item(one("member", u32::schema()))
            .item(one("group", String::schema()))
            .item(one("prefix", String::schema()))
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Selector {}

impl Protocol {
    /// Whether packets of this protocol have ports that a rule may name.
    pub fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

impl PortRange {
    /// Whether `port` is one of these.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}
