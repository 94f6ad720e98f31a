//! `gvpn net`.

use gvpn_sdk::{NetworkInfo, NetworkRequest};
use serde_json::json;

use crate::{context::Context, failure::Outcome, show};

/// Commands on networks.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Net {
    /// Make a network.
    Create(Create),
    /// List the networks of this node.
    Ls,
    /// Remove a network from every member.
    Rm {
        /// Network: id, beginning of an id, or name.
        network: String,
    },
    /// Change a network while it runs: name, MTU, routes, names, policy.
    Set(super::live::Set),
    /// Prefixes of a running network.
    #[command(subcommand)]
    Prefix(super::live::Prefix),
    /// Show a network: its members, and how far each node has followed its changes.
    Show {
        /// Network: id, beginning of an id, or name.
        network: String,
    },
}

/// Options of `gvpn net create`.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// Prefix in CIDR form, such as 192.168.0.0/24; a second one of the other family may follow.
    #[arg(required = true, value_name = "PREFIX")]
    prefixes: Vec<String>,
    /// Name, for people and for DNS.
    #[arg(long)]
    name: Option<String>,
    /// Gateway address [default: the first host].
    #[arg(long, value_name = "IP")]
    gateway: Option<String>,
    /// MTU inside the network.
    #[arg(long)]
    mtu: Option<u16>,
}

impl Net {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Create(create) => create.run(context).await,
            Self::Ls => list(context).await,
            Self::Rm { network } => {
                let network = context.network(&network).await?;
                network.remove().await?;
                let removed = json!({ "removed": network.id() });
                show::value(context.json, &removed, |_| format!("removed {}\n", network.id()))
            }
            Self::Set(set) => set.run(context).await,
            Self::Prefix(prefix) => prefix.run(context).await,
            Self::Show { network } => show_one(context, &network).await,
        }
    }
}

impl Create {
    async fn run(self, context: &Context) -> Outcome {
        let mut prefixes = self.prefixes.into_iter();
        let request = NetworkRequest {
            ip: prefixes.next().unwrap_or_default(),
            mask: None,
            gateway: self.gateway,
            prefixes: prefixes.collect(),
            name: self.name,
            mtu: self.mtu,
        };
        let network = context.client.create_network_with(&request).await?;
        let info = network.info().await?;
        show::value(context.json, &info, |info| format!("{}\n", info.id))
    }
}

async fn list(context: &Context) -> Outcome {
    let networks = context.client.networks().await?;
    show::value(context.json, &networks, |networks| {
        let row = |n: &NetworkInfo| {
            let name = n.name.clone().unwrap_or_default();
            [n.id.to_string(), name, n.prefixes.join(","), n.mtu.to_string(), n.epoch.to_string()]
        };
        show::table(["id", "name", "prefixes", "mtu", "epoch"], networks.iter().map(row))
    })
}

async fn show_one(context: &Context, text: &str) -> Outcome {
    let network = context.network(text).await?;
    let info = network.info().await?;
    let members = network.members().await?;
    let progress = network.progress().await?;
    let connections = network.connections().await?;
    let addresses = network.addresses().await?;
    let all = json!({
        "network": info,
        "addresses": addresses,
        "members": members,
        "progress": progress,
        "connections": connections,
    });
    show::value(context.json, &all, |all| {
        let mut text = show::fields(&all["network"]);
        text.push_str(&format!("own addresses: {}\n\n", addresses.join(", ")));
        let follows = |node| match progress.iter().find(|p| p.node == node) {
            None => "-".to_owned(),
            Some(p) if p.current => "current".to_owned(),
            Some(p) => p.error.clone().unwrap_or_else(|| "behind".to_owned()),
        };
        text.push_str(&show::table(
            ["member", "addresses", "name", "node", "roster"],
            members.iter().map(|m| {
                let ips: Vec<String> = m.ips.iter().map(ToString::to_string).collect();
                let name = m.name.clone().unwrap_or_default();
                [m.id.to_string(), ips.join(","), name, m.node.to_string(), follows(m.node)]
            }),
        ));
        for c in &connections {
            let kind = if c.protocol == 6 { "tcp" } else { "raw" };
            text.push_str(&format!(
                "\n{kind} {}:{} -> {}:{}",
                c.local_ip, c.local_port, c.remote_ip, c.remote_port
            ));
        }
        text.trim_end().to_owned() + "\n"
    })
}
