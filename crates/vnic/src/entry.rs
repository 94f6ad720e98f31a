//! Entering a namespace between fork and exec.

use std::{
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
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
    enter(command, pidfd, users, as_caller);
    Ok(())
}

/// Makes `command` enter the namespaces of the process that `pidfd` means, when it is spawned.
pub(crate) fn enter(command: &mut Command, pidfd: OwnedFd, users: bool, as_caller: bool) {
    // SAFETY: plain system calls.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let maps = as_caller.then(|| (format!("{uid} 0 1"), format!("{gid} 0 1")));
    let join = move || {
        let kinds = libc::CLONE_NEWNET | if users { libc::CLONE_NEWUSER } else { 0 };
        // SAFETY: plain system call on a descriptor that the closure owns.
        check(unsafe { libc::setns(pidfd.as_raw_fd(), kinds) })?;
        if !users {
            return Ok(());
        }
        become_root()?;
        match &maps {
            Some((uids, gids)) => become_caller(uids.as_bytes(), gids.as_bytes()),
            None => Ok(()),
        }
    };
    // SAFETY: the closure makes only async-signal-safe system calls and allocates nothing.
    unsafe { command.pre_exec(join) };
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

fn write(path: &std::ffi::CStr, text: &[u8]) -> io::Result<()> {
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
