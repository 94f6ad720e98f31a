//! `gvpn keys`.

use serde_json::json;

use crate::{context::Context, failure::Outcome, show};

/// Commands on app keys.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Keys {
    /// Make an app key and print its secret, this once.
    Create {
        /// A name for it.
        name: String,
    },
    /// List the app keys.
    Ls,
    /// Remove an app key; whoever uses it is refused from now on.
    Rm {
        /// Its name.
        name: String,
    },
}

impl Keys {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Create { name } => {
                let key = context.client.create_key(&name).await?;
                let made = json!({ "name": name, "key": key });
                show::value(context.json, &made, |_| format!("{key}\n"))
            }
            Self::Ls => {
                let keys = context.client.keys().await?;
                show::value(context.json, &keys, |keys| {
                    let row = |k: &gvpn_sdk::KeyInfo| [k.name.clone(), k.created.clone()];
                    show::table(["name", "created"], keys.iter().map(row))
                })
            }
            Self::Rm { name } => {
                context.client.remove_key(&name).await?;
                let removed = json!({ "removed": name });
                show::value(context.json, &removed, |_| format!("removed {name}\n"))
            }
        }
    }
}
