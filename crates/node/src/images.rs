//! Images that this node keeps for its clients: known by hash and by tag, fetched by providers over
//! Golem Net.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha3::{Digest, Sha3_224, Sha3_256};
use tokio::{
    fs::{self, File},
    io::{AsyncReadExt, AsyncWriteExt},
};

use crate::{
    Files, NodeError,
    core::{Core, make_directory},
};

const KIND: &str = "image";
const BLOCK: usize = 1 << 20;

/// The image service. Clones are handles of the same one.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    files: Files,
    dir: PathBuf,
    all: Mutex<Vec<Image>>,
}

/// An image that this node keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// SHA3-224 of the file, as Golem's clients name images.
    pub sha3: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its tags, such as `golem/alpine:latest`. A tag names one image.
    pub tags: Vec<String>,
    /// When it came.
    pub imported: DateTime<Utc>,
    /// Where providers fetch it.
    pub url: String,
}

impl Images {
    pub(crate) async fn start(core: &Arc<Core>, files: &Files) -> Result<Self, NodeError> {
        let dir = core.config.data_dir.join("registry");
        make_directory(&dir)?;
        let mut all: Vec<Image> = core.store.documents(KIND)?;
        all.retain(|image| {
            let path = dir.join(&image.sha3);
            let there = path.is_file();
            if there {
                files.publish_as(&image.url, path);
            } else {
                tracing::warn!(image = %image.sha3, "an image's file is gone");
            }
            there
        });
        let inner = Inner { core: core.clone(), files: files.clone(), dir, all: Mutex::new(all) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Every image, oldest first.
    pub fn list(&self) -> Vec<Image> {
        self.inner.all.lock().clone()
    }

    /// The image with this hash.
    pub fn by_hash(&self, hash: &str) -> Option<Image> {
        let all = self.inner.all.lock();
        all.iter().find(|image| image.sha3.eq_ignore_ascii_case(hash)).cloned()
    }

    /// The image with this tag; `:latest` when it names no version.
    pub fn by_tag(&self, tag: &str) -> Option<Image> {
        let tag = full_tag(tag);
        self.inner.all.lock().iter().find(|image| image.tags.contains(&tag)).cloned()
    }

    /// Where an image's file is.
    pub fn path(&self, image: &Image) -> PathBuf {
        self.inner.dir.join(&image.sha3)
    }

    /// Copies a file in. Importing it again adds the tag; the tag leaves the image that had it.
    ///
    /// # Errors
    /// `Invalid` for a file that cannot be read, or a tag that is none.
    pub async fn import(&self, path: &Path, tag: Option<&str>) -> Result<Image, NodeError> {
        let tag = tag.map(|tag| check_tag(tag).map(|()| full_tag(tag))).transpose()?;
        let unusable =
            |e: std::io::Error| NodeError::invalid(format!("the image {}: {e}", path.display()));
        let data = fs::metadata(path).await.map_err(unusable)?;
        if !data.is_file() {
            return Err(NodeError::invalid(format!(
                "{} is not a file: give an image file (squashfs, or a tar archive)",
                path.display()
            )));
        }
        let part = self.inner.dir.join(format!(".{}", gvpn_model::ActivityId::random()));
        let copied = copy_in(path, &part).await.map_err(unusable);
        let placed = match copied {
            Ok((sha3, sha3_256, size)) => fs::rename(&part, self.inner.dir.join(&sha3))
                .await
                .map_err(NodeError::internal)
                .map(|()| (sha3, sha3_256, size)),
            Err(error) => Err(error),
        };
        let (sha3, sha3_256, size) = match placed {
            Ok(placed) => placed,
            Err(error) => {
                let _ = fs::remove_file(&part).await;
                return Err(error);
            }
        };
        let url = format!("gftp://{}/{sha3_256}", self.inner.core.me);
        self.inner.files.publish_as(&url, self.inner.dir.join(&sha3));
        self.register(sha3, size, tag, url)
    }

    /// Removes an image, by hash or tag.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn remove(&self, name: &str) -> Result<(), NodeError> {
        let image = self.by_hash(name).or_else(|| self.by_tag(name));
        let image =
            image.ok_or_else(|| NodeError::not_found(format!("there is no image {name}")))?;
        self.inner.files.close(&image.url);
        self.inner.core.store.remove_document(KIND, &image.sha3)?;
        self.inner.all.lock().retain(|i| i.sha3 != image.sha3);
        let _ = fs::remove_file(self.path(&image)).await;
        Ok(())
    }

    fn register(
        &self,
        sha3: String,
        size: u64,
        tag: Option<String>,
        url: String,
    ) -> Result<Image, NodeError> {
        let mut all = self.inner.all.lock();
        let at = all.iter().position(|i| i.sha3 == sha3).unwrap_or_else(|| {
            let (tags, imported) = (Vec::new(), Utc::now());
            all.push(Image { sha3, size, tags, imported, url });
            all.len() - 1
        });
        let mut changed = vec![at];
        if let Some(tag) = tag {
            for (i, other) in all.iter_mut().enumerate() {
                if i != at && other.tags.contains(&tag) {
                    other.tags.retain(|t| *t != tag);
                    changed.push(i);
                }
            }
            if !all[at].tags.contains(&tag) {
                all[at].tags.push(tag);
            }
        }
        for i in changed {
            self.inner.core.store.put_document(KIND, &all[i].sha3, &all[i])?;
        }
        Ok(all[at].clone())
    }
}

/// Copies a file; returns its SHA3-224, its SHA3-256 and its size.
async fn copy_in(from: &Path, to: &Path) -> std::io::Result<(String, String, u64)> {
    let (mut from, mut to) = (File::open(from).await?, File::create(to).await?);
    let (mut short, mut long) = (Sha3_224::new(), Sha3_256::new());
    let mut block = vec![0; BLOCK];
    let mut size = 0;
    loop {
        let n = from.read(&mut block).await?;
        if n == 0 {
            break;
        }
        short.update(&block[..n]);
        long.update(&block[..n]);
        to.write_all(&block[..n]).await?;
        size += n as u64;
    }
    to.flush().await?;
    to.sync_all().await?;
    Ok((hex::encode(short.finalize()), hex::encode(long.finalize()), size))
}

fn full_tag(tag: &str) -> String {
    let tag = tag.trim();
    if tag.contains(':') { tag.to_owned() } else { format!("{tag}:latest") }
}

fn check_tag(tag: &str) -> Result<(), NodeError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | ':' | '.' | '-' | '_');
    if (1..=128).contains(&tag.trim().len()) && tag.trim().chars().all(plain) {
        return Ok(());
    }
    Err(NodeError::invalid(format!("`{tag}` is not a tag such as golem/alpine:latest")))
}
