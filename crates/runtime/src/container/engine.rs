//! The host's OCI runtimes.

use std::{
    ffi::OsString,
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::mounts::make_read_only;

/// The name of the one container of an init.
const NAME: &str = "payload";
/// Where programs of the system are, whatever `PATH` says.
const PLACES: [&str; 4] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"];

/// An OCI runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Engine {
    program: PathBuf,
    /// How it is kept from the host's control groups: the payload's group is the ExeUnit's to make.
    groups: Groups,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Groups {
    /// It takes those that it may not write to as they are.
    ReadOnly,
    /// It is told so, and must not see any.
    Hidden,
}

/// The runtimes of this host in the order of preference.
pub(super) fn installed() -> Vec<Engine> {
    let known = [("runc", Groups::ReadOnly), ("crun", Groups::Hidden), ("youki", Groups::ReadOnly)];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> =
        std::env::split_paths(&path).chain(PLACES.iter().map(PathBuf::from)).collect();
    let is_program = |path: &PathBuf| {
        let metadata = fs::metadata(path);
        path.is_absolute()
            && metadata.is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    let find = |(name, groups): (&str, Groups)| {
        let program = places.iter().map(|place| place.join(name)).find(is_program)?;
        Some(Engine { program, groups })
    };
    known.into_iter().filter_map(find).collect()
}

/// A container that an engine runs.
#[derive(Debug)]
pub(super) struct Running {
    engine: Engine,
    /// The bundle: `config.json`, the engine's state, and a place for each program that starts.
    bundle: PathBuf,
    /// Process 1, as init sees it.
    pub(super) first: Pid,
}

/// A program on its way into the container.
#[derive(Debug)]
pub(super) struct Entry {
    directory: PathBuf,
}

impl Engine {
    pub(super) fn name(&self) -> String {
        self.program.display().to_string()
    }

    /// Runs the container of a bundle in the background; the error is what the engine says.
    pub(super) fn run(self, bundle: &Path) -> Result<Running, String> {
        self.keep_from_groups().map_err(|e| format!("cannot set control groups aside: {e}"))?;
        let entry = Entry { directory: bundle.join("first") };
        fs::create_dir_all(&entry.directory).map_err(|e| e.to_string())?;
        let mut command = self.command(bundle, &entry);
        command.args(["run", "--detach", "--bundle"]).arg(bundle);
        command.arg("--pid-file").arg(entry.pid_file()).arg(NAME);
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.map_err(|e| e.to_string())?;
        match entry.pid() {
            Some(first) if status.success() => {
                Ok(Running { engine: self, bundle: bundle.to_owned(), first })
            }
            _ => {
                let reason = entry.reason();
                entry.forget();
                Err(reason)
            }
        }
    }

    fn command(&self, bundle: &Path, entry: &Entry) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", PLACES.join(":")).stdin(Stdio::null());
        if self.groups == Groups::Hidden {
            command.arg("--cgroup-manager=disabled");
        }
        command.arg("--root").arg(bundle.join("state"));
        command.arg("--log").arg(entry.log_file()).args(["--log-format", "json"]);
        command
    }

    fn keep_from_groups(&self) -> io::Result<()> {
        let place = Path::new("/sys/fs/cgroup");
        match self.groups {
            Groups::ReadOnly => protect(place),
            Groups::Hidden => Ok(nix::mount::mount(
                Some("tmpfs"),
                place,
                Some("tmpfs"),
                nix::mount::MsFlags::MS_RDONLY,
                None::<&str>,
            )?),
        }
    }
}

impl Running {
    /// Starts a program, whose `exec --process` document this is; the result is the engine's process,
    /// which ends when the program has started or could not be.
    pub(super) fn start(
        &self,
        number: u64,
        document: &serde_json::Value,
        output: Option<[OwnedFd; 2]>,
    ) -> io::Result<(Pid, Entry)> {
        let entry = Entry { directory: self.bundle.join(format!("program-{number}")) };
        fs::create_dir(&entry.directory)?;
        serde_json::to_writer(File::create(entry.document_file())?, document)?;
        let mut command = self.engine.command(&self.bundle, &entry);
        command.args(["exec", "--detach", "--pid-file"]).arg(entry.pid_file());
        command.arg("--process").arg(entry.document_file()).arg(NAME);
        match output {
            Some([stdout, stderr]) => command.stdout(stdout).stderr(stderr),
            None => command.stdout(Stdio::null()).stderr(Stdio::null()),
        };
        let spawned = command.spawn();
        if spawned.is_err() {
            entry.forget();
        }
        Ok((Pid::from_raw(spawned?.id().cast_signed()), entry))
    }
}

impl Entry {
    /// The program's process, if it has come to be.
    pub(super) fn pid(&self) -> Option<Pid> {
        fs::read_to_string(self.pid_file()).ok()?.trim().parse().ok().map(Pid::from_raw)
    }

    /// Why not: the last complaint of the engine.
    pub(super) fn reason(&self) -> String {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let message = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line.get("msg")?.as_str()?.to_owned())
        };
        let told = log.lines().rev().find_map(message);
        told.unwrap_or_else(|| "the OCI runtime failed without saying why".to_owned())
    }

    /// Removes what it has left.
    pub(super) fn forget(&self) {
        let _ = fs::remove_dir_all(&self.directory);
    }

    fn pid_file(&self) -> OsString {
        self.directory.join("pid").into()
    }

    fn log_file(&self) -> OsString {
        self.directory.join("log").into()
    }

    fn document_file(&self) -> OsString {
        self.directory.join("process.json").into()
    }
}

/// Makes a place read-only, where there is one with something mounted.
fn protect(place: &Path) -> io::Result<()> {
    match make_read_only(place) {
        Err(e) if place.exists() && e.raw_os_error() != Some(libc::EINVAL) => Err(e),
        _ => Ok(()),
    }
}
