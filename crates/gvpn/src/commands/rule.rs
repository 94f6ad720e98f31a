//! `gvpn rule`: what may be sent in a running network.

use gvpn_model::MemberId;
use gvpn_sdk::{Action, PortRange, Protocol, Rule as Row, Selector};
use serde_json::json;

use crate::{context::Context, failure::Outcome, show};

/// Commands on the rules of a network; the first rule that matches a packet decides.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Rule {
    /// List the rules, and how often each decided, on all nodes together.
    Ls {
        /// Network: id, beginning of an id, or name.
        network: String,
    },
    /// Add a rule.
    Add(Add),
    /// Remove a rule.
    Rm {
        /// Network: id, beginning of an id, or name.
        network: String,
        /// The rule's number.
        rule: u32,
    },
}

/// Options of `gvpn rule add`.
#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    /// Network: id, beginning of an id, or name.
    network: String,
    /// What happens to a packet that matches; replies to allowed packets pass as well.
    #[arg(value_enum)]
    action: Verb,
    /// Who sends: any, member:NUMBER, group:NAME or a prefix.
    #[arg(long, value_parser = selector, default_value = "any")]
    from: Selector,
    /// Who receives: any, member:NUMBER, group:NAME or a prefix.
    #[arg(long, value_parser = selector, default_value = "any")]
    to: Selector,
    /// Protocol: any, tcp, udp, icmp or a number.
    #[arg(long, value_parser = protocol, default_value = "any")]
    protocol: Protocol,
    /// Destination ports, such as 80,443,8000-8999.
    #[arg(long, value_delimiter = ',', value_parser = port_range)]
    port: Vec<PortRange>,
    /// Place among the rules, from 0 [default: after all].
    #[arg(long)]
    at: Option<usize>,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Verb {
    /// Let it pass.
    Allow,
    /// Drop it.
    Deny,
}

impl Rule {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Ls { network } => {
                let rules = context.network(&network).await?.rules().await?;
                show::value(context.json, &rules, |rules| {
                    let names = ["rule", "action", "from", "to", "protocol", "ports", "hits"];
                    show::table(names, rules.iter().map(row))
                })
            }
            Self::Add(add) => add.run(context).await,
            Self::Rm { network, rule } => {
                context.network(&network).await?.remove_rule(rule).await?;
                let removed = json!({ "removed": rule });
                show::value(context.json, &removed, |_| format!("removed rule {rule}\n"))
            }
        }
    }
}

impl Add {
    async fn run(self, context: &Context) -> Outcome {
        let network = context.network(&self.network).await?;
        let action = match self.action {
            Verb::Allow => Action::Allow,
            Verb::Deny => Action::Deny,
        };
        let (from, to, protocol, ports) = (self.from, self.to, self.protocol, self.port);
        let rule = Row { id: 0, action, from, to, protocol, ports, hits: 0 };
        let added = network.add_rule(&rule, self.at).await?;
        show::value(context.json, &added, |rule| format!("added rule {}\n", rule.id))
    }
}

/// Reads one end of a rule.
pub(crate) fn selector(text: &str) -> Result<Selector, String> {
    match text.split_once(':') {
        _ if text == "any" => Ok(Selector::Any),
        Some(("member", id)) => {
            let id = id.parse().map_err(|_| format!("`{id}` is not a member's number"))?;
            Ok(Selector::Member(MemberId(id)))
        }
        Some(("group", name)) => Ok(Selector::Group(name.to_owned())),
        _ if text.contains('/') => Ok(Selector::Prefix(text.to_owned())),
        _ => Err(format!("`{text}` is nobody: use any, member:NUMBER, group:NAME or a prefix")),
    }
}

/// Reads a protocol.
pub(crate) fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "any" => Ok(Protocol::Any),
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "icmp" => Ok(Protocol::Icmp),
        number => number.parse().map(Protocol::Number).map_err(|_| {
            format!("`{text}` is not a protocol: use any, tcp, udp, icmp or a number")
        }),
    }
}

fn port_range(text: &str) -> Result<PortRange, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if first <= last => Ok(PortRange { first, last }),
        _ => Err(format!("`{text}` is not a port or a range of ports")),
    }
}

fn row(rule: &Row) -> [String; 7] {
    let end = |selector: &Selector| match selector {
        Selector::Any => "any".to_owned(),
        Selector::Member(id) => format!("member:{id}"),
        Selector::Group(name) => format!("group:{name}"),
        Selector::Prefix(prefix) => prefix.clone(),
    };
    let protocol = match rule.protocol {
        Protocol::Number(number) => number.to_string(),
        other => format!("{other:?}").to_lowercase(),
    };
    let range = |p: &PortRange| match p.first == p.last {
        true => p.first.to_string(),
        false => format!("{}-{}", p.first, p.last),
    };
    let ports: Vec<_> = rule.ports.iter().map(range).collect();
    let action = format!("{:?}", rule.action).to_lowercase();
    let (from, to) = (end(&rule.from), end(&rule.to));
    [rule.id.to_string(), action, from, to, protocol, ports.join(","), rule.hits.to_string()]
}
