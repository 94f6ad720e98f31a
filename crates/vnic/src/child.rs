//! Child processes that die with their parent.

use std::{
    io,
    os::{
        fd::{AsFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, ExitStatus, Stdio},
    sync::{OnceLock, mpsc},
    thread,
};

use nix::sys::{
    signal::Signal,
    wait::{Id, WaitPidFlag, WaitStatus, waitid},
};
use tokio::io::unix::AsyncFd;

use crate::channel;

type Job = Box<dyn FnOnce() + Send>;

/// A child process holding one end of a [`channel`] as its standard input. It is killed when the
/// thread that keeps children ends, which is when this process ends; and when this handle is dropped.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: OwnedFd,
    reaped: bool,
}

impl Child {
    /// Spawns `command` with one end of a new channel as its standard input and returns the other.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub async fn spawn(mut command: Command) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = channel::pair()?;
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null());
        die_with_parent(&mut command);
        let (answer, spawned) = tokio::sync::oneshot::channel();
        let job: Job = Box::new(move || {
            let _ = answer.send(Self::spawn_here(command));
        });
        keeper().send(job).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let child = spawned.await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
        Ok((child, ours))
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A descriptor of the process: readable when it has ended, good for `setns(2)`.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        send_signal(&self.pidfd, signal);
    }

    /// Waits for the end of the process and says how it ended.
    ///
    /// # Errors
    /// When the process cannot be watched.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        // SAFETY: the descriptor is the task's own, and stays open as long as it is watched.
        let watched = unsafe { AsyncFd::register(self.pidfd.try_clone()?) }?;
        let _ended = watched.readable().await?;
        let status = waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED)?;
        self.reaped = true;
        Ok(exit_status(status))
    }

    fn spawn_here(mut command: Command) -> io::Result<Self> {
        let pid = command.spawn()?.id();
        // SAFETY: plain system call; the child has not been waited for, so the id is still its own.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor that the kernel has just made for us.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Self { pid, pidfd, reaped: false })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        self.signal(Signal::SIGKILL);
        if let Ok(pidfd) = self.pidfd.try_clone() {
            let _ = reaper().send(pidfd);
        }
    }
}

fn send_signal(pidfd: &OwnedFd, signal: Signal) {
    use std::os::fd::AsRawFd;
    // SAFETY: plain system call on a descriptor that we own; a null siginfo is allowed.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as i32,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        );
    }
}

fn exit_status(status: WaitStatus) -> ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    ExitStatus::from_raw(match status {
        WaitStatus::Exited(_, code) => code << 8,
        WaitStatus::Signaled(_, signal, _) => signal as i32,
        _ => 0,
    })
}

fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: only async-signal-safe system calls between fork and exec.
    unsafe {
        command.pre_exec(move || {
            libc::setsid();
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::getppid() as u32 != parent {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
}

/// The thread that spawns: a parent's death signal fires when the spawning *thread* ends, and a
/// runtime's worker threads come and go.
fn keeper() -> mpsc::Sender<Job> {
    static KEEPER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    KEEPER
        .get_or_init(|| {
            let (sender, jobs) = mpsc::channel::<Job>();
            thread::spawn(move || jobs.into_iter().for_each(|job| job()));
            sender
        })
        .clone()
}

/// The thread that waits for killed children whose handles are gone.
fn reaper() -> mpsc::Sender<OwnedFd> {
    static REAPER: OnceLock<mpsc::Sender<OwnedFd>> = OnceLock::new();
    REAPER
        .get_or_init(|| {
            let (sender, children) = mpsc::channel::<OwnedFd>();
            thread::spawn(move || {
                for pidfd in children {
                    while waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED)
                        == Err(nix::Error::EINTR)
                    {}
                }
            });
            sender
        })
        .clone()
}
