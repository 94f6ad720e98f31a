//! The daemon's handle of an ExeUnit.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Command as Process,
    time::Duration,
};

use gvpn_model::{BatchId, ExeScript, NetworkId};
use gvpn_vnic::{
    Child, Nic,
    channel::{self, Receiver, Sender},
};
use nix::sys::signal::Signal;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use crate::{
    ExeUnitConfig, ExeUnitEvent, NetworkConfig, sweep,
    wire::{Command, Report, Request},
};

/// How long an ExeUnit may take to come up.
const START: Duration = Duration::from_secs(30);
/// How long it may take to end when asked to, and its last processes after it.
const END: Duration = Duration::from_secs(20);
/// Events waiting for the daemon; beyond them the payload's output waits.
const EVENTS: usize = 1024;

/// Why an ExeUnit could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ExeUnitError {
    /// Its process did not start.
    #[error("cannot start the ExeUnit {exe}: {source}")]
    Spawn {
        /// The program.
        exe: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its directories cannot be used.
    #[error("cannot use directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not come up.
    #[error("the ExeUnit did not start: {0}")]
    Start(String),
}

/// A running ExeUnit. Dropping the handle ends the activity.
#[derive(Debug)]
pub struct ExeUnit {
    pid: u32,
    sender: Sender,
    ended: watch::Receiver<bool>,
    _held: oneshot::Sender<()>,
}

impl ExeUnit {
    /// Starts an ExeUnit; it is `Initialized` when this returns. Its events come in order;
    /// [`ExeUnitEvent::Exited`] is the last.
    ///
    /// # Errors
    /// [`ExeUnitError`].
    pub async fn spawn(
        config: ExeUnitConfig,
    ) -> Result<(Self, mpsc::Receiver<ExeUnitEvent>), ExeUnitError> {
        make_workdir(&config.workdir)?;
        let started = Self::start(&config).await;
        if started.is_err() {
            let _ = sweep::remove(vec![config.workdir.clone()], &config.agent(), &config.helper())
                .await;
        }
        let (process, sender, receiver, lifeline) = started?;
        let (events, incoming) = mpsc::channel(EVENTS);
        let (ending, ended) = watch::channel(false);
        let (held, released) = oneshot::channel();
        let pid = process.pid();
        let watcher =
            Watcher { process, sender: sender.clone(), events, lifeline, config, killed: false };
        tokio::spawn(async move {
            watcher.run(receiver, released).await;
            let _ = ending.send(true);
        });
        Ok((Self { pid, sender, ended, _held: held }, incoming))
    }

    /// Queues a script. `networks` is the truth about every network its `deploy` names.
    pub fn exec(&self, batch: BatchId, script: ExeScript, networks: Vec<NetworkConfig>) {
        self.post(&Command::Exec { batch, script, networks });
    }

    /// Makes a network of the running payload exactly so; joins it if the payload was not in it.
    pub fn reconfigure(&self, network: NetworkConfig) {
        self.post(&Command::Configure(network));
    }

    /// Takes the payload out of a network.
    pub fn remove_network(&self, network: NetworkId) {
        self.post(&Command::RemoveNetwork(network));
    }

    /// Asks for a fresh [`ExeUnitEvent::Usage`].
    pub fn poll_usage(&self) {
        self.post(&Command::PollUsage);
    }

    /// Ends the activity and waits until nothing of it is left: processes, mounts, files.
    pub async fn terminate(&self) {
        self.end(None).await;
    }

    /// As [`terminate`](Self::terminate); a command that runs is told why.
    pub async fn terminate_because(&self, reason: &str) {
        self.end(Some(reason.to_owned())).await;
    }

    async fn end(&self, reason: Option<String>) {
        self.post(&Command::Terminate(reason));
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Process id of the ExeUnit.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// An ExeUnit that is gone has said so, or will: nothing to do about a message to it.
    fn post(&self, command: &Command) {
        if let Err(error) = self.sender.post(command, vec![]) {
            tracing::debug!(%error, pid = self.pid, "an ExeUnit that is gone was told something");
        }
    }

    async fn start(
        config: &ExeUnitConfig,
    ) -> Result<(Child, Sender, Receiver, pipe::Receiver), ExeUnitError> {
        let spawn = |source| ExeUnitError::Spawn { exe: config.exe.clone(), source };
        let mut command = Process::new(&config.exe);
        command.args(&config.args);
        let (process, socket) = Child::spawn(command).await.map_err(spawn)?;
        let (sender, mut receiver) = channel::open(socket).map_err(spawn)?;
        let (lifeline, held_by_activity) = io::pipe().map_err(spawn)?;
        let setup = Command::Setup(Box::new(config.clone()));
        sender.post(&setup, vec![held_by_activity.into()]).map_err(spawn)?;
        let lifeline = pipe::Receiver::from_owned_fd(lifeline.into()).map_err(spawn)?;
        match timeout(START, receiver.receive::<Report>()).await {
            Ok(Ok(Some((Report::Up, _)))) => Ok((process, sender, receiver, lifeline)),
            Ok(Ok(Some((Report::Ended(reason), _)))) => {
                Err(ExeUnitError::Start(reason.unwrap_or_default()))
            }
            Ok(Ok(_)) => Err(ExeUnitError::Start("it ended at once".to_owned())),
            Ok(Err(e)) => Err(ExeUnitError::Start(e.to_string())),
            Err(_) => Err(ExeUnitError::Start("it is silent".to_owned())),
        }
    }
}

fn make_workdir(path: &Path) -> Result<(), ExeUnitError> {
    let directory = |source| ExeUnitError::Directory { path: path.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(directory)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o711)).map_err(directory)
}

/// Turns an ExeUnit's reports into events, and sees to its end.
struct Watcher {
    process: Child,
    sender: Sender,
    events: mpsc::Sender<ExeUnitEvent>,
    lifeline: pipe::Receiver,
    config: ExeUnitConfig,
    killed: bool,
}

impl Watcher {
    async fn run(mut self, mut receiver: Receiver, mut released: oneshot::Receiver<()>) {
        let reason = loop {
            let report = tokio::select! {
                report = receiver.receive::<Report>() => report,
                _ = &mut released, if !self.killed => {
                    self.killed = true;
                    self.process.signal(Signal::SIGKILL);
                    continue;
                }
            };
            match report {
                Ok(Some((Report::Ended(reason), _))) => break reason,
                Ok(Some((report, fds))) => self.pass_on(report, fds).await,
                Ok(None) if self.killed => break Some("its daemon let go of it".to_owned()),
                Ok(None) => break Some("its ExeUnit was killed".to_owned()),
                Err(e) => break Some(format!("its ExeUnit was not understood: {e}")),
            }
        };
        drop(receiver);
        self.bury(reason).await;
    }

    async fn pass_on(&self, report: Report, fds: Vec<OwnedFd>) {
        let event = match report {
            Report::State(state) => ExeUnitEvent::State(state),
            Report::Batch(event) => ExeUnitEvent::Batch(event),
            Report::Result { batch, result } => ExeUnitEvent::Result { batch, result },
            Report::Detach { network, member } => ExeUnitEvent::DetachNic { network, member },
            Report::Usage(usage) => ExeUnitEvent::Usage(usage),
            Report::Request { id, request } => return self.request(id, request, fds).await,
            Report::Up | Report::Ended(_) => return,
        };
        let _ = self.events.send(event).await;
    }

    async fn request(&self, id: u64, request: Request, fds: Vec<OwnedFd>) {
        let (reply, replied) = oneshot::channel();
        let (sign_reply, signed) = oneshot::channel();
        let mut fds = fds.into_iter();
        let event = match (request, fds.next()) {
            (Request::Attach { network, member, kind }, Some(fd)) => {
                let nic = Nic { fd, queues: fds.collect(), kind };
                ExeUnitEvent::AttachNic { network, member, nic, reply }
            }
            (Request::Fetch { url }, Some(file)) => ExeUnitEvent::FetchFile { url, file, reply },
            (Request::Store { url }, Some(file)) => ExeUnitEvent::StoreFile { url, file, reply },
            (Request::Sign { digest }, _) => ExeUnitEvent::Sign { digest, reply: sign_reply },
            (_, None) => return,
        };
        let is_sign = matches!(event, ExeUnitEvent::Sign { .. });
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let outcome = if is_sign {
                signed.await.map(|answer| answer.map(Some))
            } else {
                replied.await.map(|answer| answer.map(|()| None))
            };
            let outcome = outcome.unwrap_or_else(|_| Err("the daemon gave no answer".to_owned()));
            let _ = sender.post(&Command::Reply { id, outcome }, vec![]);
        });
        let _ = self.events.send(event).await;
    }

    /// Waits for the last process, removes the files, and says so.
    async fn bury(mut self, reason: Option<String>) {
        if timeout(END, self.process.wait()).await.is_err() {
            self.process.signal(Signal::SIGKILL);
            let _ = self.process.wait().await;
        }
        let mut nothing = [0];
        let gone = timeout(END, self.lifeline.read(&mut nothing)).await;
        if gone.is_err() {
            tracing::warn!(activity = %self.config.activity, "processes of an activity linger");
        }
        gvpn_runtime::remove_groups(Some(self.config.activity));
        let workdir = vec![self.config.workdir.clone()];
        if let Err(error) =
            sweep::remove(workdir, &self.config.agent(), &self.config.helper()).await
        {
            let path = self.config.workdir.display();
            tracing::warn!(%path, %error, "the directory of an activity was not removed");
        }
        let _ = self.events.send(ExeUnitEvent::Exited { reason }).await;
    }
}
