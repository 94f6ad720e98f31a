//! The documents of a container image (OCI image specification 1.1; Docker's manifest schema 2 and the
//! `manifest.json` of `docker save`).

use serde::Deserialize;

use super::super::{ImageConfig, Kind};

/// `index.json`, and indexes that it leads to.
#[derive(Debug, Deserialize)]
pub(super) struct Index {
    manifests: Vec<Descriptor>,
}

/// What a part is, and the digest that names it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    media_type: String,
    pub(super) digest: String,
    pub(super) size: u64,
    platform: Option<Platform>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) config: Option<Descriptor>,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
}

/// An image's configuration.
#[derive(Debug, Deserialize)]
pub(super) struct Configuration {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    pub(super) config: Option<ImageConfig>,
    rootfs: Option<RootFs>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// An entry of the `manifest.json` of `docker save`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerManifest {
    #[serde(default)]
    pub(super) config: String,
    pub(super) repo_tags: Option<Vec<String>>,
    pub(super) layers: Vec<String>,
}

impl Index {
    /// The one entry that is for this machine.
    pub(super) fn choose(self) -> Result<Descriptor, String> {
        let fits = |d: &Descriptor| d.platform.as_ref().is_none_or(Platform::is_this);
        let told: Vec<String> = self.manifests.iter().map(Descriptor::name).collect();
        let mut fitting: Vec<Descriptor> = self.manifests.into_iter().filter(fits).collect();
        // Several tags of one image are one image.
        fitting.dedup_by(|a, b| a.digest == b.digest);
        match fitting.len() {
            1 => Ok(fitting.remove(0)),
            0 if told.is_empty() => Err("it holds no image".to_owned()),
            0 => Err(format!(
                "it has nothing for this machine (linux/{}), only: {}",
                machine(),
                told.join(", ")
            )),
            n => Err(format!(
                "it holds {n} images ({}): keep the one that is wanted",
                told.join(", ")
            )),
        }
    }
}

impl Descriptor {
    /// Where an image layout keeps it.
    pub(super) fn path(&self) -> Result<String, String> {
        Ok(format!("blobs/sha256/{}", self.sha256()?))
    }

    pub(super) fn sha256(&self) -> Result<&str, String> {
        let digest = self.digest.strip_prefix("sha256:").filter(|hex| is_sha256(hex));
        digest.ok_or_else(|| format!("`{}` is not a SHA-256 digest", self.digest))
    }

    /// Whether it is a manifest; else it is an index.
    pub(super) fn is_manifest(&self) -> Result<bool, String> {
        match self.media_type.as_str() {
            "application/vnd.oci.image.manifest.v1+json"
            | "application/vnd.docker.distribution.manifest.v2+json" => Ok(true),
            "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json" => Ok(false),
            other => Err(unknown("image", other)),
        }
    }

    pub(super) fn check_config(&self) -> Result<(), String> {
        match self.media_type.as_str() {
            "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json" => Ok(()),
            other => Err(unknown("configuration", other)),
        }
    }

    pub(super) fn layer_kind(&self) -> Result<Kind, String> {
        match self.media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar"
            | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Kind::Tar),
            "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Ok(Kind::TarGz),
            "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Ok(Kind::TarZstd),
            other => Err(unknown("layer", other)),
        }
    }

    fn name(&self) -> String {
        let name = self.annotations.get("org.opencontainers.image.ref.name");
        match (name, &self.platform) {
            (Some(name), _) => name.clone(),
            (None, Some(platform)) => format!("{}/{}", platform.os, platform.architecture),
            (None, None) => self.digest.clone(),
        }
    }
}

impl Platform {
    fn is_this(&self) -> bool {
        self.os == "linux" && self.architecture == machine()
    }
}

impl Configuration {
    pub(super) fn check_platform(&self) -> Result<(), String> {
        let fits = |told: &str, here: &str| told.is_empty() || told == here;
        if fits(&self.os, "linux") && fits(&self.architecture, machine()) {
            return Ok(());
        }
        let (os, architecture) = (&self.os, &self.architecture);
        Err(format!("it is for {os}/{architecture}; this machine is linux/{}", machine()))
    }

    /// SHA-256 of each layer's archive, uncompressed, lowest first.
    pub(super) fn diff_ids(&self) -> Result<Vec<String>, String> {
        let rootfs = self.rootfs.as_ref().ok_or("its configuration names no layers")?;
        let hex = |id: &String| {
            let hex = id.strip_prefix("sha256:").filter(|hex| is_sha256(hex));
            hex.map(str::to_owned).ok_or_else(|| format!("`{id}` is not a SHA-256 digest"))
        };
        rootfs.diff_ids.iter().map(hex).collect()
    }
}

pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn unknown(what: &str, media_type: &str) -> String {
    format!("its {what} is of a media type that is not known here: `{media_type}`")
}

/// This machine's architecture, by Go's name for it.
pub(crate) fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}
