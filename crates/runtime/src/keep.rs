//! The keeper: a helper process that runs a program (a runtime, a virtual machine) so that nothing of
//! it outlives its ExeUnit.
//!
//! The program becomes part of a pid namespace whose first process dies with the keeper, which dies
//! with the ExeUnit; the kernel then ends whatever the program has started.

use std::{
    ffi::OsString,
    fs, io,
    io::Read,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStringExt, process::CommandExt},
    },
    path::PathBuf,
    process::{Command, exit},
};

use gvpn_vnic::Child;
use nix::{
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, getegid, geteuid},
};
use serde::{Deserialize, Serialize};

use crate::{Helper, cage::Cage};

/// Environment variable with the [`Order`].
const ORDER: &str = "GVPN_KEEP";

/// What a keeper is to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) program: PathBuf,
    /// Arguments, as bytes.
    pub(crate) args: Vec<Vec<u8>>,
    /// Whether the program's standard output is its standard input's socket too.
    pub(crate) output_to_input: bool,
    /// What it is shut in, and its complaints with it: they go where its output goes.
    pub(crate) cage: Option<Cage>,
}

/// Starts a keeper for a program; the socket is the program's standard input. `prepare` sees the
/// command before it is spawned.
pub(crate) async fn start(
    helper: &Helper,
    order: &Order,
    prepare: impl FnOnce(&mut Command) -> io::Result<()>,
) -> io::Result<(Child, OwnedFd)> {
    let order = OsString::from_vec(serde_json::to_vec(order)?);
    let spawned = helper.spawn("keep", |command| {
        command.envs(std::env::vars_os()).env(ORDER, order);
        prepare(command)
    });
    spawned.await
}

/// Entry point of a keeper: runs the program with standard input and output joined to the socket that
/// is this process's standard input, and ends as it does.
pub(crate) fn keep_main() -> io::Result<()> {
    let order = std::env::var_os(ORDER).ok_or(io::ErrorKind::InvalidInput)?;
    let order: Order = serde_json::from_slice(&order.into_vec())?;
    if order.output_to_input {
        nix::unistd::dup2_stdout(io::stdin())?;
    }
    if !has_own_pids() {
        // Without a pid namespace orphans of the runtime at least come to this process.
        prctl::set_child_subreaper(true)?;
    }
    if order.cage.is_some() {
        // Who breaks out of the program must not find a way through its keepers.
        prctl::set_dumpable(false)?;
    }
    let (mut wait, held) = io::pipe()?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            let status = wait_for(child);
            drop(held);
            exit(status)
        }
        ForkResult::Child => {
            drop(held);
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            first(&mut wait, &order)
        }
    }
}

/// The first process of the pid namespace: starts the program, buries orphans, ends with it.
fn first(keeper: &mut io::PipeReader, order: &Order) -> io::Result<()> {
    // A keeper that died before the death signal was asked for has closed its end.
    nix::fcntl::fcntl(&*keeper, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
    if keeper.read(&mut [0]).is_ok() {
        return Ok(());
    }
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => exit(wait_for(child)),
        ForkResult::Child => {
            let args = order.args.iter().cloned().map(OsString::from_vec);
            let mut command = Command::new(&order.program);
            command.args(args).env_remove(ORDER);
            if let Some(cage) = &order.cage {
                nix::unistd::dup2_stderr(io::stdin())?;
                command.env_clear().envs(cage.environment());
                if let Err(e) = cage.enter() {
                    eprintln!("it cannot be shut in: {e}");
                    exit(1);
                }
            }
            let error = command.exec();
            eprintln!("{}: {error}", order.program.display());
            Err(error)
        }
    }
}

/// Moves the children to come into a pid namespace; whether the host allows it.
fn has_own_pids() -> bool {
    if unshare(CloneFlags::CLONE_NEWPID).is_ok() {
        return true;
    }
    let (uid, gid) = (geteuid(), getegid());
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID;
    if unshare(flags).is_err() {
        return false;
    }
    let _ = fs::write("/proc/self/setgroups", "deny");
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).is_ok()
        && fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).is_ok()
}

/// Waits for a child, burying others on the way; its exit code as a shell tells it.
fn wait_for(child: Pid) -> i32 {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return 128 + signal as i32,
            Err(nix::Error::ECHILD) => return 1,
            _ => {}
        }
    }
}
