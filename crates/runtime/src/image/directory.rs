//! A directory as an image: streamed as a tar archive, so that it is unpacked like any other.

use std::{
    fs::{self, File, Metadata},
    io::{self, Write},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// A digest of everything about the tree but the bytes of its files, for which their change times stand.
pub(crate) fn fingerprint(root: &Path) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    walk(root, &mut |path, metadata| {
        hash.update(path.as_os_str().as_encoded_bytes());
        for number in [
            metadata.ino(),
            metadata.mode().into(),
            metadata.uid().into(),
            metadata.gid().into(),
            metadata.len(),
            metadata.mtime() as u64,
            metadata.ctime() as u64,
            metadata.ctime_nsec() as u64,
        ] {
            hash.update(number.to_le_bytes());
        }
        Ok(())
    })?;
    Ok(hash.finalize().into())
}

/// Bytes of all files of the tree.
pub(super) fn size(root: &Path) -> io::Result<u64> {
    let mut size = 0;
    walk(root, &mut |_, metadata| {
        size += if metadata.is_file() { metadata.len() } else { 0 };
        Ok(())
    })?;
    Ok(size)
}

/// Writes the tree as a tar archive. Files of the present user become root's.
pub(super) fn archive(root: &Path, to: impl Write) -> io::Result<()> {
    let me = nix::unistd::geteuid().as_raw();
    let my_group = nix::unistd::getegid().as_raw();
    let mut builder = Builder::new(to);
    walk(root, &mut |path, metadata| {
        let mut header = Header::new_gnu();
        header.set_metadata(metadata);
        header.set_uid(if metadata.uid() == me { 0 } else { metadata.uid().into() });
        header.set_gid(if metadata.gid() == my_group { 0 } else { metadata.gid().into() });
        header.set_size(0);
        let kind = metadata.file_type();
        let name = Path::new(".").join(path);
        if kind.is_file() {
            header.set_size(metadata.len());
            builder.append_data(&mut header, name, exactly(root.join(path), metadata.len())?)
        } else if kind.is_symlink() {
            builder.append_link(&mut header, name, fs::read_link(root.join(path))?)
        } else if kind.is_dir() || kind.is_fifo() {
            header.set_entry_type(if kind.is_dir() {
                EntryType::Directory
            } else {
                EntryType::Fifo
            });
            builder.append_data(&mut header, name, io::empty())
        } else {
            Ok(())
        }
    })?;
    builder.into_inner()?.flush()
}

/// As many bytes as the header promises, even if the file changes meanwhile.
fn exactly(path: PathBuf, length: u64) -> io::Result<impl io::Read> {
    use io::Read;
    Ok(File::open(path)?.chain(io::repeat(0)).take(length))
}

/// Calls `visit` with each relative path below `root`, parents first, in a stable order.
pub(crate) fn walk(
    root: &Path,
    visit: &mut impl FnMut(&Path, &Metadata) -> io::Result<()>,
) -> io::Result<()> {
    let named = |path: &Path, e: io::Error| {
        io::Error::new(e.kind(), format!("`{}`: {e}", root.join(path).display()))
    };
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        let here = root.join(&path);
        let metadata = if path.as_os_str().is_empty() {
            fs::metadata(&here)
        } else {
            fs::symlink_metadata(&here)
        }
        .map_err(|e| named(&path, e))?;
        visit(&path, &metadata).map_err(|e| named(&path, e))?;
        if metadata.is_dir() {
            let names = fs::read_dir(&here).and_then(|entries| {
                entries.map(|e| Ok(e?.file_name())).collect::<io::Result<Vec<_>>>()
            });
            let mut names = names.map_err(|e| named(&path, e))?;
            names.sort();
            waiting.extend(names.into_iter().rev().map(|name| path.join(name)));
        }
    }
    Ok(())
}
