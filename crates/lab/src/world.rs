//! The lab.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::unistd::Uid;

use crate::{Host, LabError, Lan, Line, Nat, Router, Weather, forge::Forge};

/// A world of hosts, LANs and routers. Cheap to clone; it ends with its last clone, host and LAN.
#[derive(Debug, Clone)]
pub struct Lab {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    forge: Forge,
    /// The first namespace's holder, whose user namespace all others share; `None` for root.
    base: Option<Holder>,
    links: AtomicU32,
}

impl Lab {
    /// An empty lab.
    ///
    /// # Errors
    /// [`LabError::Forbidden`] with the system's reason where namespaces are not to be had.
    pub fn new() -> Result<Self, LabError> {
        let forge = Forge::start().map_err(LabError::io("starting a thread"))?;
        let base = if Uid::effective().is_root() {
            None
        } else {
            Some(Holder::start(&forge, Command::new("unshare"), &["-Urn"])?)
        };
        let inner = Inner { forge, base, links: AtomicU32::new(0) };
        let lab = Self { inner: Arc::new(inner) };
        lab.hold()?;
        Ok(lab)
    }

    /// A new host: a network namespace with a loopback interface that is up.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn host(&self, name: &str) -> Result<Host, LabError> {
        let host = Host::new(self.clone(), name, self.hold()?)?;
        host.ip(["link", "set", "lo", "up"])?;
        Ok(host)
    }

    /// A new LAN: an Ethernet bridge in a namespace of its own.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn lan(&self) -> Result<Lan, LabError> {
        Lan::new(self.host("lan")?)
    }

    /// A new NAT router: `outside` is its address on `wan`, `inside` its address on the new LAN
    /// behind it, both in CIDR form.
    ///
    /// # Errors
    /// [`LabError`].
    pub fn nat(
        &self,
        kind: Nat,
        wan: &Lan,
        outside: &str,
        inside: &str,
    ) -> Result<Router, LabError> {
        Router::new(self, kind, wan, outside, inside)
    }

    /// A line between two LANs that joins them into one, with delay and faults; equal seeds have
    /// equal faults.
    ///
    /// # Errors
    /// [`LabError`], also for a lab in a user namespace of its own: TAPs are made by root.
    pub fn line(&self, a: &Lan, b: &Lan, weather: Weather, seed: u64) -> Result<Line, LabError> {
        Line::new(self, [a, b], weather, seed)
    }

    pub(crate) fn forge(&self) -> &Forge {
        &self.inner.forge
    }

    pub(crate) fn base_pid(&self) -> Option<u32> {
        self.inner.base.as_ref().map(Holder::pid)
    }

    /// A number that no other link of this lab has.
    pub(crate) fn link_number(&self) -> u32 {
        self.inner.links.fetch_add(1, Ordering::Relaxed)
    }

    fn hold(&self) -> Result<Holder, LabError> {
        match self.base_pid() {
            None => Holder::start(&self.inner.forge, Command::new("unshare"), &["-n"]),
            Some(pid) => {
                let mut command = Command::new("nsenter");
                command.args(["-U", "--preserve-credentials", "-t", &pid.to_string(), "unshare"]);
                Holder::start(&self.inner.forge, command, &["-n"])
            }
        }
    }
}

/// The process that keeps a namespace alive: it copies its input, a pipe that only this process
/// can write to, and ends when the pipe closes.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
}

impl Holder {
    fn start(forge: &Forge, mut command: Command, flags: &[&str]) -> Result<Self, LabError> {
        let program = command.get_program().to_string_lossy().into_owned();
        command.args(flags).args(["--", "cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = forge.spawn(command).map_err(|source| LabError::Start { program, source })?;
        let mut holder = Self { child };
        match holder.greet() {
            Ok(true) => Ok(holder),
            Ok(false) => Err(LabError::Forbidden(holder.complaint())),
            Err(e) => Err(LabError::Forbidden(format!("{e} {}", holder.complaint()))),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the namespace is there: `cat` echoes only once it runs.
    fn greet(&mut self) -> io::Result<bool> {
        let (Some(input), Some(output)) = (&mut self.child.stdin, &mut self.child.stdout) else {
            return Ok(false);
        };
        input.write_all(b"hello\n")?;
        let mut line = String::new();
        Ok(BufReader::new(output).read_line(&mut line)? > 0)
    }

    fn complaint(&mut self) -> String {
        let _ = self.child.kill();
        let mut text = String::new();
        if let Some(errors) = self.child.stderr.take() {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                text.push_str(&line);
            }
        }
        text
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
