//! The init process: first of the payload's pid namespace, ancestor and reaper of everything in it.

mod confine;
mod files;
mod mounts;
mod process;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use gvpn_vnic::channel::Channel;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork, sethostname},
};

use super::protocol::{Done, Order, Request, Response, Setup, Started};
use crate::Exit;
use files::NameFiles;
use process::Launcher;

/// How long processes have between the request to end and the end.
const GRACE: Duration = Duration::from_secs(2);

/// Entry point of the init process; standard input is its channel, the working directory holds
/// `lower`, `upper`, `work` and `root`.
pub(crate) fn init_main() -> io::Result<()> {
    let mut channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
    let Some((setup, _)) = channel.receive::<Setup>()? else { return Ok(()) };
    let kinds = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    if let Err(e) = unshare(kinds) {
        return channel.send(&Started::Err(format!("cannot make its namespaces: {e}")), vec![]);
    }
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            drop(channel);
            stand_by(child)
        }
        ForkResult::Child => {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            nix::unistd::setsid()?;
            serve(channel, setup)
        }
    }
}

/// Outside the pid namespace: lets go of the channel and waits for init.
fn stand_by(init: Pid) -> io::Result<()> {
    release_stdin()?;
    loop {
        match waitpid(init, None) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
    }
}

/// The channel must have one holder, or its end would go unnoticed.
fn release_stdin() -> io::Result<()> {
    let null = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(())
}

fn serve(channel: Channel, setup: Setup) -> io::Result<()> {
    release_stdin()?;
    let init = match Init::set_up(channel.as_fd(), setup) {
        Ok(init) => init,
        Err(e) => {
            return channel.send(&Started::Err(format!("cannot set the sandbox up: {e}")), vec![]);
        }
    };
    channel.send(&Started::Ok(()), vec![])?;
    init.run(channel)
}

struct Init {
    signals: SignalFd,
    names: NameFiles,
    launcher: Launcher,
    running: HashMap<Pid, u64>,
}

impl Init {
    fn set_up(channel: impl AsFd, setup: Setup) -> io::Result<Self> {
        // What only init may see must stay hidden from payload processes of the same user.
        nix::sys::prctl::set_dumpable(false)?;
        let names = mounts::set_up(&setup)?;
        sethostname(&setup.names.hostname)?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let _ = channel;
        let launcher = Launcher::new(&setup);
        Ok(Self { signals, names, launcher, running: HashMap::new() })
    }

    fn run(mut self, mut channel: Channel) -> io::Result<()> {
        loop {
            let mut fds = [
                PollFd::new(channel.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let asked = fds[0].any() == Some(true);
            self.reap(&channel)?;
            if !asked {
                continue;
            }
            if channel.fill()? == 0 {
                return Ok(());
            }
            while let Some((Request { id, order }, fds)) = channel.take()? {
                if matches!(order, Order::Stop) {
                    return self.stop();
                }
                if let Some((outcome, fds)) = self.obey(id, order, fds) {
                    channel.send(&Response { id, outcome }, fds)?;
                }
            }
        }
    }

    /// Answers now, or not yet: a program that runs is answered for when it ends.
    fn obey(
        &mut self,
        id: u64,
        order: Order,
        fds: Vec<OwnedFd>,
    ) -> Option<(Result<Done, String>, Vec<OwnedFd>)> {
        let outcome = match order {
            Order::Run(program) => match self.launcher.launch(&program, fds) {
                Ok(pid) => {
                    self.running.insert(pid, id);
                    return None;
                }
                Err(e) => Err(e.to_string()),
            },
            Order::Open { path, access } => match files::open(&path, access) {
                Ok(file) => return Some((Ok(Done::Opened), vec![file.into()])),
                Err(e) => Err(e.to_string()),
            },
            Order::Rename(names) => sethostname(&names.hostname)
                .map_err(io::Error::from)
                .and_then(|()| self.names.write(&names))
                .map(|()| Done::Renamed)
                .map_err(|e| e.to_string()),
            Order::Usage => Ok(process::usage()),
            Order::Stop => return None,
        };
        Some((outcome, vec![]))
    }

    fn reap(&mut self, channel: &Channel) -> io::Result<()> {
        while self.signals.read_signal()?.is_some() {}
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Exit::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Exit::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            if let Some(id) = self.running.remove(&pid) {
                channel.send(&Response { id, outcome: Ok(Done::Exited(exit)) }, vec![])?;
            }
        }
    }

    /// Asks every process to end; when init ends after that, the kernel ends the rest.
    fn stop(self) -> io::Result<()> {
        let everyone = Pid::from_raw(-1);
        if kill(everyone, Signal::SIGTERM) == Err(Errno::ESRCH) {
            return Ok(());
        }
        let _ = kill(everyone, Signal::SIGCONT);
        let deadline = Instant::now() + GRACE;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return Ok(()),
                Ok(WaitStatus::StillAlive) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(());
                    }
                    let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
                    let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
                    let _ = poll(&mut fds, left);
                    let _ = self.signals.read_signal();
                }
                _ => {}
            }
        }
    }
}
