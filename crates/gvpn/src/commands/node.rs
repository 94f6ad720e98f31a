//! `gvpn node`.

use std::net::IpAddr;

use gvpn_model::NodeId;
use serde_json::json;

use crate::{
    context::{Context, node_id},
    failure::Outcome,
    show,
};

/// Commands on the nodes of a network.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Node {
    /// Add a node with an address.
    Add {
        /// Network: id, beginning of an id, or name.
        network: String,
        /// The node.
        #[arg(value_parser = node_id)]
        node: NodeId,
        /// Its address.
        ip: IpAddr,
    },
    /// Remove a node with all its addresses.
    Rm {
        /// Network: id, beginning of an id, or name.
        network: String,
        /// The node.
        #[arg(value_parser = node_id)]
        node: NodeId,
    },
    /// List the nodes of a network.
    Ls {
        /// Network: id, beginning of an id, or name.
        network: String,
    },
}

impl Node {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Add { network, node, ip } => {
                let network = context.network(&network).await?;
                network.add_node(node, &ip.to_string()).await?;
                let added = json!({ "id": node, "ip": ip });
                show::value(context.json, &added, |_| format!("added {node} as {ip}\n"))
            }
            Self::Rm { network, node } => {
                let network = context.network(&network).await?;
                network.remove_node(node).await?;
                let removed = json!({ "removed": node });
                show::value(context.json, &removed, |_| format!("removed {node}\n"))
            }
            Self::Ls { network } => {
                let rows = context.network(&network).await?.nodes().await?;
                show::value(context.json, &rows, |rows| {
                    let row = |n: &gvpn_sdk::NodeRow| [n.ip.to_string(), n.id.to_string()];
                    show::table(["address", "node"], rows.iter().map(row))
                })
            }
        }
    }
}
