//! Entering the namespaces and giving user ids a meaning there.

use std::{
    fs, io,
    io::{Read, Write},
    process::Command,
};

use nix::{
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Gid, Pid, Uid, User, fork, getegid, geteuid, getpid},
};

use crate::IdRange;

/// Where root's range begins when `/etc/subuid` names none: the range that systemd, too, leaves to
/// containers.
const ROOT_BASE: u32 = 0x2000_0000;
/// How many ids a full range has.
const FULL: u32 = 65_536;

pub(super) struct Entered {
    /// Ids that exist inside, counted from 0.
    pub(super) ids: u32,
    /// User and group that root inside is outside.
    pub(super) root: (u32, u32),
    pub(super) own_user_namespace: bool,
}

/// Leaves for a new user and network namespace; the error says why the host does not allow it.
pub(super) fn enter(range: IdRange) -> Result<Entered, String> {
    let (uid, gid) = (geteuid(), getegid());
    let plan = match range {
        IdRange::Single => None,
        IdRange::Full => Plan::find(uid, gid),
    };
    let mapper = plan.as_ref().map(Mapper::start).transpose().map_err(|e| e.to_string())?;
    if let Err(e) = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
        drop(mapper);
        return without_user_namespace(uid, e);
    }
    if let (Some(plan), Some(mapper)) = (plan, mapper)
        && mapper.map()
    {
        return Ok(Entered { ids: plan.count(), root: plan.root(), own_user_namespace: true });
    }
    map_self(uid, gid).map_err(|e| format!("its user id cannot be mapped: {e}"))?;
    Ok(Entered { ids: 1, root: (uid.as_raw(), gid.as_raw()), own_user_namespace: true })
}

/// Root can do with a network namespace alone, where user namespaces are switched off.
fn without_user_namespace(uid: Uid, error: nix::Error) -> Result<Entered, String> {
    if uid.is_root() && unshare(CloneFlags::CLONE_NEWNET).is_ok() {
        return Ok(Entered { ids: FULL, root: (0, 0), own_user_namespace: false });
    }
    Err(error.to_string())
}

fn map_self(uid: Uid, gid: Gid) -> io::Result<()> {
    // A group can be dropped by setgroups to gain access that the group is denied; the kernel wants
    // that given up first.
    let _ = fs::write("/proc/self/setgroups", "deny");
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Lines of `uid_map` and `gid_map`: inside, outside, count.
#[derive(Debug)]
struct Plan {
    uids: Vec<[u32; 3]>,
    gids: Vec<[u32; 3]>,
    direct: bool,
}

impl Plan {
    fn find(uid: Uid, gid: Gid) -> Option<Self> {
        if uid.is_root() { Self::for_root() } else { Self::for_user(uid, gid) }
    }

    /// Root's payloads get ids that are nobody's on the host.
    fn for_root() -> Option<Self> {
        let available = Extents::read("/proc/self/uid_map")?;
        let base = subordinate("/etc/subuid", Uid::from_raw(0))
            .filter(|(_, count)| *count >= FULL)
            .map_or(ROOT_BASE, |(start, _)| start);
        let lines = if available.cover(base, FULL) {
            vec![[0, base, FULL]]
        } else {
            vec![[0, 0, available.count_from_zero().min(FULL)]]
        };
        Some(Self { uids: lines.clone(), gids: lines, direct: true })
    }

    fn for_user(uid: Uid, gid: Gid) -> Option<Self> {
        let (uids, uid_count) = subordinate("/etc/subuid", uid)?;
        let (gids, gid_count) = subordinate("/etc/subgid", uid)?;
        let count = uid_count.min(gid_count).min(FULL - 1);
        Some(Self {
            uids: vec![[0, uid.as_raw(), 1], [1, uids, count]],
            gids: vec![[0, gid.as_raw(), 1], [1, gids, count]],
            direct: false,
        })
    }

    fn count(&self) -> u32 {
        self.uids.iter().map(|line| line[2]).sum()
    }

    fn root(&self) -> (u32, u32) {
        (self.uids[0][1], self.gids[0][1])
    }

    fn apply(&self, target: Pid) -> bool {
        if self.direct {
            let write = |file: &str, lines: &[[u32; 3]]| {
                let text: Vec<String> =
                    lines.iter().map(|[a, b, n]| format!("{a} {b} {n}\n")).collect();
                fs::write(format!("/proc/{target}/{file}"), text.concat()).is_ok()
            };
            return write("uid_map", &self.uids) && write("gid_map", &self.gids);
        }
        let run = |program: &str, lines: &[[u32; 3]]| {
            let numbers = lines.iter().flatten().map(u32::to_string);
            let status = Command::new(program).arg(target.to_string()).args(numbers).status();
            status.is_ok_and(|status| status.success())
        };
        run("newuidmap", &self.uids) && run("newgidmap", &self.gids)
    }
}

/// A process that stays in the parent's user namespace, where the mapping may be written.
struct Mapper {
    pid: Pid,
    go: io::PipeWriter,
}

impl Mapper {
    fn start(plan: &Plan) -> io::Result<Self> {
        let target = getpid();
        let (mut wait, go) = io::pipe()?;
        // SAFETY: this process has one thread.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => Ok(Self { pid: child, go }),
            ForkResult::Child => {
                drop(go);
                let mut byte = [0];
                let told = wait.read_exact(&mut byte).is_ok();
                std::process::exit(if told && plan.apply(target) { 0 } else { 1 })
            }
        }
    }

    fn map(mut self) -> bool {
        self.go.write_all(&[1]).is_ok()
            && matches!(waitpid(self.pid, None), Ok(WaitStatus::Exited(_, 0)))
    }
}

/// The first range of subordinate ids that a file of `NAME:START:COUNT` lines gives a user.
fn subordinate(file: &str, uid: Uid) -> Option<(u32, u32)> {
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        if Some(owner) != name.as_deref() && owner != uid.to_string() {
            return None;
        }
        Some((fields.next()?.parse().ok()?, fields.next()?.trim().parse().ok()?))
    })
}

/// The ids that exist in the present user namespace.
struct Extents(Vec<(u32, u32)>);

impl Extents {
    fn read(file: &str) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let extents = text.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            let inside = fields.next()?.parse().ok()?;
            Some((inside, fields.nth(1)?.parse().ok()?))
        });
        Some(Self(extents.collect()))
    }

    fn cover(&self, start: u32, count: u32) -> bool {
        self.0.iter().any(|(inside, n)| {
            start >= *inside
                && u64::from(start) + u64::from(count) <= u64::from(*inside) + u64::from(*n)
        })
    }

    fn count_from_zero(&self) -> u32 {
        self.0.iter().find(|(inside, _)| *inside == 0).map_or(1, |(_, n)| *n)
    }
}
