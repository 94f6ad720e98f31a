//! Container images: OCI image layouts (directories, or archives of one) and archives of
//! `docker save`.
//!
//! Nothing of an image is believed: every part is checked against the digest that names it before it
//! is used, and layers are unpacked by a process that is shut in.

mod document;
mod layout;

use std::{fs::File, io, path::Path};

use sha2::{Digest, Sha256};

use super::{ImageConfig, ImageError, Kind};
pub(super) use document::machine;
use document::{Descriptor, DockerManifest, Index, Manifest};
use layout::Layout;

/// Most layers that the kernel stacks here with room to spare.
const LAYERS: usize = 128;
/// How deep indexes may be nested.
const DEPTH: usize = 4;

/// A container image, its parts checked.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) config: ImageConfig,
    /// Lowest first.
    pub(super) layers: Vec<Layer>,
}

/// A layer, still packed.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) blob: Blob,
    pub(super) kind: Kind,
    /// SHA-256 of its archive, uncompressed.
    pub(super) diff_id: String,
}

/// A part of an image: a file, or a piece of one.
#[derive(Debug)]
pub(super) struct Blob {
    pub(super) file: File,
    pub(super) first: u64,
    pub(super) length: u64,
}

impl Blob {
    fn reader(&self) -> io::Result<impl io::Read> {
        use io::{Read, Seek};
        let mut file = self.file.try_clone()?;
        file.seek(io::SeekFrom::Start(self.first))?;
        Ok(file.take(self.length))
    }

    fn sha256(&self) -> io::Result<String> {
        let mut hash = Sha256::new();
        io::copy(&mut io::BufReader::with_capacity(1 << 20, self.reader()?), &mut hash)?;
        Ok(hex::encode(hash.finalize()))
    }

    fn kind(&self) -> io::Result<Option<Kind>> {
        use io::Read;
        let mut head = vec![];
        self.reader()?.take(Kind::HEAD as u64).read_to_end(&mut head)?;
        Ok(Kind::of(&head))
    }
}

/// Reads a container image; `None` when the file or directory is no such thing. `scratch` is where a
/// compressed archive of one is unpacked, to at most `bytes`.
pub(super) fn read(
    path: &Path,
    scratch: &Path,
    bytes: u64,
) -> Result<Option<Container>, ImageError> {
    let refuse = |reason| ImageError::Contents { path: path.to_owned(), reason };
    let unreadable = |e: io::Error| match e.raw_os_error() {
        Some(_) => ImageError::Read { path: path.to_owned(), source: e },
        None => refuse(e.to_string()),
    };
    let layout = Layout::open(path, scratch, bytes).map_err(unreadable)?;
    let Some(layout) = layout else { return Ok(None) };
    Reader { layout: &layout }.read().map(Some).map_err(refuse)
}

struct Reader<'a> {
    layout: &'a Layout,
}

impl Reader<'_> {
    fn read(&self) -> Result<Container, String> {
        let container =
            if self.layout.holds("index.json") { self.read_layout()? } else { self.read_docker()? };
        if container.layers.len() > LAYERS {
            return Err(format!("it has more than {LAYERS} layers"));
        }
        Ok(container)
    }

    fn read_layout(&self) -> Result<Container, String> {
        let index: Index = self.layout.document("index.json")?;
        let manifest = self.find(index, 0)?;
        let manifest: Manifest = self.document(&manifest, "manifest")?;
        let config = self.config(&manifest)?;
        let diff_ids = config.diff_ids()?;
        if diff_ids.len() != manifest.layers.len() {
            return Err(format!(
                "its manifest has {} layers, its configuration {}",
                manifest.layers.len(),
                diff_ids.len()
            ));
        }
        let layers = manifest.layers.iter().zip(diff_ids).map(|(descriptor, diff_id)| {
            let kind = descriptor.layer_kind()?;
            Ok(Layer { blob: self.blob(descriptor, "layer")?, kind, diff_id })
        });
        let layers = layers.collect::<Result<_, String>>()?;
        Ok(Container { config: config.config.unwrap_or_default(), layers })
    }

    /// The manifest for this machine.
    fn find(&self, index: Index, depth: usize) -> Result<Descriptor, String> {
        let chosen = index.choose()?;
        if chosen.is_manifest()? {
            return Ok(chosen);
        }
        if depth == DEPTH {
            return Err(format!("its indexes are nested more than {DEPTH} deep"));
        }
        let inner = self.document(&chosen, "index")?;
        self.find(inner, depth + 1)
    }

    fn config(&self, manifest: &Manifest) -> Result<document::Configuration, String> {
        let descriptor = manifest.config.as_ref().ok_or("it has no configuration")?;
        descriptor.check_config()?;
        let config: document::Configuration = self.document(descriptor, "configuration")?;
        config.check_platform()?;
        Ok(config)
    }

    fn read_docker(&self) -> Result<Container, String> {
        let images: Vec<DockerManifest> = self.layout.document("manifest.json")?;
        let image = match images.as_slice() {
            [image] => image,
            [] => return Err("it holds no image".to_owned()),
            several => {
                let names: Vec<&str> = several
                    .iter()
                    .flat_map(|image| image.repo_tags.iter().flatten())
                    .map(String::as_str)
                    .collect();
                return Err(format!(
                    "it holds {} images ({}): save the one that is wanted",
                    several.len(),
                    names.join(", ")
                ));
            }
        };
        if image.config.is_empty() || !self.layout.holds(&image.config) {
            return Err("it has no configuration".to_owned());
        }
        self.check_docker_config(&image.config)?;
        let config: document::Configuration = self.layout.document(&image.config)?;
        config.check_platform()?;
        let diff_ids = config.diff_ids()?;
        if diff_ids.len() != image.layers.len() {
            return Err(format!(
                "its manifest has {} layers, its configuration {}",
                image.layers.len(),
                diff_ids.len()
            ));
        }
        let layers = image.layers.iter().zip(diff_ids).map(|(name, diff_id)| {
            let blob = self.layout.blob(name)?;
            let kind = blob.kind().map_err(|e| format!("layer `{name}`: {e}"))?;
            let kind = match kind {
                Some(kind @ (Kind::Tar | Kind::TarGz | Kind::TarZstd)) => kind,
                // An archive without an entry begins with its end.
                None if blob.length >= 1024 => Kind::Tar,
                _ => return Err(format!("layer `{name}` is not a tar archive")),
            };
            Ok(Layer { blob, kind, diff_id })
        });
        let layers = layers.collect::<Result<_, String>>()?;
        Ok(Container { config: config.config.unwrap_or_default(), layers })
    }

    /// `docker save` names configurations by their digest.
    fn check_docker_config(&self, name: &str) -> Result<(), String> {
        let told = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".json");
        if !document::is_sha256(told) {
            return Ok(());
        }
        let found = self.layout.blob(name)?.sha256().map_err(|e| e.to_string())?;
        if found == told { Ok(()) } else { Err(mismatch("configuration", told, &found)) }
    }

    fn document<T: serde::de::DeserializeOwned>(
        &self,
        descriptor: &Descriptor,
        what: &str,
    ) -> Result<T, String> {
        self.blob(descriptor, what)?;
        self.layout.document(&descriptor.path()?)
    }

    /// What a descriptor means, checked.
    fn blob(&self, descriptor: &Descriptor, what: &str) -> Result<Blob, String> {
        let name = descriptor.path()?;
        let blob = self.layout.blob(&name).map_err(|e| format!("its {what} is missing: {e}"))?;
        if blob.length != descriptor.size {
            return Err(format!(
                "its {what} {} has {} bytes, not {}",
                descriptor.digest, blob.length, descriptor.size
            ));
        }
        let found = blob.sha256().map_err(|e| format!("its {what} cannot be read: {e}"))?;
        let told = descriptor.sha256()?;
        if found == told { Ok(blob) } else { Err(mismatch(what, told, &found)) }
    }
}

/// What a digest that is wrong is complained about with.
pub(super) fn mismatch(what: &str, told: &str, found: &str) -> String {
    format!("the digest of its {what} is wrong: it is sha256:{found}, not sha256:{told}")
}
