//! Changes of a running network as a whole: `gvpn net set` and `gvpn net prefix`.

use std::{collections::BTreeMap, net::IpAddr};

use gvpn_sdk::{Action, NetworkChange, NetworkInfo, Route};

use super::rule::Verb;
use crate::{context::Context, failure::Outcome, show};

/// Options of `gvpn net set`.
#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// Network: id, beginning of an id, or name.
    network: String,
    /// Name, for people and for DNS.
    #[arg(long)]
    name: Option<String>,
    /// Take the name away.
    #[arg(long, conflicts_with = "name")]
    no_name: bool,
    /// MTU inside the network.
    #[arg(long)]
    mtu: Option<u16>,
    /// Route instead of those there are: a prefix, and the member (number, name or address) that
    /// forwards to it; may be given several times.
    #[arg(long = "route", value_name = "PREFIX=MEMBER", value_parser = pair)]
    routes: Vec<(String, String)>,
    /// Remove all routes.
    #[arg(long, conflicts_with = "routes")]
    no_routes: bool,
    /// Further name instead of those there are; may be given several times.
    #[arg(long = "host", value_name = "NAME=IP", value_parser = host)]
    hosts: Vec<(String, IpAddr)>,
    /// Remove all further names.
    #[arg(long, conflicts_with = "hosts")]
    no_hosts: bool,
    /// What happens to packets that no rule matches.
    #[arg(long, value_enum)]
    default: Option<Verb>,
    /// Whether multicast and broadcast are carried.
    #[arg(long, value_name = "BOOL")]
    multicast: Option<bool>,
    /// Multicast and broadcast packets that each member may send in a second; 0 for no limit.
    #[arg(long, value_name = "PACKETS")]
    multicast_rate: Option<u32>,
    /// Whether the gateway answers DNS.
    #[arg(long, value_name = "BOOL")]
    dns: Option<bool>,
    /// Whether questions about other names go to the provider's resolver, if the provider agrees.
    #[arg(long, value_name = "BOOL")]
    dns_forward: Option<bool>,
}

/// Commands on the prefixes of a network.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Prefix {
    /// Add a prefix of either family.
    Add {
        /// Network: id, beginning of an id, or name.
        network: String,
        /// Prefix in CIDR form [default: a fresh unique local IPv6 prefix].
        prefix: Option<String>,
        /// Gateway address [default: the first host].
        #[arg(long, value_name = "IP")]
        gateway: Option<IpAddr>,
    },
    /// Remove a prefix in which no member has an address any more.
    Rm {
        /// Network: id, beginning of an id, or name.
        network: String,
        /// Prefix in CIDR form.
        prefix: String,
    },
    /// Give a prefix another gateway.
    Gateway {
        /// Network: id, beginning of an id, or name.
        network: String,
        /// Prefix in CIDR form.
        prefix: String,
        /// Gateway address.
        gateway: IpAddr,
    },
}

impl Set {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let network = context.network(&self.network).await?;
        let mut change = NetworkChange { mtu: self.mtu, ..NetworkChange::default() };
        change.name = if self.no_name { Some(None) } else { self.name.map(Some) };
        if self.no_routes || !self.routes.is_empty() {
            let mut routes = Vec::new();
            for (destination, member) in self.routes {
                routes.push(Route { destination, via: network.member(&member).await?.id });
            }
            change.routes = Some(routes);
        }
        if self.no_hosts || !self.hosts.is_empty() {
            let mut hosts: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
            for (name, ip) in self.hosts {
                hosts.entry(name).or_default().push(ip);
            }
            change.hosts = Some(hosts);
        }
        let mut policy = network.policy().await?;
        let before = policy.clone();
        policy.default = match self.default {
            Some(Verb::Allow) => Action::Allow,
            Some(Verb::Deny) => Action::Deny,
            None => policy.default,
        };
        policy.multicast = self.multicast.unwrap_or(policy.multicast);
        policy.multicast_packets_per_second =
            self.multicast_rate.unwrap_or(policy.multicast_packets_per_second);
        policy.dns = self.dns.unwrap_or(policy.dns);
        policy.dns_forward = self.dns_forward.unwrap_or(policy.dns_forward);
        change.policy = (policy != before).then_some(policy);
        print(context, &network.change(&change).await?)
    }
}

impl Prefix {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        let info = match self {
            Self::Add { network, prefix, gateway } => {
                let network = context.network(&network).await?;
                network.add_prefix(prefix.as_deref(), gateway).await?
            }
            Self::Rm { network, prefix } => {
                context.network(&network).await?.remove_prefix(&prefix).await?
            }
            Self::Gateway { network, prefix, gateway } => {
                context.network(&network).await?.set_gateway(&prefix, gateway).await?
            }
        };
        print(context, &info)
    }
}

fn print(context: &Context, info: &NetworkInfo) -> Outcome {
    show::value(context.json, info, |info| {
        serde_json::to_value(info).map(|value| show::fields(&value)).unwrap_or_default()
    })
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (a, b) = text.split_once('=').ok_or_else(|| format!("`{text}` is not PREFIX=MEMBER"))?;
    Ok((a.to_owned(), b.to_owned()))
}

fn host(text: &str) -> Result<(String, IpAddr), String> {
    let wrong = || format!("`{text}` is not NAME=IP");
    let (name, ip) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.to_owned(), ip.parse().map_err(|_| wrong())?))
}
