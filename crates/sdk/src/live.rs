//! Changes of a network while it runs.

use std::{collections::BTreeMap, net::IpAddr};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use gvpn_model::{ActivityId, MemberId, NodeId};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Error, Member, Network, NetworkInfo};

/// What shall change in a network: what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkChange {
    /// The name; `Some(None)` takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Option<String>>,
    /// The MTU of every member's interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// All routes from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
    /// All further names from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<BTreeMap<String, Vec<IpAddr>>>,
    /// The whole policy from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

/// A destination outside the prefixes that a member forwards to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination, a prefix.
    pub destination: String,
    /// The member.
    pub via: MemberId,
}

/// A member to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewMember {
    /// The node that it is on.
    pub node: NodeId,
    /// Its addresses; none means the next free one of every prefix.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// Its addresses follow from node and name, the same whenever they are free.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub derived: bool,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its groups, which rules may name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What it may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Services that it publishes in DNS.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Service>,
}

impl NewMember {
    /// A member on `node`, with the next free addresses.
    pub fn on(node: NodeId) -> Self {
        Self {
            node,
            ips: Vec::new(),
            derived: false,
            name: None,
            groups: Vec::new(),
            limit: None,
            services: Vec::new(),
        }
    }
}

/// What shall change in a member: what is `None` or empty stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberEdit {
    /// All its addresses from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ips: Option<Vec<IpAddr>>,
    /// Addresses to add.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_ips: Vec<IpAddr>,
    /// Addresses to take away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_ips: Vec<IpAddr>,
    /// The node that it moves to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// The activity that it is from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activity: Option<ActivityId>,
    /// Its name; `Some(None)` takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Option<String>>,
    /// All its groups from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<String>>,
    /// What it may send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limit>,
    /// Whether it is cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<bool>,
    /// All its services from now on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Service>>,
}

/// What a member may send; zero means no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// Bits a second.
    pub bits_per_second: u64,
    /// Packets a second.
    pub packets_per_second: u64,
}

/// A service that a member publishes: `_NAME._tcp.MEMBER.NETWORK.vpn`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name, such as `http`.
    pub name: String,
    /// Whether over UDP rather than TCP.
    #[serde(default)]
    pub udp: bool,
    /// Its port.
    pub port: u16,
}

/// What may be sent in a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// What happens to a packet that no rule matches.
    pub default: Action,
    /// The rules; the first that matches decides.
    pub rules: Vec<Rule>,
    /// Whether multicast and broadcast are carried.
    pub multicast: bool,
    /// Multicast and broadcast packets that each member may send in a second; 0 for no limit.
    pub multicast_packets_per_second: u32,
    /// Whether the gateway answers DNS.
    pub dns: bool,
    /// Whether questions about other names go to the provider's resolver, if the provider agrees.
    pub dns_forward: bool,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The packet passes.
    Allow,
    /// The packet is dropped and counted.
    Deny,
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its number; 0 for a new one.
    #[serde(default)]
    pub id: u32,
    /// What it does.
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
    /// How often it decided, on all nodes that said so in time.
    #[serde(default, skip_serializing)]
    pub hits: u64,
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
    /// Addresses, a prefix.
    Prefix(String),
}

/// A protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Every protocol.
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
    /// Another, by its number.
    Number(u8),
}

/// Ports from `first` to `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

/// A packet to ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Question {
    /// Where it comes from.
    pub source: IpAddr,
    /// Where it goes to.
    pub destination: IpAddr,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its destination port.
    pub port: u16,
}

/// What would happen to a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// What is looked at, in order, and what comes of it: `steps` and `outcome`.
    pub trace: serde_json::Value,
    /// The epoch of the roster by which this is said.
    pub epoch: u64,
    /// The way to the receiver's node, in words.
    pub path: Option<String>,
}

impl Network {
    /// Changes the network; every member follows at once.
    ///
    /// # Errors
    /// [`Error::Invalid`] or [`Error::Conflict`] for what cannot be; nothing changed then.
    pub async fn change(&self, change: &NetworkChange) -> Result<NetworkInfo, Error> {
        self.http().patch(&self.own(""), change).await
    }

    /// The policy.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn policy(&self) -> Result<Policy, Error> {
        #[derive(Deserialize)]
        struct Roster {
            settings: Settings,
        }
        #[derive(Deserialize)]
        struct Settings {
            policy: Policy,
        }
        let roster: Roster = self.http().get(&self.own("/roster")).await?;
        Ok(roster.settings.policy)
    }

    /// Adds a prefix of either family; `None` for a fresh unique local IPv6 prefix.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no prefix, [`Error::Conflict`] for one that overlaps.
    pub async fn add_prefix(
        &self,
        prefix: Option<&str>,
        gateway: Option<IpAddr>,
    ) -> Result<NetworkInfo, Error> {
        let body = match prefix {
            Some(prefix) => json!({ "prefix": prefix, "gateway": gateway }),
            None => json!({ "generate": true, "gateway": gateway }),
        };
        self.http().post(&self.own("/prefixes"), &body).await
    }

    /// Removes a prefix in which no member has an address any more.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`] while it is in use.
    pub async fn remove_prefix(&self, prefix: &str) -> Result<NetworkInfo, Error> {
        let path = format!("/prefixes?prefix={}", crate::files::encode(prefix));
        self.http().delete(&self.own(&path)).await
    }

    /// Gives a prefix another gateway.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for an address that is no host's in it.
    pub async fn set_gateway(&self, prefix: &str, gateway: IpAddr) -> Result<NetworkInfo, Error> {
        let body = json!({ "prefix": prefix, "gateway": gateway });
        self.http().patch(&self.own("/prefixes"), &body).await
    }

    /// Adds a member.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an impossible address, [`Error::Conflict`] for a taken one.
    pub async fn add_member(&self, member: &NewMember) -> Result<Member, Error> {
        self.http().post(&self.own("/members"), member).await
    }

    /// The member with this number, name or address.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn member(&self, which: &str) -> Result<Member, Error> {
        self.http().get(&self.member_path(which)).await
    }

    /// Changes the member with this number, name or address; its payload follows at once.
    ///
    /// # Errors
    /// [`Error::NotFound`], and as [`add_member`](Self::add_member).
    pub async fn edit_member(&self, which: &str, edit: &MemberEdit) -> Result<Member, Error> {
        self.http().patch(&self.member_path(which), edit).await
    }

    /// Removes the member with this number, name or address.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove_member(&self, which: &str) -> Result<(), Error> {
        self.http().delete(&self.member_path(which)).await
    }

    /// The rules of the policy, with how often each decided on the daemon's own node.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn rules(&self) -> Result<Vec<Rule>, Error> {
        self.http().get(&self.own("/rules")).await
    }

    /// Adds a rule at a place, or after all others.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a rule that names nobody.
    pub async fn add_rule(&self, rule: &Rule, at: Option<usize>) -> Result<Rule, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(flatten)]
            rule: &'a Rule,
            #[serde(skip_serializing_if = "Option::is_none")]
            at: Option<usize>,
        }
        self.http().post(&self.own("/rules"), &Body { rule, at }).await
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove_rule(&self, id: u32) -> Result<(), Error> {
        self.http().delete(&self.own(&format!("/rules/{id}"))).await
    }

    /// What would happen to a packet, and why.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn trace(&self, question: &Question) -> Result<Trace, Error> {
        self.http().post(&self.own("/trace"), question).await
    }

    /// Captures packets as a pcapng stream until the stream is dropped: at every member's node,
    /// where packets start, or only at `node`, both ways. `snap` bytes of each packet; 0 for all.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a filter that is none.
    pub async fn capture(
        &self,
        filter: &str,
        snap: u32,
        node: Option<NodeId>,
    ) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + Unpin + use<>, Error> {
        let filter = crate::files::encode(filter);
        let mut path = self.own(&format!("/capture?filter={filter}&snap={snap}"));
        if let Some(node) = node {
            path.push_str(&format!("&node={node}"));
        }
        let http = self.http();
        let response = http.send(hyper::Method::GET, &path, "application/x-pcapng", None).await?;
        let stream = response.into_body().into_data_stream();
        Ok(stream.map(|part| part.map_err(|e| Error::answer("the capture", e))))
    }

    fn member_path(&self, which: &str) -> String {
        self.own(&format!("/members/{}", crate::files::encode(which)))
    }
}
