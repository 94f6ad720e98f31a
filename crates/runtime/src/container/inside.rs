//! The init process around a container: in a pid namespace outside the container's, so that when it
//! ends, however it ends, the kernel ends the container and whatever the OCI runtime has started.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    path::Path,
};

use nix::{
    fcntl::OFlag,
    mount::{MsFlags, mount},
    sched::CloneFlags,
    sys::{
        stat::{Mode, mkdirat},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::{
    engine::{Engine, Entry, Running},
    spec,
    user::User,
};
use crate::{
    Access, Exit, ImageConfig, Limits, Names, Program,
    init::{
        NameFiles, Setup,
        inside::{Inside, Reaped},
    },
    layers::mount_root,
    rooted::Root,
};

/// Process 1 of the container.
pub(super) const KEEPER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/keeper"));
/// Where init's directory is seen in its mount namespace: the way to its real place may be barred to the
/// users that exist here.
const PLACE: &str = "/tmp/payload";
/// The bundle, in memory: programs can be started when the disk is full.
const BUNDLE: &str = "/tmp/bundle";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// As much of `/etc/passwd` and `/etc/group` as is read.
const ACCOUNTS: u64 = 1 << 20;
const NO_DATA: Option<&str> = None;

/// What the init of a container has to know.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct More {
    /// Engines to try.
    pub(super) engines: Vec<Engine>,
    pub(super) config: ImageConfig,
    /// The entry point with its arguments; may be nothing.
    pub(super) command: Vec<String>,
}

/// The container from the outside of it, but inside the payload's namespaces.
pub(crate) struct InContainer {
    container: Running,
    names: NameFiles,
    user: User,
    own_ids: bool,
    env: BTreeMap<String, String>,
    directory: String,
    limits: Limits,
    /// Programs on their way in, by the engine's process.
    entering: HashMap<Pid, Entry>,
    started: u64,
}

impl Inside for InContainer {
    type More = More;
    const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID.union(CloneFlags::CLONE_NEWUTS);

    fn set_up(setup: Setup<More>) -> io::Result<Self> {
        named("its place", move_in())?;
        named("/proc", mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), NO_DATA))?;
        named("root", mount_root(setup.layers))?;
        let root = Root::at("root")?;
        let config = &setup.more.config;
        let accounts = |file: &str| root.text(file, ACCOUNTS).unwrap_or_default();
        let user = User::find(&config.user, &accounts("etc/passwd"), &accounts("etc/group"));
        let user = user.map_err(io::Error::other)?;
        if !setup.own_ids && !user.is_root() {
            return Err(io::Error::other(format!(
                "the image's user is `{}`, and this provider has no user ids to give beside root's \
                 (it lacks subordinate ids: /etc/subuid, newuidmap)",
                config.user
            )));
        }
        let directory = Path::new("/").join(&config.working_dir).display().to_string();
        named("the working directory", make_directories(&root, &directory))?;
        let names = prepare(&setup)?;
        let container = run(&setup.more.engines)?;
        let env = environment(&setup, &user);
        let mut limits = setup.limits;
        if setup.memory_is_bounded {
            // The group bounds them, and the engine's own threads would count here.
            limits.processes = None;
        }
        // The engine's own memory would count here.
        limits.memory = None;
        let mut inside = Self {
            container,
            names,
            user,
            own_ids: setup.own_ids,
            env,
            directory,
            limits,
            entering: HashMap::new(),
            started: 0,
        };
        inside.enter_by(setup.more.command)?;
        Ok(inside)
    }

    fn launch(&mut self, program: &Program, output: Vec<OwnedFd>) -> io::Result<Pid> {
        let Ok(output) = <[OwnedFd; 2]>::try_from(output) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut args = vec![program.path.clone()];
        args.extend_from_slice(&program.args);
        let mut env = self.env.clone();
        env.extend(program.env.clone());
        let directory = program.directory.as_deref().unwrap_or(&self.directory);
        let document = self.document(args, &env, directory);
        self.started += 1;
        let (pid, entry) = self.container.start(self.started, &document, Some(output))?;
        self.entering.insert(pid, entry);
        Ok(pid)
    }

    fn reaped(&mut self, pid: Pid, _exit: Exit) -> Reaped {
        let Some(entry) = self.entering.remove(&pid) else { return Reaped::Over };
        let outcome = match entry.pid() {
            Some(program) => Reaped::Became(program),
            None => Reaped::Failed(entry.reason()),
        };
        entry.forget();
        outcome
    }

    fn stands_on(&self, pid: Pid) -> bool {
        pid == self.container.first
    }

    fn is_deserted(&self) -> bool {
        let is_other = |name: &str| {
            name.parse::<i32>().is_ok_and(|pid| pid != 1 && pid != self.container.first.as_raw())
        };
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        !processes.into_iter().any(|entry| entry.file_name().to_str().is_some_and(is_other))
    }

    fn open(&self, path: &str, access: Access) -> io::Result<File> {
        let root = Root::at(format!("/proc/{}/root", self.container.first))?;
        match access {
            Access::Read => root.regular(path, OFlag::O_RDONLY),
            Access::Write => {
                if let Some(parent) = Path::new(path).parent().and_then(Path::to_str) {
                    make_directories(&root, parent)?;
                }
                let file = root.regular(path, OFlag::O_WRONLY | OFlag::O_CREAT)?;
                file.set_len(0)?;
                Ok(file)
            }
        }
    }

    fn rename(&mut self, names: &Names) -> io::Result<()> {
        self.names.write(names)
    }
}

impl InContainer {
    /// Runs the image's entry point, in the background from when it has started.
    fn enter_by(&mut self, command: Vec<String>) -> io::Result<()> {
        if command.is_empty() {
            return Ok(());
        }
        let shown = command.join(" ");
        let document = self.document(command, &self.env, &self.directory);
        let (pid, entry) = self.container.start(0, &document, None)?;
        while !matches!(waitpid(pid, None)?, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {}
        let outcome = match entry.pid() {
            Some(_) => Ok(()),
            None => {
                let reason = entry.reason();
                Err(io::Error::other(format!("the image's entry point `{shown}`: {reason}")))
            }
        };
        entry.forget();
        outcome
    }

    fn document(
        &self,
        args: Vec<String>,
        env: &BTreeMap<String, String>,
        directory: &str,
    ) -> serde_json::Value {
        let process = spec::Process {
            args,
            env: env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            directory,
            user: self.user.document(self.own_ids),
            limits: &self.limits,
        };
        process.document()
    }
}

/// Makes init's directory, which is the working directory, visible at [`PLACE`].
fn move_in() -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), "/tmp", Some("tmpfs"), flags, Some("mode=755,size=16m"))?;
    fs::create_dir(PLACE)?;
    fs::create_dir(BUNDLE)?;
    mount(Some("."), PLACE, NO_DATA, MsFlags::MS_BIND | MsFlags::MS_REC, NO_DATA)?;
    nix::unistd::chdir(PLACE)?;
    Ok(())
}

/// Writes the bundle.
fn prepare(setup: &Setup<More>) -> io::Result<NameFiles> {
    let bundle = Path::new(BUNDLE);
    let keeper = bundle.join("keeper");
    let mut program = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&keeper)?;
    program.write_all(KEEPER)?;
    drop(program);
    let files = bundle.join("names");
    fs::create_dir(&files)?;
    let names = NameFiles::make(&files, &setup.names)?;
    let container = spec::Container {
        root: &format!("{PLACE}/root"),
        keeper: &keeper,
        names: NameFiles::NAMES.iter().map(|name| (files.join(name), *name)).collect(),
        limits: &Limits { memory: setup.limits.memory, ..Limits::default() },
        own_ids: setup.own_ids,
    };
    serde_json::to_writer(File::create(bundle.join("config.json"))?, &container.document())?;
    Ok(names)
}

/// Runs the container with the first engine that can.
fn run(engines: &[Engine]) -> io::Result<Running> {
    let mut complaints = vec![];
    for engine in engines {
        let name = engine.name();
        match engine.clone().run(Path::new(BUNDLE)) {
            Ok(running) => return Ok(running),
            Err(reason) => complaints.push(format!("{name}: {reason}")),
        }
        let _ = fs::remove_dir_all(Path::new(BUNDLE).join("state"));
    }
    if complaints.is_empty() {
        complaints.push("this host has none (runc, crun, youki)".to_owned());
    }
    Err(io::Error::other(format!("no OCI runtime could run it: {}", complaints.join("; "))))
}

fn environment(setup: &Setup<More>, user: &User) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    let home =
        user.home.clone().unwrap_or_else(|| if user.is_root() { "/root" } else { "/" }.to_owned());
    env.insert("HOME".to_owned(), home);
    env.extend(user.name.clone().map(|name| ("USER".to_owned(), name)));
    env.insert("HOSTNAME".to_owned(), setup.names.hostname.clone());
    env.extend(setup.more.config.env());
    env.extend(setup.env.clone());
    env
}

/// Makes a directory of the tree, with those above it.
fn make_directories(root: &Root, path: &str) -> io::Result<()> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    if path.is_empty() || root.open(path, flags).is_ok() {
        return Ok(());
    }
    let (parent, name) = path.trim_end_matches('/').rsplit_once('/').unwrap_or(("", path));
    make_directories(root, parent)?;
    let parent = root.open(if parent.is_empty() { "/" } else { parent }, flags)?;
    match mkdirat(parent.as_fd(), name, Mode::from_bits_truncate(0o755)) {
        Ok(()) => Ok(()),
        Err(e) => Err(io::Error::new(io::Error::from(e).kind(), format!("`{path}`: {e}"))),
    }
}

fn named<E: Into<io::Error>>(what: &str, outcome: Result<(), E>) -> io::Result<()> {
    outcome.map_err(|e| {
        let e = e.into();
        io::Error::new(e.kind(), format!("{what}: {e}"))
    })
}
