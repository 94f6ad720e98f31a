//! Images as disks of a machine.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use backhand::{FilesystemWriter, NodeHeader, compression::Compressor};

use crate::{ImageError, image::directory};

/// A disk with a root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
}

/// What is on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Cannot be written; the payload writes to a layer over it.
    Squashfs,
    /// Written to a copy-on-write file.
    Ext4,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Squashfs => "squashfs",
            Self::Ext4 => "ext4",
        }
    }

    /// What a machine mounts it with.
    pub(super) fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Squashfs => &["squashfs", "overlay"],
            Self::Ext4 => &["ext4"],
        }
    }
}

impl Disk {
    /// The disk that an image is, or is made into, once, in the directory of images.
    pub(super) fn prepare(image: &Path, images: &Path) -> Result<Self, ImageError> {
        let read = |source| ImageError::Read { path: image.to_owned(), source };
        if fs::metadata(image).map_err(read)?.is_dir() {
            return Self::from_directory(image, images);
        }
        let mut file = File::open(image).map_err(read)?;
        let kind = match kind_of(&mut file).map_err(read)? {
            Some(kind) => kind,
            None => {
                let reason =
                    "a virtual machine needs a squashfs, an ext4 file system, or a directory";
                return Err(ImageError::Contents { path: image.to_owned(), reason: reason.into() });
            }
        };
        Ok(Self { path: image.to_owned(), kind })
    }

    /// Checks that a disk that can be written has no more room than the payload may use.
    pub(super) fn check_size(&self, limit: Option<u64>) -> Result<(), ImageError> {
        let Some(limit) = limit.filter(|_| self.kind == Kind::Ext4) else { return Ok(()) };
        let read = |source| ImageError::Read { path: self.path.clone(), source };
        let len = fs::metadata(&self.path).map_err(read)?.len();
        if len <= limit {
            return Ok(());
        }
        let reason = format!("it is a disk of {len} bytes, and the payload may store {limit}");
        Err(ImageError::Contents { path: self.path.clone(), reason })
    }

    fn from_directory(root: &Path, images: &Path) -> Result<Self, ImageError> {
        let read = |source| ImageError::Read { path: root.to_owned(), source };
        let store = |source| ImageError::Store { path: images.to_owned(), source };
        let digest = hex::encode(directory::fingerprint(root).map_err(read)?);
        let path = images.join(format!("tree-{digest}.squashfs"));
        if !path.exists() {
            fs::create_dir_all(images).map_err(store)?;
            let unfinished = tempfile::Builder::new().tempfile_in(images).map_err(store)?;
            write_squashfs(root, unfinished.as_file()).map_err(read)?;
            let readable = fs::Permissions::from_mode(0o644);
            fs::set_permissions(unfinished.path(), readable).map_err(store)?;
            unfinished.persist(&path).map_err(|e| store(e.error))?;
        }
        Ok(Self { path, kind: Kind::Squashfs })
    }
}

fn kind_of(file: &mut File) -> io::Result<Option<Kind>> {
    let mut head = [0; 4];
    let mut magic = [0; 2];
    file.read_exact(&mut head)?;
    if head == *b"hsqs" {
        return Ok(Some(Kind::Squashfs));
    }
    file.seek(SeekFrom::Start(1024 + 0x38))?;
    match file.read_exact(&mut magic) {
        Ok(()) if magic == [0x53, 0xef] => Ok(Some(Kind::Ext4)),
        Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => Err(e),
        _ => Ok(None),
    }
}

/// Writes a tree as a squashfs. Files of the present user become root's.
fn write_squashfs(root: &Path, to: &File) -> io::Result<()> {
    let mut writer = FilesystemWriter::default();
    let compressor = backhand::FilesystemCompressor::new(Compressor::Zstd, None);
    writer.set_compressor(compressor.map_err(io::Error::other)?);
    writer.set_root_mode(0o755);
    let me = nix::unistd::geteuid().as_raw();
    let my_group = nix::unistd::getegid().as_raw();
    directory::walk(root, &mut |path, metadata| {
        if path.as_os_str().is_empty() || path == Path::new(".") {
            return Ok(());
        }
        let header = NodeHeader {
            permissions: (metadata.mode() & 0o7777) as u16,
            uid: if metadata.uid() == me { 0 } else { metadata.uid() },
            gid: if metadata.gid() == my_group { 0 } else { metadata.gid() },
            mtime: metadata.mtime().clamp(0, u32::MAX.into()) as u32,
        };
        let source = root.join(path);
        let kind = metadata.file_type();
        let pushed = if kind.is_dir() {
            writer.push_dir(path, header)
        } else if kind.is_symlink() {
            writer.push_symlink(fs::read_link(&source)?, path, header)
        } else if kind.is_file() {
            writer.push_file_from_path(source, path, header)
        } else {
            Ok(())
        };
        pushed.map_err(io::Error::other)
    })?;
    writer.write(to).map_err(io::Error::other).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_becomes_a_disk_once() {
        let scratch = tempfile::tempdir().unwrap();
        let (tree, images) = (scratch.path().join("tree"), scratch.path().join("images"));
        fs::create_dir_all(tree.join("etc")).unwrap();
        fs::write(tree.join("etc/motd"), "hello").unwrap();
        std::os::unix::fs::symlink("motd", tree.join("etc/link")).unwrap();
        let disk = Disk::prepare(&tree, &images).unwrap();
        assert_eq!(Disk::prepare(&tree, &images).unwrap(), disk);
        assert_eq!(Disk::prepare(&disk.path, &images).unwrap(), disk);
        let file = io::BufReader::new(File::open(&disk.path).unwrap());
        let read = backhand::FilesystemReader::from_reader(file).unwrap();
        let names: Vec<_> = read.files().map(|node| node.fullpath.display().to_string()).collect();
        assert_eq!(names, ["/", "/etc", "/etc/link", "/etc/motd"]);
        fs::write(tree.join("text"), "no image, but long enough to be asked about").unwrap();
        Disk::prepare(&tree.join("text"), &images).unwrap_err();
    }
}
