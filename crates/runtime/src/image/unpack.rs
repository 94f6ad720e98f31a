//! The unpacking process: reads one image from a descriptor and writes its tree below its own root.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{OpenOptionsExt, PermissionsExt, lchown, symlink},
    },
    path::{Component, Path, PathBuf},
};

use backhand::{FilesystemReader, InnerNode};
use flate2::read::MultiGzDecoder;
use gvpn_vnic::channel::Channel;
use nix::sys::{
    resource::{Resource, setrlimit},
    stat::{Mode, UtimensatFlags, utimensat},
    time::TimeSpec,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::EntryType;

use super::{
    Bounds, Kind,
    whiteout::{Name, Whiteouts},
};

/// Most memory that reading an image may take.
const MEMORY: u64 = 4 << 30;
/// Largest window of zstd, as the `zstd` program takes it without being asked to.
const ZSTD_WINDOW_LOG: u32 = 27;

/// What to unpack; the image's descriptor travels beside it. The target is the working directory.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) bounds: Bounds,
    /// Whether more user ids than root's exist here.
    pub(super) own_ids: bool,
    /// Whether it is a layer of an image: names that begin with `.wh.` remove others.
    pub(super) is_layer: bool,
    /// Where in the file it is: first byte and length. None for all that can be read.
    pub(super) part: Option<(u64, u64)>,
}

/// How it went.
pub(super) type Outcome = Result<Contents, String>;

/// What was unpacked.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contents {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// SHA-256 of a layer's archive, uncompressed.
    pub(super) diff_id: String,
}

/// Entry point of the unpacking process; standard input is its channel.
pub(crate) fn unpack_main() -> io::Result<()> {
    let mut channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
    let Some((job, mut fds)) = channel.receive::<Job>()? else { return Ok(()) };
    let Some(image) = fds.pop() else { return Err(io::ErrorKind::InvalidData.into()) };
    let outcome: Outcome = shut_in()
        .map_err(|e| format!("cannot shut the unpacking process in: {e}"))
        .and_then(|()| unpack(&job, image).map_err(|e| e.to_string()));
    channel.send(&outcome, vec![])
}

/// From here on there is no path out of the target directory.
fn shut_in() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    nix::unistd::chroot(".")?;
    nix::unistd::chdir("/")?;
    nix::sys::stat::umask(Mode::empty());
    Ok(())
}

fn unpack(job: &Job, image: OwnedFd) -> io::Result<Contents> {
    let mut tree = Tree {
        bounds: job.bounds,
        own_ids: job.own_ids,
        whiteouts: job.is_layer.then(Whiteouts::default),
        ..Tree::default()
    };
    let mut image = File::from(image);
    let length = match job.part {
        Some((first, length)) => {
            image.seek(SeekFrom::Start(first))?;
            length
        }
        None => u64::MAX,
    };
    if job.kind == Kind::Squashfs {
        tree.unpack_squashfs(BufReader::with_capacity(1 << 20, image))?;
    } else {
        let image = BufReader::with_capacity(1 << 20, image.take(length));
        let mut archive = Hashed { from: open_archive(job.kind, image)?, hash: Sha256::new() };
        tree.unpack_tar(&mut archive)?;
        if job.is_layer {
            tree.contents.diff_id = archive.digest(job.bounds.bytes)?;
        }
    }
    if tree.contents.entries == 0 && !job.is_layer {
        return Err(refuse("it is empty"));
    }
    tree.finish()?;
    Ok(tree.contents)
}

fn open_archive(kind: Kind, image: impl io::BufRead + 'static) -> io::Result<Box<dyn Read>> {
    Ok(match kind {
        Kind::TarGz => Box::new(MultiGzDecoder::new(image)),
        Kind::TarZstd => {
            let mut decoder = zstd::Decoder::with_buffer(image)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        Kind::Tar | Kind::Squashfs => Box::new(image),
    })
}

/// Hashes what is read.
struct Hashed<R> {
    from: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    /// The digest of everything, what follows the archive's end included.
    fn digest(mut self, most: u64) -> io::Result<String> {
        let rest = io::copy(&mut self.by_ref().take(most), &mut io::sink())?;
        if rest == most {
            return Err(refuse("more follows the archive's end than it may unpack to"));
        }
        Ok(hex::encode(self.hash.finalize()))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

/// The tree being written.
#[derive(Default)]
struct Tree {
    bounds: Bounds,
    own_ids: bool,
    contents: Contents,
    /// Directories get their modes and times last: writing into them needs one and changes the other.
    directories: Vec<(PathBuf, Meta)>,
    /// In a layer: what it removes from the layers below. That, too, comes last.
    whiteouts: Option<Whiteouts>,
}

#[derive(Clone, Copy)]
struct Meta {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: i64,
}

impl Tree {
    fn unpack_tar(&mut self, reader: impl Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(reader);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = inner_path(&entry.path()?)?;
            if let Some(whiteouts) = &mut self.whiteouts {
                match Name::of(&path).map_err(|reason| refuse_entry(&path, reason))? {
                    Name::Plain => {}
                    name => {
                        whiteouts.note(name);
                        self.count()?;
                        continue;
                    }
                }
            }
            let header = entry.header();
            let meta = Meta {
                uid: header.uid()? as u32,
                gid: header.gid()? as u32,
                mode: header.mode()? & 0o7777,
                mtime: header.mtime()? as i64,
            };
            let link = |e: &tar::Entry<'_, _>| -> io::Result<PathBuf> {
                let link = e.link_name()?.ok_or_else(|| refuse_entry(&path, "links to nothing"))?;
                Ok(link.into_owned())
            };
            match header.entry_type() {
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    self.file(&path, meta, &mut entry)?;
                }
                EntryType::Directory => self.directory(&path, meta)?,
                EntryType::Symlink => self.symlink(&path, &link(&entry)?, meta)?,
                EntryType::Link => self.hard_link(&path, &link(&entry)?)?,
                EntryType::Fifo => self.fifo(&path, meta)?,
                EntryType::Char | EntryType::Block => device(&path)?,
                EntryType::XGlobalHeader => {}
                other => return Err(refuse_entry(&path, &format!("has unknown type {other:?}"))),
            }
        }
        Ok(())
    }

    fn unpack_squashfs(&mut self, image: BufReader<File>) -> io::Result<()> {
        let damaged = |e: backhand::BackhandError| refuse(&format!("damaged squashfs: {e}"));
        let squashfs = FilesystemReader::from_reader(image).map_err(damaged)?;
        for node in squashfs.files() {
            let path = inner_path(&node.fullpath)?;
            let header = node.header;
            let meta = Meta {
                uid: header.uid,
                gid: header.gid,
                mode: u32::from(header.permissions) & 0o7777,
                mtime: header.mtime.into(),
            };
            match &node.inner {
                InnerNode::File(file) => {
                    let mut reader = squashfs.file(file).reader_checked().map_err(damaged)?;
                    self.file(&path, meta, &mut reader)?;
                }
                InnerNode::Dir(_) => self.directory(&path, meta)?,
                InnerNode::Symlink(link) => self.symlink(&path, &link.link, meta)?,
                InnerNode::NamedPipe => self.fifo(&path, meta)?,
                InnerNode::CharacterDevice(_) | InnerNode::BlockDevice(_) => device(&path)?,
                InnerNode::Socket => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, meta: Meta, from: &mut impl Read) -> io::Result<()> {
        self.make_room(path)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let left = self.bounds.bytes - self.contents.bytes;
        let written = copy(&mut from.take(left + 1), &mut file)
            .map_err(|e| io::Error::new(e.kind(), format!("`{}`: {e}", path.display())))?;
        if written > left {
            return Err(refuse(&format!("it unpacks to more than {} bytes", self.bounds.bytes)));
        }
        self.contents.bytes += written;
        drop(file);
        self.finish_one(path, meta, true)
    }

    fn directory(&mut self, path: &Path, meta: Meta) -> io::Result<()> {
        self.count()?;
        if path.as_os_str() != "/" && !fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
            self.clear(path)?;
            fs::create_dir(path)?;
        }
        self.directories.push((path.to_owned(), meta));
        Ok(())
    }

    fn symlink(&mut self, path: &Path, target: &Path, meta: Meta) -> io::Result<()> {
        self.make_room(path)?;
        symlink(target, path)?;
        self.finish_one(path, meta, false)
    }

    fn hard_link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let target = inner_path(target)
            .map_err(|_| refuse_entry(path, &format!("links to `{}`", target.display())))?;
        let metadata = fs::symlink_metadata(&target).map_err(|_| {
            refuse_entry(path, &format!("links to `{}`, which is not there", target.display()))
        })?;
        if metadata.is_dir() {
            return Err(refuse_entry(path, "is a hard link to a directory"));
        }
        if target == path {
            return self.count();
        }
        self.make_room(path)?;
        fs::hard_link(&target, path)
    }

    fn fifo(&mut self, path: &Path, meta: Meta) -> io::Result<()> {
        self.make_room(path)?;
        nix::unistd::mkfifo(path, Mode::from_bits_truncate(0o600))?;
        self.finish_one(path, meta, true)
    }

    /// Counts an entry and sees to it that its name is free and its parent there.
    fn make_room(&mut self, path: &Path) -> io::Result<()> {
        self.count()?;
        if path.as_os_str() == "/" {
            return Err(refuse("its root is not a directory"));
        }
        self.clear(path)
    }

    fn clear(&mut self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(there) if there.is_dir() => {
                fs::remove_dir_all(path)?;
                self.directories.retain(|(directory, _)| !directory.starts_with(path));
            }
            Ok(_) => fs::remove_file(path)?,
            Err(_) => {
                if let Some(parent) = path.parent() {
                    fs::create_dir_all(parent)?;
                }
            }
        }
        Ok(())
    }

    fn count(&mut self) -> io::Result<()> {
        self.contents.entries += 1;
        if self.contents.entries > self.bounds.entries {
            return Err(refuse(&format!("it has more than {} entries", self.bounds.entries)));
        }
        Ok(())
    }

    fn finish_one(&self, path: &Path, meta: Meta, has_mode: bool) -> io::Result<()> {
        if self.own_ids {
            lchown(path, Some(meta.uid), Some(meta.gid)).map_err(|e| {
                let owner = format!("its owner {}:{} cannot exist here: {e}", meta.uid, meta.gid);
                refuse_entry(path, &owner)
            })?;
        }
        if has_mode {
            fs::set_permissions(path, Permissions::from_mode(meta.mode))?;
        }
        let time = TimeSpec::new(meta.mtime, 0);
        utimensat(nix::fcntl::AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        if let Some(whiteouts) = self.whiteouts.take() {
            whiteouts.make()?;
        }
        for (path, meta) in std::mem::take(&mut self.directories).into_iter().rev() {
            if fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir()) {
                self.finish_one(&path, meta, true)?;
            }
        }
        Ok(())
    }
}

/// Devices are the sandbox's to give: those that every image brings in `/dev` are left out, others
/// are no accident.
fn device(path: &Path) -> io::Result<()> {
    if path.starts_with("/dev") { Ok(()) } else { Err(refuse_entry(path, "is a device node")) }
}

/// The absolute path of an entry, which must not step upwards.
fn inner_path(path: &Path) -> io::Result<PathBuf> {
    let mut inner = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => inner.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(refuse_entry(path, "leads out of the image"));
            }
        }
    }
    Ok(inner)
}

fn copy(from: &mut impl Read, to: &mut File) -> io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(n) => {
                to.write_all(&buffer[..n])?;
                total += n as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn refuse(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn refuse_entry(path: &Path, reason: &str) -> io::Error {
    refuse(&format!("entry `{}` {reason}", path.display()))
}
