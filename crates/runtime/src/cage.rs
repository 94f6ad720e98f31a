//! A cage for a program of the host that a payload may take over, such as a virtual machine: a root with
//! nothing in it but what the program needs, no rights, and no way to get any.
//!
//! Namespaces show it nothing else; Landlock and a filter of system calls hold where a hole in those leads.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        resource::{Resource, setrlimit},
    },
    unistd::chdir,
};
use serde::{Deserialize, Serialize};

use crate::{
    confinement::{fence::fence, filter::refuse_calls, keep_capabilities},
    mounts::{bind, change_root, make_read_only},
};

/// Where the program sees its working directory, which it cannot write to.
pub(crate) const HERE: &str = "/machine";
/// Where it may write.
pub(crate) const SCRATCH: &str = "/scratch";
/// The parts of the working directory that become the root and, on disk, [`SCRATCH`].
pub(crate) const PARTS: [&str; 2] = ["root", "scratch"];

const NO_DATA: Option<&str> = None;
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

/// What is let into a cage.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cage {
    /// Files and directories of the host that are seen where they are, read-only; absent ones are left out.
    pub(crate) shown: Vec<PathBuf>,
    /// Devices of the host beyond those that everybody has.
    pub(crate) devices: Vec<PathBuf>,
    /// Open files from elsewhere, by `/proc/self/fd`, that may be opened again to be read.
    pub(crate) files: Vec<PathBuf>,
    /// Whether it may write to the disk; else [`SCRATCH`] is small and in memory.
    pub(crate) writes: bool,
    /// Whether it is told to have its temporary files there.
    pub(crate) temporary: bool,
    /// Bytes of files in memory (`/dev/shm`).
    pub(crate) memory: u64,
    /// Processes and threads.
    pub(crate) processes: u64,
}

impl Cage {
    /// Shuts the present process in for good, which has one thread, is root of a user namespace and in a pid
    /// namespace of its own. Its working directory, a payload's, has the [`PARTS`].
    ///
    /// # Errors
    /// What the host does not allow; the process is then of no more use.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let kinds = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP;
        named("namespaces", || Ok(unshare(kinds)?))?;
        named("its root", || self.build_root())?;
        named("its root", || change_root(Path::new("root")))?;
        chdir(HERE)?;
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        setrlimit(Resource::RLIMIT_NPROC, self.processes, self.processes)?;
        named("capabilities", || keep_capabilities(&[]))?;
        prctl::set_no_new_privs()?;
        named("Landlock", || {
            fence(Path::new("/"), Path::new("/dev"), &self.files).map_err(io::Error::other)?;
            Ok(())
        })?;
        named("the filter of system calls", refuse_calls)
    }

    /// The environment of what runs in it: nothing of the host's.
    pub(crate) fn environment(&self) -> Vec<(&'static str, &'static str)> {
        let temporary = self.temporary.then_some(("TMPDIR", SCRATCH));
        [("HOME", SCRATCH)].into_iter().chain(temporary).collect()
    }

    fn build_root(&self) -> io::Result<()> {
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(NO_DATA, "/", NO_DATA, private, NO_DATA)?;
        let root = Path::new("root");
        tmpfs(root, "mode=755,size=1m")?;
        for path in &self.shown {
            if let Some(place) = show(path, root)? {
                named(&path.display().to_string(), || make_read_only(&place))?;
            }
        }
        for device in DEVICES.map(PathBuf::from).iter().chain(&self.devices) {
            show(device, root)?;
        }
        self.mount_places(root)?;
        named("/proc", || mount_proc(&root.join("proc")))?;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | FLAGS;
        Ok(mount(NO_DATA, root, NO_DATA, flags, NO_DATA)?)
    }

    fn mount_places(&self, root: &Path) -> io::Result<()> {
        let shared = root.join("dev/shm");
        fs::create_dir_all(&shared)?;
        tmpfs(&shared, &format!("mode=1777,size={}", self.memory))?;
        let [here, scratch] = [HERE, SCRATCH].map(|path| root.join(path.trim_start_matches('/')));
        fs::create_dir(&here)?;
        fs::create_dir(&scratch)?;
        if self.writes {
            bind(Path::new("scratch"), &scratch)?;
        } else {
            tmpfs(&scratch, "mode=755,size=1m")?;
        }
        // Not what is mounted in it: that is the root.
        mount(Some("."), &here, NO_DATA, MsFlags::MS_BIND, NO_DATA)?;
        make_read_only(&here)
    }
}

const FLAGS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);

fn tmpfs(place: &Path, options: &str) -> io::Result<()> {
    Ok(mount(Some("tmpfs"), place, Some("tmpfs"), FLAGS, Some(options))?)
}

/// A `/proc` with nothing but the processes of the cage, which is how it comes to its open files.
fn mount_proc(place: &Path) -> io::Result<()> {
    fs::create_dir(place)?;
    let flags = FLAGS | MsFlags::MS_NOEXEC;
    // Kernels before 5.8 know no parts of it. The keeper, which has rights, is not among its processes.
    let attempt = |options| mount(Some("proc"), place, Some("proc"), flags, options);
    Ok(attempt(Some("subset=pid,hidepid=ptraceable")).or_else(|_| attempt(None))?)
}

/// Shows something of the host in the new root; where.
fn show(path: &Path, root: &Path) -> io::Result<Option<PathBuf>> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
    let place = root.join(path.strip_prefix("/").unwrap_or(path));
    if metadata.is_dir() {
        fs::create_dir_all(&place)?;
    } else {
        fs::create_dir_all(place.parent().unwrap_or(root))?;
        File::create(&place)?;
    }
    named(&path.display().to_string(), || bind(path, &place))?;
    Ok(Some(place))
}

fn named<T>(what: &str, how: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    how().map_err(|e| io::Error::new(e.kind(), format!("{what}: {e}")))
}
