//! `gvpn image`.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use gvpn_runtime::{
    ImageConfig, ImageKind, build_image, directory_size, image_kind, pack_directory,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    commands::progress::Progress,
    context::Context,
    failure::{Failure, Outcome},
    show,
};

/// Commands on images.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Image {
    /// Give an image to the daemon's registry, from where providers fetch it.
    Import {
        /// An OCI image layout or an archive of one, an archive of `docker save`, a root file system as
        /// tar archive, squashfs, ext4 or directory.
        path: PathBuf,
        /// A tag for it, such as `golem/alpine:latest`.
        #[arg(long)]
        tag: Option<String>,
    },
    /// Make a container image of a directory that holds a root file system, and import it.
    Build(Build),
    /// List the images that the daemon keeps.
    Ls,
    /// Remove an image.
    Rm {
        /// Its hash, or a tag.
        name: String,
    },
}

/// Options of `gvpn image build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Build {
    /// The directory.
    directory: PathBuf,
    /// A tag for the image, such as `me/web:1`.
    #[arg(long)]
    tag: Option<String>,
    /// The program that `start` runs, and each of its arguments; may be repeated.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Arguments that another start may replace; may be repeated.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Environment: NAME=VALUE; may be repeated.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    env: Vec<String>,
    /// The user that programs run as: a name or number, with `:GROUP` if need be.
    #[arg(long, default_value = "")]
    user: String,
    /// Where programs start.
    #[arg(long, value_name = "DIR", default_value = "")]
    workdir: String,
    /// Write the image, an archive of an OCI image layout, to this file instead of importing it.
    #[arg(short, long, value_name = "FILE", conflicts_with = "tag")]
    output: Option<PathBuf>,
}

impl Image {
    pub(crate) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Import { path, tag } => import(context, path, tag).await,
            Self::Build(build) => build.run(context).await,
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

async fn import(context: &Context, path: PathBuf, tag: Option<String>) -> Outcome {
    let scratch = scratch()?;
    let kind = {
        let shown = path.display().to_string();
        let _progress = Progress::start(context, format!("checking {shown}"));
        let (path, place) = (path.clone(), scratch.path().to_owned());
        blocking(move || image_kind(&path, &place).map_err(Failure::new)).await?
    };
    let file = if path.is_dir() {
        let packed = scratch.path().join("image.tar");
        pack(context, &path, &packed).await?;
        packed
    } else {
        path
    };
    give(context, &file, tag.as_deref(), &kind).await
}

/// Packs a directory, with a bar.
async fn pack(context: &Context, directory: &Path, to: &Path) -> Outcome {
    let cannot = |e: io::Error| Failure::io(format!("cannot pack {}", directory.display()))(e);
    let all = directory_size(directory).map_err(cannot)?;
    let bar = Progress::bytes(context, "packing", all);
    let (from, to) = (directory.to_owned(), to.to_owned());
    let packed = move || {
        let file = BufWriter::with_capacity(256 << 10, File::create(&to)?);
        let mut counted = Counted { to: file, bar };
        pack_directory(&from, &mut counted)?;
        counted.flush()
    };
    blocking(move || packed().map_err(Failure::new))
        .await
        .map_err(|failure| Failure::new(format!("cannot pack {}: {failure}", directory.display())))
}

impl Build {
    async fn run(self, context: &Context) -> Outcome {
        let directory = self.directory;
        let cannot = |e: io::Error| {
            let what = format!("cannot build an image of {}", directory.display());
            Failure::io(what)(e).hint("name a directory that holds a root file system")
        };
        let all = directory_size(&directory).map_err(cannot)?;
        if !directory.is_dir() {
            return Err(cannot(io::ErrorKind::NotADirectory.into()));
        }
        let config = ImageConfig {
            entrypoint: self.entrypoint,
            cmd: self.cmd,
            env: self.env,
            user: self.user,
            working_dir: self.workdir,
        };
        let scratch = scratch()?;
        let file = self.output.clone().unwrap_or_else(|| scratch.path().join("image.tar"));
        let bar = Progress::bytes(context, "building", all);
        let work = {
            let (root, config) = (directory.clone(), config.clone());
            let (to, place) = (file.clone(), scratch.path().to_owned());
            move || {
                let to = File::create(&to)
                    .map_err(Failure::io(format!("cannot write {}", to.display())))?;
                build_image(&root, &config, &to, &place, |bytes| bar.advance(bytes))
                    .map_err(Failure::io("cannot build the image"))
            }
        };
        blocking(work).await?;
        if let Some(output) = self.output {
            let written = json!({ "file": output });
            return show::value(context.json, &written, |_| format!("{}\n", output.display()));
        }
        let kind = ImageKind::Container { layers: 1, config };
        give(context, &file, self.tag.as_deref(), &kind).await
    }
}

/// Has the daemon copy a file into its registry.
async fn give(context: &Context, file: &Path, tag: Option<&str>, kind: &ImageKind) -> Outcome {
    let image = {
        let _progress = Progress::start(context, "copying it into the registry");
        context.client.import_image(file, tag).await?
    };
    let mut shown = serde_json::to_value(&image).map_err(Failure::new)?;
    if let Value::Object(fields) = &mut shown {
        let (name, layers) = match kind {
            ImageKind::Container { layers, .. } => ("container", Some(*layers)),
            ImageKind::Tar | ImageKind::Directory => ("tar", None),
            ImageKind::Squashfs => ("squashfs", None),
            ImageKind::Ext4 => ("ext4", None),
        };
        fields.insert("kind".to_owned(), json!(name));
        fields.extend(layers.map(|layers| ("layers".to_owned(), json!(layers))));
    }
    show::value(context.json, &shown, |_| format!("{}\n", image.sha3))
}

/// Counts what is written.
struct Counted<W> {
    to: W,
    bar: Progress,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.to.write(bytes)?;
        self.bar.advance(length as u64);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A directory for what is on its way to the daemon, which reads it.
fn scratch() -> Outcome<TempDir> {
    tempfile::Builder::new()
        .prefix("gvpn-image-")
        .tempdir()
        .map_err(Failure::io("cannot make a temporary directory"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Outcome<T> + Send + 'static,
) -> Outcome<T> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::new)?
}

fn pair(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((name, _)) if !name.is_empty() => Ok(text.to_owned()),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}
