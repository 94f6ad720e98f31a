//! Container images made by hand, good ones and others.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header, HeaderMode};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// How a layer is packed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

impl Packing {
    fn media_type(self) -> &'static str {
        match self {
            Self::Plain => "application/vnd.oci.image.layer.v1.tar",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    fn pack(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Plain => bytes.to_vec(),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(vec![], Compression::fast());
                encoder.write_all(bytes).unwrap();
                encoder.finish().unwrap()
            }
            Self::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        }
    }
}

/// A layer in the making: a tar archive.
pub struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        let mut builder = Builder::new(vec![]);
        builder.mode(HeaderMode::Deterministic);
        builder.follow_symlinks(false);
        Self(builder)
    }

    /// A directory of this host, owned by root.
    pub fn tree(mut self, root: &Path) -> Self {
        self.0.append_dir_all(".", root).unwrap();
        self
    }

    pub fn file(self, name: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, name, "", content.as_bytes(), (0, 0o644))
    }

    pub fn directory(self, name: &str, owner: u64) -> Self {
        self.entry(EntryType::Directory, name, "", b"", (owner, 0o755))
    }

    /// An entry whose names are taken as they are.
    pub fn entry(
        mut self,
        kind: EntryType,
        name: &str,
        link: &str,
        content: &[u8],
        (owner, mode): (u64, u32),
    ) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(0);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// An image in the making. What is written can be spoilt through `index`, `manifest` and `config`.
pub struct Image {
    layers: Vec<(Vec<u8>, Packing)>,
    pub config: Value,
    /// Changes the manifest before it is written.
    pub spoil_manifest: fn(&mut Value),
    /// Changes the configuration before it is written.
    pub spoil_config: fn(&mut Value),
    /// Changes the index before it is written.
    pub spoil_index: fn(&mut Value),
    /// Changes the last layer's blob after its digest was taken.
    pub spoil_layer: fn(&mut Vec<u8>),
}

impl Image {
    /// An image without layers; `config` is how it wants to be run.
    pub fn new(config: Value) -> Self {
        Self {
            layers: vec![],
            config,
            spoil_manifest: |_| {},
            spoil_config: |_| {},
            spoil_index: |_| {},
            spoil_layer: |_| {},
        }
    }

    /// An image of one layer that is these bytes.
    pub fn raw(bytes: Vec<u8>, packing: Packing) -> Self {
        let mut image = Self::new(json!({}));
        image.layers.push((bytes, packing));
        image
    }

    pub fn layer(mut self, layer: Layer, packing: Packing) -> Self {
        self.layers.push((layer.bytes(), packing));
        self
    }

    fn configuration(&self) -> Value {
        let diff_ids: Vec<String> =
            self.layers.iter().map(|(bytes, _)| format!("sha256:{}", sha256(bytes))).collect();
        let mut config = json!({
            "architecture": architecture(), "os": "linux", "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        (self.spoil_config)(&mut config);
        config
    }

    /// Writes an OCI image layout.
    pub fn write_layout(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let put = |bytes: &[u8], media_type: &str| {
            let digest = sha256(bytes);
            fs::write(blobs.join(&digest), bytes).unwrap();
            json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len() })
        };
        let last = self.layers.len().wrapping_sub(1);
        let layers: Vec<Value> = self
            .layers
            .iter()
            .enumerate()
            .map(|(n, (bytes, packing))| {
                let mut packed = packing.pack(bytes);
                let descriptor = put(&packed, packing.media_type());
                if n == last {
                    (self.spoil_layer)(&mut packed);
                    let name = descriptor["digest"].as_str().unwrap().split_once(':').unwrap().1;
                    fs::write(blobs.join(name), packed).unwrap();
                }
                descriptor
            })
            .collect();
        let config = put(&serde_json::to_vec(&self.configuration()).unwrap(), CONFIG);
        let mut manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers,
        });
        (self.spoil_manifest)(&mut manifest);
        let manifest = put(&serde_json::to_vec(&manifest).unwrap(), MANIFEST);
        let mut index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        (self.spoil_index)(&mut index);
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
    }

    /// Writes what `docker save` wrote before it wrote image layouts.
    pub fn write_docker(&self, to: &Path) {
        let mut archive = Layer::new();
        let mut names = vec![];
        for (n, (bytes, _)) in self.layers.iter().enumerate() {
            let directory = format!("{n:064x}");
            let name = format!("{directory}/layer.tar");
            archive = archive.directory(&format!("{directory}/"), 0);
            archive = archive.entry(EntryType::Regular, &name, "", bytes, (0, 0o644));
            names.push(name);
        }
        let config = self.configuration().to_string();
        let name = format!("{}.json", sha256(config.as_bytes()));
        let manifest = json!([{ "Config": name, "RepoTags": ["test:latest"], "Layers": names }]);
        let archive = archive.file(&name, &config).file("manifest.json", &manifest.to_string());
        fs::write(to, archive.bytes()).unwrap();
    }
}

/// Packs a directory as an archive, perhaps compressed.
pub fn archive(directory: &Path, to: &Path, packing: Packing) {
    let bytes = Layer::new().tree(directory).bytes();
    File::create(to).unwrap().write_all(&packing.pack(&bytes)).unwrap();
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
