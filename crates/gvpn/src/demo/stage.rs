//! Where the demo plays: a relay, a requestor and three providers, each a process on a host of its
//! own where the machine permits, else all on loopback.

use std::{
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use gvpn_lab::{Host, Lab, LabError, Lan, Process};
use gvpn_model::NodeId;
use gvpn_sdk::Client;

use crate::{
    demo::interrupt,
    failure::{Failure, Outcome},
    home::Home,
};

const RELAY_PORT: u16 = 7464;
const PROVIDERS: usize = 3;
/// How long a daemon may take to come up on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) name: String,
    pub(crate) home: Home,
    pub(crate) node: NodeId,
    /// The host it is on; `None` on loopback.
    pub(crate) host: Option<Host>,
    pub(crate) process: Process,
    log: PathBuf,
}

/// The stage.
pub(crate) struct Stage {
    dir: PathBuf,
    why_loopback: Option<String>,
    pub(crate) relay: Daemon,
    pub(crate) requestor: Daemon,
    pub(crate) providers: Vec<Daemon>,
    // After the processes: they end first.
    _world: Option<World>,
}

struct World {
    _lab: Lab,
    lan: Lan,
}

impl Stage {
    /// Starts all nodes with their data below `dir`.
    pub(crate) fn build(dir: &Path, loopback: bool) -> Outcome<Self> {
        let (lab, why_loopback) = if loopback {
            (None, Some("as asked for".to_owned()))
        } else {
            match Lab::new() {
                Ok(lab) => (Some(lab), None),
                Err(e @ LabError::Forbidden(_)) => (None, Some(e.to_string())),
                Err(e) => return Err(lab_failure(e)),
            }
        };
        let world = match lab {
            None => None,
            Some(lab) => Some(World { lan: lab.lan().map_err(lab_failure)?, _lab: lab }),
        };
        let starter = Starter { dir, world: world.as_ref() };
        let relay = starter.start(1, "relay", &["relay"])?;
        let requestor = starter.start(2, "requestor", &["daemon", "--role", "requestor"])?;
        let providers = (0..PROVIDERS)
            .map(|i| {
                let name = format!("provider-{}", i + 1);
                starter.start(10 + i, &name, &["daemon", "--role", "provider"])
            })
            .collect::<Outcome<Vec<_>>>()?;
        Ok(Self { dir: dir.to_owned(), why_loopback, relay, requestor, providers, _world: world })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn describe(&self) -> String {
        let hosts = match &self.why_loopback {
            None => "each on a host of its own (network namespaces, one LAN)".to_owned(),
            Some(why) => format!("all on loopback ({why})"),
        };
        format!("A relay, a requestor and {PROVIDERS} providers, {hosts}\n")
    }

    /// Runs the play as a program on the requestor's host.
    pub(crate) fn perform<F>(&self, play: impl FnOnce() -> F + Send) -> Outcome
    where
        F: Future<Output = Outcome>,
    {
        let work = || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .map_err(Failure::io("cannot start the async runtime"))?;
            runtime.block_on(play())
        };
        match &self.requestor.host {
            None => work(),
            Some(host) => host.enter(work).map_err(lab_failure)?,
        }
    }

    /// Every daemon, the relay last.
    pub(crate) fn all(&mut self) -> impl Iterator<Item = &mut Daemon> {
        self.providers
            .iter_mut()
            .chain(std::iter::once(&mut self.requestor))
            .chain(std::iter::once(&mut self.relay))
    }

    /// What a person types to play on.
    pub(crate) fn instructions(&self) -> String {
        let dir = self.requestor.home.dir().display();
        let exe = std::env::current_exe().unwrap_or_else(|_| "gvpn".into());
        let enter = match &self.requestor.host {
            None => String::new(),
            Some(host) => format!("nsenter --net=/proc/{}/ns/net -- ", host.pid()),
        };
        format!(
            "\nEverything is still running. In another terminal:\n\n  \
             alias gvpn='{enter}{} --data-dir {dir}'\n  \
             gvpn status\n  gvpn net ls\n  gvpn activity ls\n  gvpn net show demo\n  \
             gvpn exec demo -- ping 192.168.7.11\n  \
             gvpn ssh demo root@192.168.7.11 -- -i {}\n\n\
             Logs are {}/*/log. Ctrl-C ends it and removes everything.",
            exe.display(),
            self.dir.join("ssh-key").display(),
            self.dir.display(),
        )
    }
}

impl Daemon {
    /// A client of the daemon's API; to be used on its host.
    pub(crate) fn client(&self) -> Outcome<Client> {
        let url = self.home.api_url().ok_or_else(|| Failure::new("the daemon has no API"))?;
        Ok(Client::new(&url, self.home.app_key().as_deref())?)
    }

    /// The end of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    fn wait_up(&mut self, up: impl Fn(&Self) -> bool) -> Outcome {
        let start = Instant::now();
        while !up(self) {
            interrupt::check()?;
            if !self.process.is_running() || start.elapsed() > PATIENCE {
                return Err(Failure::new(format!(
                    "{} did not come up; the end of its log:\n{}",
                    self.name,
                    self.log_tail()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

struct Starter<'a> {
    dir: &'a Path,
    world: Option<&'a World>,
}

impl Starter<'_> {
    fn start(&self, number: usize, name: &str, role: &[&str]) -> Outcome<Daemon> {
        let home = Home::new(Some(self.dir.join(name)))?;
        let node = home.init()?.node_id();
        let host = self.world.map(|world| join(world, number, name)).transpose()?;
        let ip = if host.is_some() { address(number) } else { "127.0.0.1".to_owned() };
        let relay_ip = if host.is_some() { address(1) } else { "127.0.0.1".to_owned() };
        let log = home.dir().join("log");
        let exe = std::env::current_exe().map_err(Failure::io("this program's path"))?;
        let (listen, relay) = match role {
            ["relay"] => (format!("{ip}:{RELAY_PORT}"), None),
            _ => (format!("{ip}:0"), Some(format!("{relay_ip}:{RELAY_PORT}"))),
        };
        let mut args: Vec<String> = role.iter().map(|&word| word.to_owned()).collect();
        args.extend(["--data-dir".into(), home.dir().display().to_string()]);
        args.extend(["--listen".into(), listen]);
        if let Some(relay) = relay {
            args.extend(["--relay".into(), relay, "--api".into(), "127.0.0.1:0".into()]);
        }
        let process = match &host {
            Some(host) => {
                let mut command = host.command(&exe);
                prepare(command.inner(), &args, &log)?;
                command.spawn().map_err(lab_failure)?
            }
            None => {
                let mut command = Command::new(&exe);
                prepare(&mut command, &args, &log)?;
                Process::from(command.spawn().map_err(Failure::io("cannot start a daemon"))?)
            }
        };
        let mut daemon = Daemon { name: name.to_owned(), home, node, host, process, log };
        if role == ["relay"] {
            daemon.wait_up(|d| d.log_tail().contains("the relay is up"))?;
        } else {
            daemon.wait_up(|d| d.home.api_url().is_some())?;
        }
        Ok(daemon)
    }
}

fn prepare(command: &mut Command, args: &[String], log: &Path) -> Outcome {
    let file = File::create(log).map_err(Failure::io("a daemon's log"))?;
    let copy = file.try_clone().map_err(Failure::io("a daemon's log"))?;
    command.args(args).stdin(std::process::Stdio::null()).stdout(file).stderr(copy);
    // A Ctrl-C is the demo's: it ends them in order.
    command.process_group(0);
    // The person's own settings are not the demo's.
    for name in ["GVPN_DATA_DIR", "GVPN_API_URL", "GVPN_APPKEY", "YAGNA_API_URL", "YAGNA_APPKEY"] {
        command.env_remove(name);
    }
    Ok(())
}

fn join(world: &World, number: usize, name: &str) -> Outcome<Host> {
    let host = world._lab.host(name).map_err(lab_failure)?;
    host.join(&world.lan, &[&format!("{}/24", address(number))]).map_err(lab_failure)?;
    Ok(host)
}

fn address(number: usize) -> String {
    format!("10.77.0.{number}")
}

pub(crate) fn lab_failure(error: LabError) -> Failure {
    Failure::new(error)
}
