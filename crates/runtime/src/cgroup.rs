//! Control groups, where the host grants them: limits and figures for a payload as a whole.
//!
//! Version 2 is used where the present user may make groups (root, or a delegated subtree), version 1
//! where root finds its controllers. Without either, limits per process and sums over `/proc` must do.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

use gvpn_model::ActivityId;

use crate::{Limits, limits::PROCESSES};

/// The directory of all activities' groups below a hierarchy's base.
const PARENT: &str = "gvpn";
/// Where the processes of a delegated subtree go: a group with children may hold none itself.
const SUPERVISOR: &str = "gvpn-supervisor";
const PERIOD_US: f64 = 100_000.0;

/// A payload's group.
#[derive(Debug)]
pub(crate) struct Cgroup {
    version: Version,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    cpu: Option<PathBuf>,
    accounting: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroup {
    /// Makes the group of an activity with these limits; `None` where the host does not grant it.
    pub(crate) fn create(activity: ActivityId, limits: &Limits) -> Option<Self> {
        let name = activity.to_string();
        let mounts = Mounts::read();
        let group = version_2(&mounts, &name).or_else(|| version_1(&mounts, &name))?;
        group.limit(limits);
        Some(group)
    }

    /// Puts a process, and all it will start, into the group.
    pub(crate) fn add(&self, pid: u32) -> io::Result<()> {
        self.directories()
            .iter()
            .try_for_each(|directory| fs::write(directory.join("cgroup.procs"), pid.to_string()))
    }

    /// Files through which a process joins by writing `0`: it may do so where it could not open them.
    pub(crate) fn doors(&self) -> Vec<File> {
        let open = |directory: &&PathBuf| {
            OpenOptions::new().write(true).open(directory.join("cgroup.procs")).ok()
        };
        self.directories().iter().filter_map(open).collect()
    }

    /// Whether the group bounds memory, so that processes need no bounds of their own.
    pub(crate) fn bounds_memory(&self) -> bool {
        self.memory.is_some()
    }

    /// Processor seconds used so far.
    pub(crate) fn cpu_sec(&self) -> Option<f64> {
        let directory = self.accounting.as_ref()?;
        match self.version {
            Version::One => Some(number(&directory.join("cpuacct.usage"))? as f64 / 1e9),
            Version::Two => {
                let text = fs::read_to_string(directory.join("cpu.stat")).ok()?;
                let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
                Some(line.parse::<u64>().ok()? as f64 / 1e6)
            }
        }
    }

    /// Bytes of memory in use.
    pub(crate) fn memory(&self) -> Option<u64> {
        let directory = self.memory.as_ref()?;
        match self.version {
            Version::One => number(&directory.join("memory.usage_in_bytes")),
            Version::Two => number(&directory.join("memory.current")),
        }
    }

    /// A limit that the kernel does not take is left to those per process.
    fn limit(&self, limits: &Limits) {
        let set = |directory: &Option<PathBuf>, file: &str, value: String| {
            if let Some(directory) = directory {
                let _ = fs::write(directory.join(file), value);
            }
        };
        if let Some(bytes) = limits.memory {
            match self.version {
                Version::One => {
                    set(&self.memory, "memory.limit_in_bytes", bytes.to_string());
                    set(&self.memory, "memory.memsw.limit_in_bytes", bytes.to_string());
                }
                Version::Two => {
                    set(&self.memory, "memory.max", bytes.to_string());
                    set(&self.memory, "memory.swap.max", "0".to_owned());
                }
            }
        }
        // Init and its keeper are in the group too.
        let processes = limits.processes.unwrap_or(PROCESSES).saturating_add(2);
        set(&self.pids, "pids.max", processes.to_string());
        if let Some(cores) = limits.cpu_cores.filter(|cores| *cores > 0.0) {
            let quota = (cores * PERIOD_US) as u64;
            match self.version {
                Version::One => set(&self.cpu, "cpu.cfs_quota_us", quota.to_string()),
                Version::Two => set(&self.cpu, "cpu.max", format!("{quota} {PERIOD_US}")),
            }
        }
    }

    fn directories(&self) -> Vec<&PathBuf> {
        let mut all: Vec<&PathBuf> =
            [&self.memory, &self.pids, &self.cpu, &self.accounting].into_iter().flatten().collect();
        all.dedup();
        all
    }
}

/// Removes the groups of an activity, which has ended; `None`: of all that have.
pub fn remove_groups(activity: Option<ActivityId>) {
    let mounts = Mounts::read();
    let bases = mounts.0.iter().flat_map(|mount| [Some(mount.root.clone()), mount.own()]);
    for parent in bases.flatten().map(|base| base.join(PARENT)) {
        match activity {
            Some(activity) => drop(fs::remove_dir(parent.join(activity.to_string()))),
            // Those that still hold processes stay: the kernel sees to that.
            None => fs::read_dir(&parent).into_iter().flatten().flatten().for_each(|entry| {
                let _ = fs::remove_dir(entry.path());
            }),
        }
        let _ = fs::remove_dir(&parent);
    }
}

fn version_2(mounts: &Mounts, name: &str) -> Option<Cgroup> {
    let mount = mounts.0.iter().find(|mount| mount.controllers.is_none())?;
    let base = if nix::unistd::geteuid().is_root() { mount.root.clone() } else { mount.own()? };
    let available = fs::read_to_string(base.join("cgroup.controllers")).ok()?;
    let wanted: Vec<&str> =
        ["memory", "pids", "cpu"].into_iter().filter(|c| available.contains(c)).collect();
    if !wanted.contains(&"memory") {
        return None;
    }
    let parent = base.join(PARENT);
    enable(&base, &wanted)
        .or_else(|_| make_leaf(&base).and_then(|()| enable(&base, &wanted)))
        .ok()?;
    fs::create_dir_all(&parent).ok()?;
    enable(&parent, &wanted).ok()?;
    let directory = parent.join(name);
    fs::create_dir_all(&directory).ok()?;
    let has = |controller| wanted.contains(&controller).then(|| directory.clone());
    Some(Cgroup {
        version: Version::Two,
        memory: has("memory"),
        pids: has("pids"),
        cpu: has("cpu"),
        accounting: Some(directory.clone()),
    })
}

fn enable(directory: &Path, controllers: &[&str]) -> io::Result<()> {
    let text: Vec<String> = controllers.iter().map(|c| format!("+{c}")).collect();
    fs::write(directory.join("cgroup.subtree_control"), text.join(" "))
}

/// Moves the processes of a delegated group into a leaf.
fn make_leaf(base: &Path) -> io::Result<()> {
    let leaf = base.join(SUPERVISOR);
    fs::create_dir_all(&leaf)?;
    for pid in fs::read_to_string(base.join("cgroup.procs"))?.lines() {
        fs::write(leaf.join("cgroup.procs"), pid)?;
    }
    Ok(())
}

fn version_1(mounts: &Mounts, name: &str) -> Option<Cgroup> {
    let make = |controller: &str| {
        let has = |mount: &&Mount| mount.controllers.iter().flatten().any(|c| c == controller);
        let directory = mounts.0.iter().find(has)?.root.join(PARENT).join(name);
        fs::create_dir_all(&directory).ok()?;
        Some(directory)
    };
    let group = Cgroup {
        version: Version::One,
        memory: make("memory"),
        pids: make("pids"),
        cpu: make("cpu"),
        accounting: make("cpuacct"),
    };
    (!group.directories().is_empty()).then_some(group)
}

/// The mounted hierarchies.
struct Mounts(Vec<Mount>);

struct Mount {
    root: PathBuf,
    /// Of version 1; `None`: version 2.
    controllers: Option<Vec<String>>,
    /// The present process's group, as a path in the hierarchy.
    group: Option<String>,
}

impl Mount {
    /// The present process's group, as a directory.
    fn own(&self) -> Option<PathBuf> {
        Some(self.root.join(self.group.as_ref()?.trim_start_matches('/')))
    }
}

impl Mounts {
    fn read() -> Self {
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self(mounts.lines().filter_map(|line| read_mount(line, &groups)).collect())
    }
}

fn read_mount(line: &str, groups: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let root = PathBuf::from(place.split(' ').nth(4)?);
    let mut kind = kind.split(' ');
    let controllers = match kind.next()? {
        "cgroup2" => None,
        "cgroup" => Some(kind.nth(1)?.split(',').map(str::to_owned).collect::<Vec<_>>()),
        _ => return None,
    };
    let group = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (of, path) = (fields.next()?, fields.next()?);
        let is_it = match &controllers {
            None => of.is_empty(),
            Some(all) => !of.is_empty() && of.split(',').all(|c| all.iter().any(|a| a == c)),
        };
        is_it.then(|| path.to_owned())
    });
    Some(Mount { root, controllers, group })
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_both_versions_are_read() {
        let groups = "4:memory:/a\n2:cpu,cpuacct:/b\n0::/user.slice/x\n";
        let one = "35 31 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let both = "32 31 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct";
        let two = "41 31 0:38 / /sys/fs/cgroup rw shared:3 - cgroup2 cgroup2 rw";
        assert_eq!(read_mount(one, groups).unwrap().group.as_deref(), Some("/a"));
        assert_eq!(read_mount(both, groups).unwrap().group.as_deref(), Some("/b"));
        let two = read_mount(two, groups).unwrap();
        assert_eq!(two.own().unwrap(), Path::new("/sys/fs/cgroup/user.slice/x"));
        assert!(read_mount("22 27 0:21 / /proc rw - proc proc rw", groups).is_none());
    }
}
