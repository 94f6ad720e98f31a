//! Entering a namespace between fork and exec.

use std::{
    ffi::{CStr, CString},
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::PathBuf,
    process::Command,
};

/// Makes `command` run in the namespaces of the process `pid`, such as another program's
/// [`Namespace::pid`](crate::Namespace::pid), when it is spawned; as
/// [`Namespace::enter`](crate::Namespace::enter) does for one's own.
///
/// # Errors
/// When there is no such process, or it belongs to someone else.
pub fn enter_process(pid: u32, command: &mut Command, as_caller: bool) -> io::Result<()> {
    // SAFETY: plain system call; the descriptor it returns belongs to nobody else.
    let pidfd = unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0) as i32;
        check(fd)?;
        OwnedFd::from_raw_fd(fd)
    };
    let user = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/user"));
    let users = user(&pid.to_string())? != user("self")?;
    let identity = if as_caller { Identity::Caller } else { Identity::Root };
    enter(command, pidfd, users, identity, vec![]);
    Ok(())
}

/// A directory seen at a second place.
#[derive(Debug, Clone)]
pub struct Bind {
    /// The directory.
    pub from: PathBuf,
    /// Where it is seen too.
    pub to: PathBuf,
}

impl Bind {
    pub(crate) fn as_strings(&self) -> io::Result<(CString, CString)> {
        let string = |path: &PathBuf| CString::new(path.as_os_str().as_bytes());
        Ok((string(&self.from)?, string(&self.to)?))
    }
}

/// Whom an entering process becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Identity {
    Root,
    RootWithMounts,
    Caller,
}

/// Makes `command` enter the namespaces of the process that `pidfd` means, when it is spawned.
pub(crate) fn enter(
    command: &mut Command,
    pidfd: OwnedFd,
    users: bool,
    identity: Identity,
    binds: Vec<(CString, CString)>,
) {
    // SAFETY: plain system calls.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let maps = (format!("{uid} 0 1"), format!("{gid} 0 1"));
    let join = move || {
        let kinds = libc::CLONE_NEWNET | if users { libc::CLONE_NEWUSER } else { 0 };
        // SAFETY: plain system call on a descriptor that the closure owns.
        check(unsafe { libc::setns(pidfd.as_raw_fd(), kinds) })?;
        if identity == Identity::RootWithMounts {
            // Before the change of user: the caller may go through directories that root inside may not.
            unshare_mounts(&binds)?;
        }
        if !users {
            return Ok(());
        }
        become_root()?;
        match identity {
            Identity::Caller => become_caller(maps.0.as_bytes(), maps.1.as_bytes()),
            Identity::Root | Identity::RootWithMounts => Ok(()),
        }
    };
    // SAFETY: the closure makes only async-signal-safe system calls and allocates nothing.
    unsafe { command.pre_exec(join) };
}

fn unshare_mounts(binds: &[(CString, CString)]) -> io::Result<()> {
    let none = std::ptr::null();
    // SAFETY: the strings outlive the calls.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(none, c"/".as_ptr(), none, private, none.cast()))?;
        for (from, to) in binds {
            check(libc::mount(from.as_ptr(), to.as_ptr(), none, libc::MS_BIND, none.cast()))?;
        }
    }
    Ok(())
}

/// Root of the user namespace just joined. Raw system calls: the C library's versions would signal
/// threads that do not exist in this fork.
fn become_root() -> io::Result<()> {
    // SAFETY: plain system calls; the group list is empty.
    unsafe {
        // Forbidden where a single id is mapped, and then there is nothing to drop that would matter.
        libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>());
        check(libc::syscall(libc::SYS_setresgid, 0, 0, 0) as i32)?;
        check(libc::syscall(libc::SYS_setresuid, 0, 0, 0) as i32)
    }
}

/// A user namespace within, in which the caller has its own ids back.
fn become_caller(uids: &[u8], gids: &[u8]) -> io::Result<()> {
    // SAFETY: plain system call.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER) })?;
    write(c"/proc/self/setgroups", b"deny")?;
    write(c"/proc/self/uid_map", uids)?;
    write(c"/proc/self/gid_map", gids)
}

fn write(path: &CStr, text: &[u8]) -> io::Result<()> {
    // SAFETY: path and buffer outlive the calls; the descriptor is ours.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        check(fd)?;
        let written = libc::write(fd, text.as_ptr().cast(), text.len());
        let outcome = check(written as i32);
        libc::close(fd);
        outcome
    }
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
