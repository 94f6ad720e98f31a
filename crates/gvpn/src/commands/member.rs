//! `gvpn member`: members of a running network.

use std::net::IpAddr;

use gvpn_model::NodeId;
use gvpn_sdk::{Limit, Member as Row, MemberEdit, NewMember, Service};
use serde_json::json;

use crate::{
    context::{Context, node_id},
    failure::Outcome,
    show,
};

/// Commands on the members of a network, while it runs. A member is named by its number, its name
/// or one of its addresses.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Member {
    /// List the members.
    Ls {
        /// Network: id, beginning of an id, or name.
        network: String,
    },
    /// Add a member; without addresses it gets the next free one of every prefix.
    Add(Add),
    /// Change a member: addresses, name, node, groups, limits, services, quarantine.
    Set(Set),
    /// Remove a member.
    Rm {
        /// Network: id, beginning of an id, or name.
        network: String,
        /// Number, name or address.
        member: String,
    },
}

/// Options of `gvpn member add`.
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// Network: id, beginning of an id, or name.
    network: String,
    /// The node that it is on.
    #[arg(value_parser = node_id)]
    node: NodeId,
    /// Its address; may be given several times.
    #[arg(long = "ip", value_name = "IP")]
    ips: Vec<IpAddr>,
    /// Its addresses follow from node and name, the same whenever they are free.
    #[arg(long, conflicts_with = "ips")]
    derived: bool,
    /// Its name, as in NAME.NETWORK.vpn.
    #[arg(long)]
    name: Option<String>,
    /// Group that rules may name; may be given several times.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    limits: Limits,
    /// Service that it publishes in DNS, such as http/8080 or dns/udp/53; may be given several times.
    #[arg(long = "service", value_name = "NAME[/udp]/PORT", value_parser = service)]
    services: Vec<Service>,
}

/// Options of `gvpn member set`.
#[derive(Debug, clap::Args)]
pub(crate) struct Set {
    /// Network: id, beginning of an id, or name.
    network: String,
    /// Number, name or address.
    member: String,
    /// Its address instead of those it has; may be given several times.
    #[arg(long = "ip", value_name = "IP")]
    ips: Vec<IpAddr>,
    /// A further address.
    #[arg(long = "add-ip", value_name = "IP")]
    add_ips: Vec<IpAddr>,
    /// An address to take away.
    #[arg(long = "rm-ip", value_name = "IP")]
    remove_ips: Vec<IpAddr>,
    /// Its name.
    #[arg(long)]
    name: Option<String>,
    /// Take its name away.
    #[arg(long, conflicts_with = "name")]
    no_name: bool,
    /// Move it to another node, with its addresses.
    #[arg(long, value_parser = node_id)]
    node: Option<NodeId>,
    /// Its group instead of those it has; may be given several times.
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<String>,
    #[command(flatten)]
    limits: Limits,
    /// Cut it off, or (`--quarantine false`) let it back.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    quarantine: Option<bool>,
    /// Service instead of those it publishes, such as http/8080; may be given several times.
    #[arg(long = "service", value_name = "NAME[/udp]/PORT", value_parser = service)]
    services: Vec<Service>,
}

/// Limits on what a member sends.
#[derive(Debug, clap::Args)]
pub(crate) struct Limits {
    /// Bits a second that it may send; 0 for no limit.
    #[arg(long, value_name = "BITS")]
    bits_per_second: Option<u64>,
    /// Packets a second that it may send; 0 for no limit.
    #[arg(long, value_name = "PACKETS")]
    packets_per_second: Option<u64>,
}

impl Limits {
    fn limit(&self, before: Limit) -> Option<Limit> {
        let given = self.bits_per_second.is_some() || self.packets_per_second.is_some();
        given.then(|| Limit {
            bits_per_second: self.bits_per_second.unwrap_or(before.bits_per_second),
            packets_per_second: self.packets_per_second.unwrap_or(before.packets_per_second),
        })
    }
}

impl Member {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Ls { network } => {
                let members = context.network(&network).await?.members().await?;
                show::value(context.json, &members, |members| {
                    let names = ["member", "addresses", "name", "node", "activity"];
                    show::table(names, members.iter().map(row))
                })
            }
            Self::Add(add) => add.run(context).await,
            Self::Set(set) => set.run(context).await,
            Self::Rm { network, member } => {
                context.network(&network).await?.remove_member(&member).await?;
                let removed = json!({ "removed": member });
                show::value(context.json, &removed, |_| format!("removed {member}\n"))
            }
        }
    }
}

impl Add {
    async fn run(self, context: &Context) -> Outcome {
        let network = context.network(&self.network).await?;
        let new = NewMember {
            ips: self.ips,
            derived: self.derived,
            name: self.name,
            groups: self.groups,
            limit: self.limits.limit(Limit::default()),
            services: self.services,
            ..NewMember::on(self.node)
        };
        let member = network.add_member(&new).await?;
        show::value(context.json, &member, |m| format!("added {}\n", line(m)))
    }
}

impl Set {
    async fn run(self, context: &Context) -> Outcome {
        let network = context.network(&self.network).await?;
        let before = network.member(&self.member).await?;
        let limit = before.more.get("limit").cloned().unwrap_or_default();
        let limit = serde_json::from_value(limit).unwrap_or_default();
        let name = if self.no_name { Some(None) } else { self.name.map(Some) };
        let edit = MemberEdit {
            ips: some(self.ips),
            add_ips: self.add_ips,
            remove_ips: self.remove_ips,
            node: self.node,
            name,
            groups: some(self.groups),
            limit: self.limits.limit(limit),
            quarantined: self.quarantine,
            services: some(self.services),
            ..MemberEdit::default()
        };
        let member = network.edit_member(&before.id.to_string(), &edit).await?;
        show::value(context.json, &member, |m| format!("now {}\n", line(m)))
    }
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn row(member: &Row) -> [String; 5] {
    let activity = member.activity.map(|a| a.to_string()).unwrap_or_default();
    let name = member.name.clone().unwrap_or_default();
    [member.id.to_string(), addresses(member), name, member.node.to_string(), activity]
}

fn line(member: &Row) -> String {
    let name = member.name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    format!("member {}{name}: {} on {}", member.id, addresses(member), member.node)
}

fn addresses(member: &Row) -> String {
    member.ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

fn service(text: &str) -> Result<Service, String> {
    let wrong = || format!("`{text}` is not a service: use NAME/PORT or NAME/udp/PORT");
    let (name, rest) = text.split_once('/').ok_or_else(wrong)?;
    let (udp, port) = match rest.split_once('/') {
        Some(("udp", port)) => (true, port),
        Some(("tcp", port)) => (false, port),
        Some(_) => return Err(wrong()),
        None => (false, rest),
    };
    let port = port.parse().map_err(|_| wrong())?;
    Ok(Service { name: name.to_owned(), udp, port })
}
