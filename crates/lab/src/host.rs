//! Hosts.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::Signal,
};

use crate::{Lab, LabError, Lan, Process, world::Holder};

/// How long the kernel may take to make an address's route.
const SETTLED: Duration = Duration::from_secs(20);

/// A host: a network namespace. Cheap to clone; it goes when its last clone and its last process
/// have gone.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    lab: Lab,
    name: String,
    holder: Holder,
    net: File,
    /// The lab's user namespace where it is not our own.
    user: Option<File>,
    interfaces: std::sync::atomic::AtomicU32,
}

impl Host {
    pub(crate) fn new(lab: Lab, name: &str, holder: Holder) -> Result<Self, LabError> {
        let open = |pid: u32, kind| {
            File::open(format!("/proc/{pid}/ns/{kind}"))
                .map_err(LabError::io("opening a namespace"))
        };
        let net = open(holder.pid(), "net")?;
        let user = lab.base_pid().map(|pid| open(pid, "user")).transpose()?;
        let interfaces = 0.into();
        let inner = Inner { lab, name: name.to_owned(), holder, net, user, interfaces };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The process that holds its namespaces: `nsenter -n -t PID` enters.
    pub fn pid(&self) -> u32 {
        self.inner.holder.pid()
    }

    /// Connects the host to `lan` with these addresses (CIDR); returns the interface's name:
    /// `eth0` for the first.
    ///
    /// # Errors
    /// [`LabError::Command`], such as for an address that is none.
    pub fn join(&self, lan: &Lan, addresses: &[&str]) -> Result<String, LabError> {
        let count = self.inner.interfaces.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("eth{count}");
        lan.connect(self, &name)?;
        for address in addresses {
            // Without duplicate address detection: IPv6 works at once.
            let nodad = address.contains(':').then_some("nodad");
            self.ip(["addr", "add", address, "dev", &name].into_iter().chain(nodad))?;
        }
        self.ip(["link", "set", &name, "up"])?;
        self.settle(&name)?;
        Ok(name)
    }

    /// Waits until what is sent to an interface's IPv6 addresses reaches them: the kernel makes
    /// their routes after the interface is up, in its own time.
    ///
    /// # Errors
    /// [`LabError`] when that takes longer than 20 s.
    pub fn settle(&self, interface: &str) -> Result<(), LabError> {
        let end = Instant::now() + SETTLED;
        loop {
            let shown =
                self.run("ip", ["-6", "-o", "addr", "show", "dev", interface, "scope", "global"])?;
            let mut addresses = shown.lines().filter_map(|line| {
                line.split_whitespace().nth(3).and_then(|cidr| cidr.split('/').next())
            });
            let local = ["-6", "-o", "route", "show", "table", "local", "dev", interface];
            let routes = if shown.is_empty() { String::new() } else { self.run("ip", local)? };
            let reached = |address| {
                routes.lines().any(|line| line.split_whitespace().nth(1) == Some(address))
            };
            if addresses.all(reached) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(LabError::io("waiting for routes to IPv6 addresses")(
                    io::ErrorKind::TimedOut.into(),
                ));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sets the default route.
    ///
    /// # Errors
    /// [`LabError::Command`] when no interface leads to `via`.
    pub fn default_route(&self, via: &str) -> Result<(), LabError> {
        let family = if via.contains(':') { "-6" } else { "-4" };
        self.ip([family, "route", "replace", "default", "via", via])
    }

    /// A command that will run on this host, and die with the lab.
    pub fn command(&self, program: impl AsRef<OsStr>) -> HostCommand {
        HostCommand { host: self.clone(), command: Command::new(program) }
    }

    /// Runs a command to its end; returns its standard output.
    ///
    /// # Errors
    /// [`LabError`], also when it ends with anything but success.
    pub fn run<I, S>(&self, program: &str, args: I) -> Result<String, LabError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(program);
        command.args(args);
        let shown = command.shown();
        let output = command.output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(LabError::Command {
            host: self.inner.name.clone(),
            command: shown,
            status: output.status,
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Runs `ip` with these arguments.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn ip<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<(), LabError> {
        self.run("ip", args).map(drop)
    }

    /// Runs `work` on a thread inside the host: sockets that it makes belong there.
    ///
    /// # Errors
    /// [`LabError`] when the system refuses, as it does for a lab in a user namespace of its own.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, LabError> {
        let inside = || {
            setns(&self.inner.net, CloneFlags::CLONE_NEWNET)
                .map_err(|e| LabError::io("entering a namespace")(e.into()))?;
            Ok(work())
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.inner.lab
    }
}

/// A command for a host, to be started once.
#[derive(Debug)]
pub struct HostCommand {
    host: Host,
    command: Command,
}

impl HostCommand {
    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args<I, S>(&mut self, args: I) -> &mut Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.command.env(key, value);
        self
    }

    /// The command itself, for its input, output and directory.
    pub fn inner(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Starts it.
    ///
    /// # Errors
    /// [`LabError::Start`].
    pub fn spawn(&mut self) -> Result<Process, LabError> {
        self.start().map(Process::new)
    }

    /// Runs it to its end with its output captured.
    ///
    /// # Errors
    /// [`LabError::Start`].
    pub fn output(&mut self) -> Result<Output, LabError> {
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.start()?.wait_with_output().map_err(LabError::io("reading a command's output"))
    }

    /// Hands the command to the lab's process starter; this value is spent then.
    fn start(&mut self) -> Result<Child, LabError> {
        let program = self.command.get_program().to_string_lossy().into_owned();
        self.enter_on_exec();
        let command = std::mem::replace(&mut self.command, Command::new(&program));
        let forge = self.host.lab().forge();
        forge.spawn(command).map_err(|source| LabError::Start { program, source })
    }

    fn shown(&self) -> String {
        let args = self.command.get_args().map(|a| format!(" {}", a.to_string_lossy()));
        self.command.get_program().to_string_lossy().into_owned() + &args.collect::<String>()
    }

    fn enter_on_exec(&mut self) {
        let host = self.host.clone();
        let enter = move || -> io::Result<()> {
            if let Some(user) = &host.inner.user {
                setns(user.as_fd(), CloneFlags::CLONE_NEWUSER)?;
            }
            setns(host.inner.net.as_fd(), CloneFlags::CLONE_NEWNET)?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        };
        // SAFETY: between fork and exec only system calls are made; nothing is allocated or locked.
        unsafe {
            self.command.pre_exec(enter);
        }
    }
}
