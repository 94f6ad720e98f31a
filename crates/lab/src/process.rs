//! Processes on hosts.

use std::{
    io,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::LabError;

/// A process on a host; killed when this value is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    pub(crate) fn new(child: Child) -> Self {
        Self { child }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Sends `signal`; a process that is gone is fine.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<(), LabError> {
        match kill(Pid::from_raw(self.child.id().cast_signed()), signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
            Err(e) => Err(LabError::io("sending a signal")(e.into())),
        }
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<(), LabError> {
        self.child.kill().map_err(LabError::io("killing a process"))?;
        self.child.wait().map_err(LabError::io("waiting for a process"))?;
        Ok(())
    }

    /// Sends SIGTERM and waits up to `limit` for the end; `None` when it runs on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn terminate(&mut self, limit: Duration) -> Result<Option<ExitStatus>, LabError> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// Waits up to `limit` for the end; `None` when it runs on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>, LabError> {
        let start = Instant::now();
        loop {
            match self.child.try_wait().map_err(LabError::io("waiting for a process"))? {
                Some(status) => return Ok(Some(status)),
                None if start.elapsed() >= limit => return Ok(None),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let gone = |r: io::Result<Option<ExitStatus>>| matches!(r, Ok(Some(_)));
        if !gone(self.child.try_wait()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl From<Child> for Process {
    /// A process started elsewhere, to be killed when the value is dropped all the same.
    fn from(child: Child) -> Self {
        Self::new(child)
    }
}
