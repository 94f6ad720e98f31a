//! What every init process does: makes its namespaces, obeys the ExeUnit, reaps, and ends with it.

use std::{
    collections::HashMap,
    fs::File,
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
use serde::de::DeserializeOwned;

use super::protocol::{Done, Order, Request, Response, Setup, Started};
use crate::{Access, Exit, Names, Program, usage};

/// How long processes have between the request to end and the end.
const GRACE: Duration = Duration::from_secs(2);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// What one runtime's init does in its own way.
pub(crate) trait Inside: Sized {
    /// What it has to know beyond the common [`Setup`].
    type More: DeserializeOwned;
    /// Namespaces of its own; a pid namespace among them.
    const NAMESPACES: CloneFlags;

    /// Makes the root. The working directory holds `lower`, `upper`, `work` and `root`.
    fn set_up(setup: Setup<Self::More>) -> io::Result<Self>;

    /// Starts a program with the two descriptors as its output.
    fn launch(&mut self, program: &Program, output: Vec<OwnedFd>) -> io::Result<Pid>;

    /// A process that was launched has ended.
    fn reaped(&mut self, _pid: Pid, _exit: Exit) -> Reaped {
        Reaped::Over
    }

    /// Whether the payload ends with this process.
    fn stands_on(&self, _pid: Pid) -> bool {
        false
    }

    /// Whether none of the payload's programs is left.
    fn is_deserted(&self) -> bool {
        false
    }

    /// Opens a file of the payload; never blocks.
    fn open(&self, path: &str, access: Access) -> io::Result<File>;

    /// Tells the payload its names, the host name excepted.
    fn rename(&mut self, names: &Names) -> io::Result<()>;
}

/// What the end of a launched process means.
pub(crate) enum Reaped {
    /// The program has ended.
    Over,
    /// It has led to the program, which goes on as this process.
    Became(Pid),
    /// The program never ran.
    Failed(String),
}

/// Entry point of the init process; standard input is its channel.
pub(crate) fn init_main<I: Inside>() -> io::Result<()> {
    let mut channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
    let Some((setup, _)) = channel.receive::<Setup<I::More>>()? else { return Ok(()) };
    if let Err(e) = unshare(I::NAMESPACES) {
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
            serve::<I>(channel, setup)
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
    let null = File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    Ok(())
}

fn serve<I: Inside>(channel: Channel, setup: Setup<I::More>) -> io::Result<()> {
    release_stdin()?;
    let init = match Init::<I>::set_up(setup) {
        Ok(init) => init,
        Err(e) => {
            return channel.send(&Started::Err(format!("cannot set the payload up: {e}")), vec![]);
        }
    };
    channel.send(&Started::Ok(()), vec![])?;
    init.run(channel)
}

struct Init<I> {
    inside: I,
    signals: SignalFd,
    /// Processes that requests wait for.
    running: HashMap<Pid, u64>,
    /// How processes ended that no request has asked about yet.
    unclaimed: HashMap<Pid, Exit>,
}

impl<I: Inside> Init<I> {
    fn set_up(setup: Setup<I::More>) -> io::Result<Self> {
        sethostname(&setup.names.hostname)?;
        let inside = I::set_up(setup)?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { inside, signals, running: HashMap::new(), unclaimed: HashMap::new() })
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
            if self.reap(&channel)? {
                return Ok(());
            }
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
            Order::Run(program) => match self.inside.launch(&program, fds) {
                Ok(pid) => {
                    self.running.insert(pid, id);
                    return None;
                }
                Err(e) => Err(e.to_string()),
            },
            Order::Open { path, access } => match self.inside.open(&path, access) {
                Ok(file) => return Some((Ok(Done::Opened), vec![file.into()])),
                Err(e) => Err(e.to_string()),
            },
            Order::Rename(names) => sethostname(&names.hostname)
                .map_err(io::Error::from)
                .and_then(|()| self.inside.rename(&names))
                .map(|()| Done::Renamed)
                .map_err(|e| e.to_string()),
            Order::Usage => {
                let (cpu_sec, memory) = usage::of_all_processes();
                Ok(Done::Used { cpu_sec, memory })
            }
            Order::Stop => return None,
        };
        Some((outcome, vec![]))
    }

    /// Takes in every process that has ended; says whether the payload has ended with one.
    fn reap(&mut self, channel: &Channel) -> io::Result<bool> {
        while self.signals.read_signal()?.is_some() {}
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Exit::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Exit::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(false),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
            };
            if self.inside.stands_on(pid) {
                return Ok(true);
            }
            if let Some((id, outcome)) = self.settle(pid, exit) {
                channel.send(&Response { id, outcome: outcome.map(Done::Exited) }, vec![])?;
            }
            if self.running.is_empty() {
                self.unclaimed.clear();
            }
        }
    }

    fn settle(&mut self, pid: Pid, exit: Exit) -> Option<(u64, Result<Exit, String>)> {
        let Some(id) = self.running.remove(&pid) else {
            self.unclaimed.insert(pid, exit);
            return None;
        };
        match self.inside.reaped(pid, exit) {
            Reaped::Over => Some((id, Ok(exit))),
            Reaped::Failed(reason) => Some((id, Err(reason))),
            Reaped::Became(other) => match self.unclaimed.remove(&other) {
                Some(exit) => Some((id, Ok(exit))),
                None => {
                    self.running.insert(other, id);
                    None
                }
            },
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
                    if left.is_zero() || self.inside.is_deserted() {
                        return Ok(());
                    }
                    let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
                    let left = PollTimeout::try_from(left.min(LOOK)).unwrap_or(PollTimeout::MAX);
                    let _ = poll(&mut fds, left);
                    let _ = self.signals.read_signal();
                }
                _ => {}
            }
        }
    }
}
