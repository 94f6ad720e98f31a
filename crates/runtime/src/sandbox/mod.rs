//! The `sandbox` runtime: a process in namespaces of its own, without any privilege on the host.

mod init;
mod protocol;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    os::fd::OwnedFd,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gvpn_vnic::{
    Bind, Child,
    channel::{self, Receiver, Sender},
};
use tokio::sync::{OnceCell, oneshot, watch};

use crate::cgroup::Cgroup;
use crate::{
    Access, Exit, Image, ImageStore, Names, Output, Payload, Program, Runtime, RuntimeError, Usage,
};
pub(crate) use init::init_main;
use protocol::{Done, Order, Request, Response, Setup, Started};

/// How long a payload may take to end by itself when asked to.
const GRACE: Duration = Duration::from_secs(10);

/// Runs the payload as processes in user, network, mount, pid, host name and IPC namespaces, with its
/// image as root file system, shared read-only below a layer of its own.
#[derive(Debug, Default)]
pub struct Sandbox {
    /// Environment of every program.
    env: BTreeMap<String, String>,
    image: OnceCell<Image>,
    names: Mutex<Names>,
    init: OnceCell<Init>,
}

impl Sandbox {
    /// A sandbox whose programs all see this environment.
    pub fn new(env: BTreeMap<String, String>) -> Self {
        Self { env, ..Self::default() }
    }

    fn init(&self) -> Result<&Init, RuntimeError> {
        self.init.get().ok_or_else(|| RuntimeError::NotRunning(": it was not started".into()))
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runtime for Sandbox {
    async fn deploy(&self, payload: &Payload) -> Result<(), RuntimeError> {
        let config = payload.config();
        let Some(path) = payload.image() else {
            let text =
                "the sandbox runtime needs an image: a directory, a tar archive or a squashfs";
            return Err(RuntimeError::Failed(text.to_owned()));
        };
        let store = ImageStore::open(&config.images)?;
        let namespace = payload.namespace().await?;
        let (helper, bytes) = (&config.helper, config.limits.storage);
        let unpacked = store.unpack(&path, namespace, helper, &config.directory, bytes);
        let _ = self.image.set(unpacked.await?);
        Ok(())
    }

    async fn start(&self, payload: &Payload, _args: &[String]) -> Result<(), RuntimeError> {
        let Some(image) = self.image.get() else {
            return Err(RuntimeError::NotRunning(": it was not deployed".into()));
        };
        let own_ids = payload.namespace().await?.ids() > 1;
        let names = self.names().clone();
        let setup = Setup {
            names,
            limits: payload.config().limits.clone(),
            memory_is_bounded: false,
            env: self.env.clone(),
            own_ids,
        };
        let init = Init::start(payload, image, setup).await?;
        let _ = self.init.set(init);
        Ok(())
    }

    async fn run(
        &self,
        _payload: &Payload,
        program: Program,
        output: Output,
    ) -> Result<Exit, RuntimeError> {
        let path = program.path.clone();
        let fds = vec![output.stdout, output.stderr];
        match self.init()?.ask(Order::Run(program), fds).await? {
            Ok((Done::Exited(exit), _)) => Ok(exit),
            Ok(_) => Err(RuntimeError::Failed("the sandbox gave a wrong answer".into())),
            Err(reason) => Err(RuntimeError::Program { program: path, reason }),
        }
    }

    async fn stop(&self, _payload: &Payload) -> Result<(), RuntimeError> {
        if let Some(init) = self.init.get() {
            init.stop().await;
        }
        Ok(())
    }

    async fn open(
        &self,
        _payload: &Payload,
        path: &str,
        access: Access,
    ) -> Result<File, RuntimeError> {
        let order = Order::Open { path: path.to_owned(), access };
        match self.init()?.ask(order, vec![]).await? {
            Ok((Done::Opened, Some(fd))) => Ok(File::from(fd)),
            Ok(_) => Err(RuntimeError::Failed("the sandbox gave a wrong answer".into())),
            Err(reason) => Err(RuntimeError::Failed(format!("cannot open {path}: {reason}"))),
        }
    }

    async fn usage(&self, _payload: &Payload) -> Result<Usage, RuntimeError> {
        match self.init()?.ask(Order::Usage, vec![]).await? {
            Ok((Done::Used { cpu_sec, memory }, _)) => {
                let group = self.init()?.cgroup.as_ref();
                Ok(Usage {
                    cpu_sec: group.and_then(Cgroup::cpu_sec).unwrap_or(cpu_sec),
                    memory: group.and_then(Cgroup::memory).unwrap_or(memory),
                    ..Usage::default()
                })
            }
            _ => Ok(Usage::default()),
        }
    }

    async fn ended(&self, _payload: &Payload) -> String {
        match self.init.get() {
            Some(init) => init.ended().await,
            None => std::future::pending().await,
        }
    }

    async fn rename(&self, _payload: &Payload, names: &Names) -> Result<(), RuntimeError> {
        *self.names() = names.clone();
        let Some(init) = self.init.get() else { return Ok(()) };
        match init.ask(Order::Rename(names.clone()), vec![]).await? {
            Ok(_) => Ok(()),
            Err(reason) => Err(RuntimeError::Failed(format!("cannot change names: {reason}"))),
        }
    }
}

type Answer = (Result<Done, String>, Option<OwnedFd>);

/// The first process of the payload's pid namespace, as the ExeUnit sees it.
#[derive(Debug)]
struct Init {
    process: tokio::sync::Mutex<Child>,
    sender: Sender,
    waiting: std::sync::Arc<Mutex<Waiting>>,
    end: watch::Receiver<bool>,
    cgroup: Option<Cgroup>,
}

#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
}

impl Init {
    async fn start(
        payload: &Payload,
        image: &Image,
        mut setup: Setup,
    ) -> Result<Self, RuntimeError> {
        let namespace = payload.namespace().await?;
        let directory = payload.make_directory("sandbox").await?;
        for part in ["lower", "upper", "work", "root"] {
            payload.make_directory(&format!("sandbox/{part}")).await?;
        }
        let lower = Bind { from: image.root().to_owned(), to: directory.join("lower") };
        let start = || RuntimeError::io("start the sandbox");
        let spawned = payload.config().helper.spawn("init", |command| {
            command.current_dir(&directory);
            namespace.enter_with_mounts(command, &[lower])
        });
        let (process, socket) = spawned.await.map_err(start())?;
        let (sender, mut receiver) = channel::open(socket).map_err(start())?;
        let config = payload.config();
        let cgroup = Cgroup::create(config.activity, &config.limits)
            .filter(|group| group.add(process.pid()).is_ok());
        setup.memory_is_bounded = cgroup.as_ref().is_some_and(Cgroup::bounds_memory);
        sender.post(&setup, vec![]).map_err(start())?;
        match receiver.receive::<Started>().await.map_err(start())? {
            Some((Ok(()), _)) => {}
            Some((Err(reason), _)) => return Err(RuntimeError::Failed(reason)),
            None => return Err(RuntimeError::Failed("the sandbox ended while starting".into())),
        }
        let waiting = std::sync::Arc::<Mutex<Waiting>>::default();
        let (ending, end) = watch::channel(false);
        tokio::spawn(read(receiver, waiting.clone(), ending));
        Ok(Self { process: tokio::sync::Mutex::new(process), sender, waiting, end, cgroup })
    }

    async fn ask(&self, order: Order, fds: Vec<OwnedFd>) -> Result<Answer2, RuntimeError> {
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

    async fn ended(&self) -> String {
        let _ = self.end.clone().wait_for(|ended| *ended).await;
        "the payload's init process has ended".to_owned()
    }

    async fn stop(&self) {
        let mut process = self.process.lock().await;
        let _ = self.sender.post(&Request { id: 0, order: Order::Stop }, vec![]);
        if tokio::time::timeout(GRACE, process.wait()).await.is_err() {
            process.signal(nix::sys::signal::Signal::SIGKILL);
            let _ = process.wait().await;
        }
    }
}

type Answer2 = Result<(Done, Option<OwnedFd>), String>;

async fn read(
    mut receiver: Receiver,
    waiting: std::sync::Arc<Mutex<Waiting>>,
    ending: watch::Sender<bool>,
) {
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
