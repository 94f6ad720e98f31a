//! The supervisor process.

mod batch;
mod daemon;
mod deploy;
mod fetch;
mod networks;
mod output;
mod transfer;
mod volumes;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    os::fd::{AsFd, OwnedFd},
    process::exit,
    rc::Rc,
    time::Instant,
};

use gvpn_model::{ActivityState, StatePair};
use gvpn_runtime::{AnyRuntime, Payload, PayloadConfig, Usage, helper_main};
use gvpn_vnic::channel::{self, Receiver};
use tokio::{
    sync::{Mutex, mpsc},
    task::LocalSet,
};

use crate::{
    ExeUnitConfig, sweep,
    wire::{Command, Report},
};
use batch::{Batch, Place};
use daemon::Daemon;
use networks::Networks;

/// Entry point of an ExeUnit process and of the helper processes that it starts: call it first thing
/// in `main`, before any thread exists.
pub fn exeunit_main() -> ! {
    exeunit_main_with(|_| None)
}

/// As [`exeunit_main`], for a program with runtimes of its own: `own` makes the runtime of a name, and
/// is asked before those that ship with [`gvpn_runtime`].
pub fn exeunit_main_with(own: impl FnOnce(&str) -> Option<AnyRuntime>) -> ! {
    let name = std::env::args().next_back().unwrap_or_default();
    let outcome = helper_main(&name).unwrap_or_else(|| supervise(own));
    exit(match outcome {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("exeunit: {e}");
            1
        }
    })
}

fn supervise(own: impl FnOnce(&str) -> Option<AnyRuntime>) -> io::Result<()> {
    // The end of the channel tells that the daemon is gone, and leaves time to clear up.
    nix::sys::prctl::set_pdeathsig(None)?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    // The one thread: children die with the thread that started them, and namespaces are entered
    // between fork and exec.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = LocalSet::new().block_on(&runtime, run(socket, own));
    runtime.shutdown_background();
    outcome
}

async fn run(socket: OwnedFd, own: impl FnOnce(&str) -> Option<AnyRuntime>) -> io::Result<()> {
    let (sender, mut receiver) = channel::open(socket)?;
    let Some((Command::Setup(config), lifeline)) = receiver.receive().await? else {
        return Ok(());
    };
    let daemon = Rc::new(Daemon::new(sender));
    for fd in &lifeline {
        // Every process that this one starts inherits it; payloads close it.
        nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    }
    let chosen = own(&config.runtime).or_else(|| gvpn_runtime::by_name(&config.runtime));
    let Some(runtime) = chosen else {
        let reason = format!("this provider has no runtime `{}`", config.runtime);
        daemon.last_word(Some(reason)).await;
        return Ok(());
    };
    let (died, deaths) = mpsc::unbounded_channel();
    let unit = Rc::new(Unit::new(*config, runtime, daemon, died));
    unit.daemon.report(Report::Up).await;
    let reason = unit.clone().serve(receiver, deaths).await;
    unit.end().await;
    unit.daemon.last_word(reason).await;
    Ok(())
}

/// The activity.
struct Unit {
    config: ExeUnitConfig,
    daemon: Rc<Daemon>,
    runtime: AnyRuntime,
    payload: Payload,
    state: Cell<StatePair>,
    networks: Mutex<Networks>,
    /// Environment of every program, from `deploy`.
    env: RefCell<BTreeMap<String, String>>,
    /// Paths of its volumes, from `deploy`.
    volumes: RefCell<Vec<String>>,
    started: Cell<Option<Instant>>,
    /// What was used when it was measured last.
    used: Cell<Usage>,
    /// The command that runs now.
    running: Cell<Option<Place>>,
    /// Why the payload ended without being asked to.
    died: mpsc::UnboundedSender<String>,
}

impl Unit {
    fn new(
        config: ExeUnitConfig,
        runtime: AnyRuntime,
        daemon: Rc<Daemon>,
        died: mpsc::UnboundedSender<String>,
    ) -> Self {
        let payload = Payload::new(PayloadConfig {
            activity: config.activity,
            directory: config.workdir.clone(),
            images: config.images.clone(),
            image: None,
            limits: config.limits.clone(),
            agent: config.agent(),
            helper: config.helper(),
        });
        let networks = Mutex::new(Networks::new(&config.activity));
        Self {
            config,
            daemon,
            runtime,
            payload,
            state: Cell::new((ActivityState::Initialized, None)),
            networks,
            env: RefCell::default(),
            volumes: RefCell::default(),
            started: Cell::default(),
            used: Cell::default(),
            running: Cell::default(),
            died,
        }
    }

    /// Serves the daemon until it is time to end; says why.
    async fn serve(
        self: Rc<Self>,
        mut receiver: Receiver,
        mut deaths: mpsc::UnboundedReceiver<String>,
    ) -> Option<String> {
        let (batches, waiting) = mpsc::unbounded_channel();
        let (changes, changing) = mpsc::unbounded_channel();
        let mut work = tokio::task::spawn_local(self.clone().run_batches(waiting));
        let follow = tokio::task::spawn_local(self.clone().follow(changing));
        let reason = loop {
            let command = tokio::select! {
                command = receiver.receive::<Command>() => command,
                ended = &mut work => break ended.unwrap_or_else(|e| Some(e.to_string())),
                Some(reason) = deaths.recv() => break Some(reason),
            };
            match command {
                Ok(Some((Command::Exec { batch, script, networks }, _))) => {
                    let _ = batches.send(Batch { id: batch, script, networks });
                }
                Ok(Some((Command::Configure(network), _))) => {
                    let _ = changes.send(networks::Change::Set(network));
                }
                Ok(Some((Command::RemoveNetwork(network), _))) => {
                    let _ = changes.send(networks::Change::Remove(network));
                }
                Ok(Some((Command::PollUsage, _))) => {
                    let unit = self.clone();
                    tokio::task::spawn_local(async move { unit.report_usage().await });
                }
                Ok(Some((Command::Reply { id, outcome }, _))) => self.daemon.replied(id, outcome),
                Ok(Some((Command::Terminate(reason), _))) => break reason,
                Ok(Some((Command::Setup(_), _))) => {}
                Ok(None) => break Some("its daemon is gone".to_owned()),
                Err(e) => break Some(format!("its daemon was not understood: {e}")),
            }
        };
        work.abort();
        follow.abort();
        if !work.is_finished() {
            let _ = work.await;
        }
        self.interrupt(reason.as_deref()).await;
        reason
    }

    /// Tells when the payload ends without being asked to.
    async fn watch(self: Rc<Self>) {
        let reason = self.runtime.ended(&self.payload).await;
        if self.state.get() == (ActivityState::Ready, None) {
            let _ = self.died.send(reason);
        }
    }

    /// Says what was used: as it is now, or as it was when the payload ended.
    async fn report_usage(&self) {
        if self.state.get().0 == ActivityState::Ready {
            let mut usage = self.runtime.usage(&self.payload).await.unwrap_or(self.used.get());
            let started = self.started.get();
            usage.duration_sec = started.map_or(0.0, |start| start.elapsed().as_secs_f64());
            self.used.set(usage);
        }
        self.daemon.report(Report::Usage(self.used.get())).await;
    }

    async fn set_state(&self, now: ActivityState, next: Option<ActivityState>) {
        self.state.set((now, next));
        self.daemon.report(Report::State((now, next))).await;
    }

    /// Ends the payload and removes its files.
    async fn end(&self) {
        if self.state.get().0 != ActivityState::Terminated {
            self.set_state(self.state.get().0, Some(ActivityState::Terminated)).await;
            self.stop().await;
        }
        gvpn_runtime::remove_groups(Some(self.config.activity));
        let workdir = vec![self.config.workdir.clone()];
        let removed = sweep::remove(workdir, &self.config.agent(), &self.config.helper()).await;
        if let Err(e) = removed {
            eprintln!("exeunit: cannot remove {}: {e}", self.config.workdir.display());
        }
    }

    /// Ends the payload.
    async fn stop(&self) {
        self.report_usage().await;
        if let Err(e) = self.runtime.stop(&self.payload).await {
            eprintln!("exeunit: {e}");
        }
        self.networks.lock().await.leave_all(self).await;
        self.set_state(ActivityState::Terminated, None).await;
    }
}
