//! `gvpn agreement`.

use gvpn_model::NodeId;
use gvpn_sdk::AgreementRequest;
use serde_json::json;

use crate::{
    context::{Context, node_id},
    failure::Outcome,
    show,
};

/// Commands on agreements.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Agreement {
    /// Ask a provider for an agreement.
    Create {
        /// The provider.
        #[arg(value_parser = node_id)]
        provider: NodeId,
        #[command(flatten)]
        terms: Terms,
    },
    /// List the agreements of this node.
    Ls,
    /// End an agreement and its activities.
    Terminate {
        /// Agreement: id or beginning of one.
        agreement: String,
        /// What to tell the provider.
        #[arg(long, default_value = "ended by the requestor")]
        reason: String,
    },
}

/// What is asked of a provider.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Terms {
    /// Image: a file of this machine, a gftp:// or http(s):// URL, or a name that the provider knows.
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// Runtime [default: the provider's first].
    #[arg(long)]
    pub(crate) runtime: Option<String>,
    /// CPU cores.
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<f64>,
    /// Memory in GiB.
    #[arg(long, value_name = "GIB")]
    pub(crate) memory: Option<f64>,
    /// Storage in GiB.
    #[arg(long, value_name = "GIB")]
    pub(crate) storage: Option<f64>,
}

impl Terms {
    /// The request; an image that is a file of this machine is published first.
    pub(crate) async fn request(&self, context: &Context) -> Outcome<AgreementRequest> {
        let image = match &self.image {
            Some(image) if std::path::Path::new(image).exists() => {
                Some(context.client.publish(std::path::Path::new(image)).await?)
            }
            image => image.clone(),
        };
        Ok(AgreementRequest {
            runtime: self.runtime.clone(),
            image,
            cpu_cores: self.cpus,
            mem_gib: self.memory,
            storage_gib: self.storage,
        })
    }
}

impl Agreement {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Create { provider, terms } => {
                let request = terms.request(context).await?;
                let agreement = context.client.agree(provider, &request).await?;
                show::value(context.json, &agreement, |a| format!("{}\n", a.id))
            }
            Self::Ls => {
                let all = context.client.agreements().await?;
                show::value(context.json, &all, |all| {
                    let row = |a: &gvpn_sdk::Agreement| {
                        let state = format!("{:?}", a.state).to_lowercase();
                        let reason = a.reason.clone().unwrap_or_default();
                        [a.id.to_string(), state, a.provider.to_string(), reason]
                    };
                    show::table(["id", "state", "provider", "reason"], all.iter().map(row))
                })
            }
            Self::Terminate { agreement, reason } => {
                let id = context.agreement(&agreement).await?;
                context.client.terminate_agreement(id, &reason).await?;
                let ended = json!({ "terminated": id });
                show::value(context.json, &ended, |_| format!("terminated {id}\n"))
            }
        }
    }
}
