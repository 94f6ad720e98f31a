//! The init process of a payload, as the ExeUnit sees it: first of the payload's pid namespace, asked
//! over a channel. What goes on in it is [`inside`].

mod files;
pub(crate) mod inside;
mod protocol;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gvpn_vnic::{
    Bind, Child,
    channel::{self, Receiver, Sender},
};
use serde::Serialize;
use tokio::sync::{oneshot, watch};

use crate::{Access, Exit, Names, Output, Payload, Program, RuntimeError, Usage, cgroup::Cgroup};
pub(crate) use files::NameFiles;
pub(crate) use protocol::Setup;
use protocol::{Done, Order, Request, Response, Started};

/// How long a payload may take to end by itself when asked to.
const GRACE: Duration = Duration::from_secs(10);

/// What an init process is made from.
pub(crate) struct Plan<'a, More> {
    /// The helper process that becomes it; also the name of its directory in the payload's.
    pub(crate) helper: &'static str,
    /// Directories that make up the root, lowest first.
    pub(crate) layers: Vec<PathBuf>,
    /// Environment of every program.
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) names: Names,
    pub(crate) more: More,
}

/// A payload's init process.
#[derive(Debug)]
pub(crate) struct Init {
    process: tokio::sync::Mutex<Child>,
    sender: Sender,
    waiting: Arc<Mutex<Waiting>>,
    end: watch::Receiver<bool>,
    cgroup: Option<Cgroup>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
}

type Answer = (Result<Done, String>, Option<OwnedFd>);
type Told = Result<(Done, Option<OwnedFd>), String>;

impl Init {
    /// Starts it in the payload's namespaces and waits until its root is made.
    ///
    /// # Errors
    /// What is in the way, for the requestor to read.
    pub(crate) async fn start<More: Serialize>(
        payload: &Payload,
        plan: Plan<'_, More>,
    ) -> Result<Self, RuntimeError> {
        let namespace = payload.namespace().await?;
        let name = plan.helper;
        let directory = payload.make_directory(name).await?;
        for part in ["lower", "upper", "work", "root"] {
            payload.make_directory(&format!("{name}/{part}")).await?;
        }
        let mut binds = vec![];
        for (number, from) in plan.layers.iter().enumerate() {
            let to = payload.make_directory(&format!("{name}/lower/{number}")).await?;
            binds.push(Bind { from: from.clone(), to });
        }
        let start = || RuntimeError::io("start the payload's init process");
        let spawned = payload.config().helper.spawn(name, |command| {
            command.current_dir(&directory);
            namespace.enter_with_mounts(command, &binds)
        });
        let (process, socket) = spawned.await.map_err(start())?;
        let (sender, mut receiver) = channel::open(socket).map_err(start())?;
        let config = payload.config();
        let cgroup = Cgroup::create(config.activity, &config.limits)
            .filter(|group| group.add(process.pid()).is_ok());
        let setup = Setup {
            names: plan.names,
            limits: config.limits.clone(),
            memory_is_bounded: cgroup.as_ref().is_some_and(Cgroup::bounds_memory),
            env: plan.env.clone(),
            own_ids: namespace.ids() > 1,
            layers: plan.layers.len(),
            more: plan.more,
        };
        sender.post(&setup, vec![]).map_err(start())?;
        match receiver.receive::<Started>().await.map_err(start())? {
            Some((Ok(()), _)) => {}
            Some((Err(reason), _)) => return Err(RuntimeError::Failed(reason)),
            None => {
                let text = "the payload's init process ended while starting";
                return Err(RuntimeError::Failed(text.into()));
            }
        }
        let waiting = Arc::<Mutex<Waiting>>::default();
        let (ending, end) = watch::channel(false);
        tokio::spawn(read(receiver, waiting.clone(), ending));
        Ok(Self { process: tokio::sync::Mutex::new(process), sender, waiting, end, cgroup })
    }

    /// Runs a program until it ends.
    pub(crate) async fn run(&self, program: Program, output: Output) -> Result<Exit, RuntimeError> {
        let path = program.path.clone();
        let fds = vec![output.stdout, output.stderr];
        match self.ask(Order::Run(program), fds).await? {
            Ok((Done::Exited(exit), _)) => Ok(exit),
            Ok(_) => Err(wrong_answer()),
            Err(reason) => Err(RuntimeError::Program { program: path, reason }),
        }
    }

    /// Opens a file of the payload.
    pub(crate) async fn open(&self, path: &str, access: Access) -> Result<File, RuntimeError> {
        let order = Order::Open { path: path.to_owned(), access };
        match self.ask(order, vec![]).await? {
            Ok((Done::Opened, Some(fd))) => Ok(File::from(fd)),
            Ok(_) => Err(wrong_answer()),
            Err(reason) => Err(RuntimeError::Failed(format!("cannot open {path}: {reason}"))),
        }
    }

    /// What the payload has used: by the control group's word, else by that of its processes.
    pub(crate) async fn usage(&self) -> Result<Usage, RuntimeError> {
        match self.ask(Order::Usage, vec![]).await? {
            Ok((Done::Used { cpu_sec, memory }, _)) => {
                let group = self.cgroup.as_ref();
                Ok(Usage {
                    cpu_sec: group.and_then(Cgroup::cpu_sec).unwrap_or(cpu_sec),
                    memory: group.and_then(Cgroup::memory).unwrap_or(memory),
                    ..Usage::default()
                })
            }
            _ => Ok(Usage::default()),
        }
    }

    /// Tells the payload its names.
    pub(crate) async fn rename(&self, names: &Names) -> Result<(), RuntimeError> {
        match self.ask(Order::Rename(names.clone()), vec![]).await? {
            Ok(_) => Ok(()),
            Err(reason) => Err(RuntimeError::Failed(format!("cannot change names: {reason}"))),
        }
    }

    /// Returns when it has ended.
    pub(crate) async fn ended(&self) -> String {
        let _ = self.end.clone().wait_for(|ended| *ended).await;
        "the payload's init process has ended".to_owned()
    }

    /// Ends the payload: asks first, then insists.
    pub(crate) async fn stop(&self) {
        let mut process = self.process.lock().await;
        let _ = self.sender.post(&Request { id: 0, order: Order::Stop }, vec![]);
        if tokio::time::timeout(GRACE, process.wait()).await.is_err() {
            process.signal(nix::sys::signal::Signal::SIGKILL);
            let _ = process.wait().await;
        }
    }

    async fn ask(&self, order: Order, fds: Vec<OwnedFd>) -> Result<Told, RuntimeError> {
        let (answer, answered) = oneshot::channel();
        let id = {
            let mut waiting = lock(&self.waiting);
            waiting.last += 1;
            let id = waiting.last;
            waiting.answers.insert(id, answer);
            id
        };
        let gone = |_| RuntimeError::NotRunning(": its init has ended".into());
        self.sender.post(&Request { id, order }, fds).map_err(|_| gone(()))?;
        let (outcome, fd) = tokio::select! {
            answer = answered => answer.map_err(|_| gone(()))?,
            _ = self.ended() => return Err(gone(())),
        };
        Ok(outcome.map(|done| (done, fd)))
    }
}

fn wrong_answer() -> RuntimeError {
    RuntimeError::Failed("the payload's init process gave a wrong answer".into())
}

async fn read(mut receiver: Receiver, waiting: Arc<Mutex<Waiting>>, ending: watch::Sender<bool>) {
    while let Ok(Some((Response { id, outcome }, fds))) = receiver.receive().await {
        let answer = lock(&waiting).answers.remove(&id);
        if let Some(answer) = answer {
            let _ = answer.send((outcome, fds.into_iter().next()));
        }
    }
    let _ = ending.send(true);
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
