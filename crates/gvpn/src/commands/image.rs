//! `gvpn image`.

use std::path::PathBuf;

use serde_json::json;

use crate::{context::Context, failure::Outcome, show};

/// Commands on images.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Image {
    /// Give an image file to the daemon's registry, from where providers fetch it.
    Import {
        /// The file: squashfs, or a tar archive.
        file: PathBuf,
        /// A tag for it, such as `golem/alpine:latest`.
        #[arg(long)]
        tag: Option<String>,
    },
    /// List the images that the daemon keeps.
    Ls,
    /// Remove an image.
    Rm {
        /// Its hash, or a tag.
        name: String,
    },
}

impl Image {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Import { file, tag } => {
                let image = context.client.import_image(&file, tag.as_deref()).await?;
                show::value(context.json, &image, |image| format!("{}\n", image.sha3))
            }
            Self::Ls => {
                let images = context.client.images().await?;
                show::value(context.json, &images, |images| {
                    let row = |i: &gvpn_sdk::Image| {
                        [i.tags.join(", "), i.sha3.clone(), i.size.to_string(), i.imported.clone()]
                    };
                    show::table(["tags", "sha3", "bytes", "imported"], images.iter().map(row))
                })
            }
            Self::Rm { name } => {
                context.client.remove_image(&name).await?;
                let removed = json!({ "removed": name });
                show::value(context.json, &removed, |_| format!("removed {name}\n"))
            }
        }
    }
}
