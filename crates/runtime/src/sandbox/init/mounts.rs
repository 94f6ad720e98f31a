//! The payload's file system.
//!
//! Everything is mounted before the root changes, onto descriptors resolved inside the new root
//! (`RESOLVE_IN_ROOT`): a link in the image cannot lead a mount astray.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::symlink,
    },
    path::Path,
};

use nix::{
    fcntl::OFlag,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat},
};

use crate::{
    confinement::{PROC_HIDDEN, PROC_READ_ONLY, TTY_GROUP},
    init::{NameFiles, Setup},
    layers::mount_root,
    mounts::{bind, change_root},
    rooted::{Root, fd_path},
};

const NO_DATA: Option<&str> = None;
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Builds the root and goes there.
pub(super) fn set_up(setup: &Setup<()>) -> io::Result<NameFiles> {
    let names = named("root", mount_root(setup.layers)).and_then(|()| {
        let root = Root::at("root")?;
        named("/proc", root.mount_proc())?;
        named("/sys", root.mount_sys())?;
        named("/dev", root.mount_dev(setup))?;
        let names = named("/etc", root.mount_names(setup))?;
        named("/tmp", root.mount_tmp(setup))?;
        Ok(names)
    })?;
    named("the root", change_root(Path::new("root")))?;
    Ok(names)
}

fn named<T>(what: &str, outcome: io::Result<T>) -> io::Result<T> {
    outcome.map_err(|e| io::Error::new(e.kind(), format!("{what}: {e}")))
}

impl Root {
    /// A directory to mount onto, made if absent; the result keeps its path alive.
    fn directory(&self, path: &str) -> io::Result<Place> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        if let Ok(found) = self.open(path, flags) {
            return Ok(Place(found));
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("/", path));
        let parent = self.directory(parent)?;
        // A dangling link or a file in the way goes: it is the payload's own layer.
        let _ =
            nix::unistd::unlinkat(parent.0.as_fd(), name, nix::unistd::UnlinkatFlags::NoRemoveDir);
        mkdirat(parent.0.as_fd(), name, Mode::from_bits_truncate(0o755))?;
        self.open(path, flags).map(Place)
    }

    /// A file to mount onto, made if absent.
    fn file(&self, directory: &str, name: &str) -> io::Result<Place> {
        let path = format!("{directory}/{name}");
        if let Ok(found) = self.open(&path, OFlag::O_PATH) {
            return Ok(Place(found));
        }
        let parent = self.directory(directory)?;
        let _ =
            nix::unistd::unlinkat(parent.0.as_fd(), name, nix::unistd::UnlinkatFlags::NoRemoveDir);
        drop(self.open(&path, OFlag::O_CREAT | OFlag::O_WRONLY)?);
        self.open(&path, OFlag::O_PATH).map(Place)
    }

    fn mount_proc(&self) -> io::Result<()> {
        let place = self.directory("proc")?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        if mount(Some("proc"), place.path().as_str(), Some("proc"), flags, NO_DATA).is_err() {
            // A host that hides parts of its own /proc lets nobody mount another: the payload goes
            // without rather than see the host's.
            return Ok(());
        }
        for name in PROC_READ_ONLY {
            let Ok(part) = self.open(&format!("proc/{name}"), OFlag::O_PATH) else { continue };
            let part = Place(part);
            bind(Path::new(&part.path()), Path::new(&part.path()))?;
            let again = self.open(&format!("proc/{name}"), OFlag::O_PATH)?;
            remount(&Place(again).path(), flags | MsFlags::MS_RDONLY)?;
        }
        for name in PROC_HIDDEN {
            let Ok(part) = self.open(&format!("proc/{name}"), OFlag::O_PATH) else { continue };
            bind(Path::new("/dev/null"), Path::new(&Place(part).path()))?;
        }
        Ok(())
    }

    fn mount_sys(&self) -> io::Result<()> {
        let place = self.directory("sys")?;
        let flags =
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
        // As with /proc; few programs miss it.
        let _ = mount(Some("sysfs"), place.path().as_str(), Some("sysfs"), flags, NO_DATA);
        Ok(())
    }

    fn mount_dev(&self, setup: &Setup<()>) -> io::Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        tmpfs(&self.directory("dev")?, flags, "mode=755,size=1m,nr_inodes=4096")?;
        for device in DEVICES {
            let place = self.file("dev", device)?;
            bind(Path::new(&format!("/dev/{device}")), Path::new(&place.path()))?;
        }
        let pts = self.directory("dev/pts")?;
        let group = if setup.own_ids { format!(",gid={TTY_GROUP}") } else { String::new() };
        let options = format!("newinstance,ptmxmode=0666,mode=0620{group}");
        mount(Some("devpts"), pts.path().as_str(), Some("devpts"), flags, Some(options.as_str()))?;
        let shared = format!("mode=1777,size={}", part_of_memory(setup, 4));
        tmpfs(&self.directory("dev/shm")?, flags | MsFlags::MS_NODEV, &shared)?;
        let dev = self.directory("dev")?;
        let links = [
            ("pts/ptmx", "ptmx"),
            ("/proc/self/fd", "fd"),
            ("/proc/self/fd/0", "stdin"),
            ("/proc/self/fd/1", "stdout"),
            ("/proc/self/fd/2", "stderr"),
        ];
        links
            .iter()
            .try_for_each(|(target, name)| symlink(target, format!("{}/{name}", dev.path())))
    }

    /// Mounts init's own files over the image's.
    fn mount_names(&self, setup: &Setup<()>) -> io::Result<NameFiles> {
        let place = self.directory("tmp")?;
        tmpfs(&place, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=755,size=8m")?;
        let source = Root::at(self.directory("tmp")?.path())?;
        let directory = fd_path(source.as_fd());
        let files = NameFiles::make(Path::new(&directory), &setup.names)?;
        for name in NameFiles::NAMES {
            let place = self.file("etc", name)?;
            bind(Path::new(&format!("{directory}/{name}")), Path::new(&place.path()))?;
        }
        umount2(fd_path(source.as_fd()).as_str(), MntFlags::MNT_DETACH)?;
        Ok(files)
    }

    fn mount_tmp(&self, setup: &Setup<()>) -> io::Result<()> {
        let place = self.directory("tmp")?;
        let size = part_of_memory(setup, 2);
        tmpfs(&place, MsFlags::MS_NOSUID | MsFlags::MS_NODEV, &format!("mode=1777,size={size}"))?;
        let place = self.directory("tmp")?;
        Ok(fchmodat(
            nix::fcntl::AT_FDCWD,
            place.path().as_str(),
            Mode::from_bits_truncate(0o1777),
            FchmodatFlags::FollowSymlink,
        )?)
    }
}

/// A size for files in memory: full, they leave room for programs.
fn part_of_memory(setup: &Setup<()>, part: u64) -> String {
    let bytes = setup.limits.memory.map(|bytes| (bytes / part).to_string());
    bytes.unwrap_or_else(|| format!("{}%", 100 / part))
}

/// A place to mount onto.
struct Place(OwnedFd);

impl Place {
    fn path(&self) -> String {
        fd_path(self.0.as_fd())
    }
}

fn tmpfs(place: &Place, flags: MsFlags, options: &str) -> io::Result<()> {
    Ok(mount(Some("tmpfs"), place.path().as_str(), Some("tmpfs"), flags, Some(options))?)
}

fn remount(place: &str, flags: MsFlags) -> io::Result<()> {
    let flags = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    Ok(mount(NO_DATA, place, NO_DATA, flags, NO_DATA)?)
}
