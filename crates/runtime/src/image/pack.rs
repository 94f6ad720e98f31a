//! Images made and looked at: what the requestor does with them before a provider sees them.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Seek, Write},
    path::Path,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, Header};

use super::{Bounds, ImageConfig, ImageError, Kind, directory, oci};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Where an ext4 file system has its magic number, and which.
const EXT_MAGIC: (usize, [u8; 2]) = (1080, [0x53, 0xef]);

/// What an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageKind {
    /// A container image.
    Container {
        /// How many layers it has.
        layers: usize,
        /// How it wants its programs to be run.
        config: ImageConfig,
    },
    /// A root file system as tar archive, compressed or not.
    Tar,
    /// A root file system as squashfs.
    Squashfs,
    /// A disk with an ext4 file system, for virtual machines.
    Ext4,
    /// A root file system as directory.
    Directory,
}

/// Says what an image is, all its digests checked; `scratch` is a directory for what has to be unpacked.
///
/// # Errors
/// [`ImageError`]: it is none, or damaged as far as can be seen without unpacking its layers.
pub fn image_kind(path: &Path, scratch: &Path) -> Result<ImageKind, ImageError> {
    if let Some(container) = oci::read(path, scratch, Bounds::default().bytes)? {
        let layers = container.layers.len();
        return Ok(ImageKind::Container { layers, config: container.config });
    }
    let read = |source| ImageError::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(read)?.is_dir() {
        return Ok(ImageKind::Directory);
    }
    let mut head = vec![];
    let file = File::open(path).map_err(read)?;
    file.take(EXT_MAGIC.0 as u64 + 2).read_to_end(&mut head).map_err(read)?;
    match Kind::of(&head[..head.len().min(Kind::HEAD)]) {
        None if head.get(EXT_MAGIC.0..) == Some(&EXT_MAGIC.1[..]) => Ok(ImageKind::Ext4),
        Some(Kind::Squashfs) => Ok(ImageKind::Squashfs),
        Some(Kind::Tar | Kind::TarGz | Kind::TarZstd) => Ok(ImageKind::Tar),
        None => Err(ImageError::Kind(path.to_owned())),
    }
}

/// Writes a directory, a root file system or an OCI image layout, as a tar archive. What belongs to the
/// present user becomes root's.
///
/// # Errors
/// The first file that cannot be read, by name; that of `to`.
pub fn pack_directory(directory: &Path, to: impl Write) -> io::Result<()> {
    directory::archive(directory, to)
}

/// Bytes of all files below a directory.
///
/// # Errors
/// The first directory that cannot be read, by name.
pub fn directory_size(directory: &Path) -> io::Result<u64> {
    directory::size(directory)
}

/// Makes a container image of one layer, a root file system, as an archive of an OCI image layout.
/// `progress` is told how many bytes of the root file system were packed since the last time.
///
/// # Errors
/// The first file that cannot be read, by name; that of `to`.
pub fn build_image(
    root: &Path,
    config: &ImageConfig,
    to: &File,
    scratch: &Path,
    progress: impl FnMut(u64),
) -> io::Result<()> {
    let mut layer = tempfile::tempfile_in(scratch)?;
    let packed = Hashed::new(BufWriter::with_capacity(256 << 10, &mut layer), |_| {});
    let mut plain = Hashed::new(GzEncoder::new(packed, Compression::default()), progress);
    directory::archive(root, &mut plain)?;
    let (packer, diff_id, _) = plain.finish();
    let (mut packed, digest, length) = packer.finish()?.finish();
    packed.flush()?;
    drop(packed);
    layer.rewind()?;

    let mut archive = Builder::new(BufWriter::with_capacity(256 << 10, to));
    let layer_is = descriptor(LAYER, &digest, length);
    append(&mut archive, &blob(&digest), length, &layer)?;
    let configuration = json!({
        "architecture": oci::machine(), "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] },
    });
    let configuration = append_document(&mut archive, CONFIG, &configuration)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": configuration, "layers": [layer_is],
    });
    let manifest = append_document(&mut archive, MANIFEST, &manifest)?;
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string();
    append(&mut archive, "index.json", index.len() as u64, index.as_bytes())?;
    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
    append(&mut archive, "oci-layout", layout.len() as u64, &layout[..])?;
    archive.into_inner()?.flush()
}

fn append_document(
    archive: &mut Builder<impl Write>,
    media_type: &str,
    document: &Value,
) -> io::Result<Value> {
    let text = document.to_string();
    let digest = hex::encode(Sha256::digest(&text));
    append(archive, &blob(&digest), text.len() as u64, text.as_bytes())?;
    Ok(descriptor(media_type, &digest, text.len() as u64))
}

fn append(
    archive: &mut Builder<impl Write>,
    name: &str,
    length: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_size(length);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, name, content.take(length))
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn descriptor(media_type: &str, digest: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{digest}"), "size": size })
}

/// Hashes and counts what is written.
struct Hashed<W, F> {
    to: W,
    hash: Sha256,
    length: u64,
    progress: F,
}

impl<W, F> Hashed<W, F> {
    fn new(to: W, progress: F) -> Self {
        Self { to, hash: Sha256::new(), length: 0, progress }
    }

    fn finish(self) -> (W, String, u64) {
        (self.to, hex::encode(self.hash.finalize()), self.length)
    }
}

impl<W: Write, F: FnMut(u64)> Write for Hashed<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.to.write(bytes)?;
        self.hash.update(&bytes[..length]);
        self.length += length as u64;
        (self.progress)(length as u64);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/motd"), "hello").unwrap();
        let config = ImageConfig { entrypoint: vec!["/serve".into()], ..ImageConfig::default() };
        let path = dir.path().join("image.tar");
        let (mut told, total) = (0, directory_size(&root).unwrap());
        let file = File::create(&path).unwrap();
        build_image(&root, &config, &file, dir.path(), |bytes| told += bytes).unwrap();
        assert!(total == 5 && told > total, "{told} of {total}");
        let kind = image_kind(&path, dir.path()).unwrap();
        assert_eq!(kind, ImageKind::Container { layers: 1, config });
        assert_eq!(image_kind(&root, dir.path()).unwrap(), ImageKind::Directory);
        let tar = dir.path().join("root.tar");
        pack_directory(&root, File::create(&tar).unwrap()).unwrap();
        assert_eq!(image_kind(&tar, dir.path()).unwrap(), ImageKind::Tar);
        fs::write(&tar, "nothing of the kind").unwrap();
        assert!(matches!(image_kind(&tar, dir.path()), Err(ImageError::Kind(_))));
    }
}
