//! The `vm` runtime: a payload with a kernel of its own.

mod card;
mod console;
mod cpio;
mod guest;
mod image;
mod kernel;
mod machine;
mod monitor;

use std::{
    fs::File,
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt},
    },
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gvpn_guest::Order;
use gvpn_model::NetworkId;
use gvpn_vnic::{Child, Nic};
use tokio::{sync::OnceCell, time::timeout};

use crate::{
    Access, Exit, Limits, Names, NetworkConfig, Output, Payload, Program, Runtime, RuntimeError,
    Usage,
    cage::{self, Cage},
    cgroup::Cgroup,
    keep,
    limits::PROCESSES,
    network::interface,
    usage,
};
use card::{Cards, Place, Plug};
use console::Console;
use guest::Guest;
use image::{Disk, Kind};
pub use machine::Machine;
use machine::Plan;
use monitor::Monitor;

/// How long a machine may take to boot; translated instructions on a busy host take their time.
const BOOT: Duration = Duration::from_secs(240);
/// How long a guest may take no orders, unless the environment says so in seconds.
const SILENCE: Duration = Duration::from_secs(120);
const PATIENCE: &str = "GVPN_VM_PATIENCE";
/// How long it may take to end by itself when told to.
const GRACE: Duration = Duration::from_secs(5);
/// How long a machine may take to find a card that was plugged in.
const APPEARANCE: Duration = Duration::from_secs(60);
/// Bytes of files in memory that a machine's process may have beside the machine's memory.
const BESIDES: u64 = 32 << 20;
/// Threads and processes of it beside those of the payload.
const THREADS: u64 = 64;
/// The largest file that a payload without a limit of storage may hand out.
const LARGEST_FILE: u64 = 64 << 30;

/// Runs the payload in a virtual machine with the payload's image as its disk, a kernel of the host's
/// packages, and the guest agent as its first process.
#[derive(Debug)]
pub struct Vm {
    machine: Result<Machine, String>,
    cards: Cards,
    disk: OnceCell<Disk>,
    running: OnceCell<Running>,
    state: Mutex<State>,
    /// Networks are told to the machine one after the other.
    telling: tokio::sync::Mutex<()>,
}

/// What the payload should be in.
#[derive(Debug, Default)]
struct State {
    names: Names,
    networks: Vec<NetworkConfig>,
}

/// A booted machine.
#[derive(Debug)]
struct Running {
    guest: Guest,
    monitor: Monitor,
    process: tokio::sync::Mutex<Child>,
    pid: u32,
    console: Console,
}

impl Vm {
    /// A runtime that uses this machine; `None`: the best that the host has.
    pub fn new(machine: Option<Machine>) -> Self {
        let machine = machine.map_or_else(Machine::best, Ok);
        let wiring = machine.as_ref().map_or(card::Wiring::Dgram, |machine| machine.wiring());
        let pluggable = machine.as_ref().is_ok_and(|machine| machine.is_pluggable());
        Self {
            machine,
            cards: Cards::new(wiring, pluggable),
            disk: OnceCell::new(),
            running: OnceCell::new(),
            state: Mutex::default(),
            telling: tokio::sync::Mutex::default(),
        }
    }

    fn running(&self) -> Result<&Running, RuntimeError> {
        self.running.get().ok_or_else(|| RuntimeError::NotRunning(": it was not started".into()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn boot(&self, payload: &Payload) -> Result<Running, RuntimeError> {
        let machine = self.machine.clone().map_err(RuntimeError::Failed)?;
        let Some(disk) = self.disk.get() else {
            return Err(RuntimeError::NotRunning(": it was not deployed".into()));
        };
        let kernel = machine.kernel().map_err(RuntimeError::Failed)?;
        let start = || RuntimeError::io("start the machine");
        let directory = payload.make_directory("vm").await?;
        for part in ["empty"].iter().chain(&cage::PARTS) {
            payload.make_directory(&format!("vm/{part}")).await?;
        }
        let initramfs = directory.join("initramfs");
        let (writing, to, kind) = (kernel.clone(), initramfs.clone(), disk.kind);
        let written = tokio::task::spawn_blocking(move || writing.write_initramfs(&to, kind)).await;
        written.map_err(|e| start()(io::Error::other(e)))?.map_err(start())?;
        let (line, agents_line) = UnixStream::pair().map_err(start())?;
        let agents_line = OwnedFd::from(agents_line);
        let (ours, monitor) = UnixStream::pair().map_err(start())?;
        let (ours, monitor) = (Monitor::new(ours).map_err(start())?, OwnedFd::from(monitor));
        let cards = self.cards.wire().map_err(start())?;
        let config = payload.config();
        // By way of descriptors: the machine's process may not come along the paths.
        let opened = [&kernel.image, &initramfs, &disk.path].map(File::open);
        let opened = opened.map(|file| file.map(OwnedFd::from).map_err(start()));
        let opened = opened.into_iter().collect::<Result<Vec<_>, _>>()?;
        let files: Vec<_> = opened.iter().map(machine::path_of).collect();
        let disk = Disk { path: files[2].clone(), kind: disk.kind };
        let limits = &config.limits;
        let plan = Plan {
            disk: &disk,
            kernel: &files[0],
            limits,
            line: &agents_line,
            cards: &cards,
            shares_memory: self.cards.share_memory(),
            monitor: &monitor,
        };
        let (program, args) = machine.command(&kernel, &files[1], &plan).into_bytes();
        let (shown, devices) = machine.needs(&program);
        let cage = Cage {
            shown,
            devices,
            files,
            writes: disk.kind == Kind::Ext4,
            // User-mode Linux would have its memory there.
            temporary: machine != Machine::UserMode,
            memory: machine::memory(limits) + BESIDES,
            processes: limits.processes.unwrap_or(PROCESSES) + THREADS,
        };
        let order = keep::Order { program, args, output_to_input: true, cage: Some(cage) };
        let namespace = payload.namespace().await?;
        let plugs = cards.into_iter().filter_map(|card| match card {
            Plug::Dgram(fd) | Plug::Stream(fd) => Some(fd),
            Plug::Vhost(_) => None,
        });
        let passed = machine::pass_on(plugs.chain([agents_line, monitor]).chain(opened).collect());
        let doors = self.processors(payload);
        let kept = keep::start(&config.helper, &order, |command| {
            // SAFETY: `write` on descriptors that the closure owns is async-signal-safe.
            unsafe { command.pre_exec(move || enter(&doors)) };
            command.current_dir(&directory);
            namespace.enter(command, false)?;
            // SAFETY: `fcntl` on descriptors that the closure owns is async-signal-safe.
            unsafe { command.pre_exec(passed) };
            Ok(())
        });
        let (process, console) = kept.await.map_err(start())?;
        let console = Console::read(console).map_err(start())?;
        line.set_nonblocking(true).map_err(start())?;
        let line = tokio::net::UnixStream::from_std(line).map_err(start())?;
        let pid = process.pid();
        let process = tokio::sync::Mutex::new(process);
        match timeout(BOOT, Guest::greet(line, machine.line_room())).await {
            Ok(Ok(guest)) => Ok(Running { guest, monitor: ours, process, pid, console }),
            Ok(Err(reason)) => Err(failed(&reason, &console).await),
            Err(_) => {
                let reason = format!("it did not boot within {} s", BOOT.as_secs());
                Err(failed(&reason, &console).await)
            }
        }
    }

    /// The way into a control group that bounds the machine's share of the processors, where the host lets us
    /// make one. Its memory is bounded by what it is built with.
    fn processors(&self, payload: &Payload) -> Vec<File> {
        let config = payload.config();
        let Some(cores) = config.limits.cpu_cores else { return vec![] };
        let limits = Limits { cpu_cores: Some(cores), ..Limits::default() };
        Cgroup::create(config.activity, &limits).map_or_else(Vec::new, |group| group.doors())
    }

    /// Tells the machine a network.
    async fn tell(&self, running: &Running, network: &NetworkConfig) -> Result<(), RuntimeError> {
        let Some(card) = self.cards.of(network.network) else {
            let text = format!("the payload is not in network {}", network.network);
            return Err(RuntimeError::Failed(text));
        };
        let order = Order::Configure(interface(card as u32, network));
        running.guest.obey("configure a network", order).await.map(drop)
    }

    async fn tell_names(&self, running: &Running) -> Result<(), RuntimeError> {
        let names = self.state().names.clone();
        let order = Order::Rename {
            hostname: names.hostname.clone(),
            hosts: names.hosts_file(),
            resolv_conf: names.resolv_conf(),
        };
        running.guest.obey("change names", order).await.map(drop)
    }
}

/// Gives a machine that runs a network card.
async fn plug_in(running: &Running, number: usize, plug: Plug) -> Result<(), RuntimeError> {
    let failed = |e| RuntimeError::Failed(format!("the machine takes no network card: {e}"));
    running.monitor.plug(number, plug).await.map_err(failed)?;
    let name = format!("eth{number}");
    let deadline = Instant::now() + APPEARANCE;
    loop {
        let order = Order::Adopt { name: name.clone(), mac: card::mac(number) };
        match running.guest.obey("find its network card", order).await {
            Err(_) if Instant::now() < deadline && !running.guest.is_over() => {}
            found => return found.map(drop),
        }
    }
}

/// Joins control groups. One that does not let us in does not keep the machine from running.
fn enter(doors: &[File]) -> io::Result<()> {
    for door in doors {
        let _ = nix::unistd::write(door, b"0");
    }
    Ok(())
}

/// How long a guest may take no orders before it is given up.
fn patience() -> Duration {
    let said = std::env::var(PATIENCE).ok().and_then(|text| text.parse().ok());
    said.map_or(SILENCE, Duration::from_secs)
}

async fn failed(reason: &str, console: &Console) -> RuntimeError {
    RuntimeError::Failed(format!("the machine: {reason}{}", console.tail().await))
}

impl Runtime for Vm {
    async fn deploy(&self, payload: &Payload) -> Result<(), RuntimeError> {
        let machine = self.machine.clone().map_err(RuntimeError::Failed)?;
        machine.probe().map_err(RuntimeError::Failed)?;
        let Some(image) = payload.image() else {
            let text =
                "the vm runtime needs an image: a squashfs, an ext4 file system or a directory";
            return Err(RuntimeError::Failed(text.to_owned()));
        };
        let images = payload.config().images.clone();
        let prepared = tokio::task::spawn_blocking(move || Disk::prepare(&image, &images)).await;
        let disk = prepared.map_err(|e| RuntimeError::Failed(e.to_string()))??;
        disk.check_size(payload.config().limits.storage)?;
        let _ = self.disk.set(disk);
        Ok(())
    }

    async fn start(&self, payload: &Payload, _args: &[String]) -> Result<(), RuntimeError> {
        let _telling = self.telling.lock().await;
        let running = self.boot(payload).await?;
        let networks = self.state().networks.clone();
        let (wanted, there) = (networks.len(), running.guest.interfaces.len());
        if there < wanted {
            let text = format!("the machine found {there} network cards of {wanted}");
            return Err(RuntimeError::Failed(text));
        }
        for network in &networks {
            self.tell(&running, network).await?;
        }
        self.tell_names(&running).await?;
        let _ = self.running.set(running);
        Ok(())
    }

    async fn run(
        &self,
        _payload: &Payload,
        program: Program,
        output: Output,
    ) -> Result<Exit, RuntimeError> {
        let Program { path, args, env, directory } = program;
        let program = gvpn_guest::Program { path, args, env, directory };
        self.running()?.guest.run(program, output).await
    }

    async fn stop(&self, _payload: &Payload) -> Result<(), RuntimeError> {
        let Some(running) = self.running.get() else { return Ok(()) };
        let mut process = running.process.lock().await;
        running.guest.stop().await;
        if timeout(GRACE, process.wait()).await.is_err() {
            process.signal(nix::sys::signal::Signal::SIGKILL);
            let _ = process.wait().await;
        }
        Ok(())
    }

    async fn open(
        &self,
        payload: &Payload,
        path: &str,
        access: Access,
    ) -> Result<File, RuntimeError> {
        let directory = payload.config().directory.clone();
        let made = RuntimeError::io("make a file for the transfer");
        let mut file = tempfile::tempfile_in(directory).map_err(made)?;
        if access == Access::Read {
            let most = payload.config().limits.storage.unwrap_or(LARGEST_FILE);
            let to = file.try_clone().map_err(RuntimeError::io("read the file"))?;
            self.running()?.guest.read(path, to, most).await?;
            io::Seek::rewind(&mut file).map_err(RuntimeError::io("read the file"))?;
        }
        Ok(file)
    }

    async fn close(
        &self,
        _payload: &Payload,
        path: &str,
        mut file: File,
    ) -> Result<(), RuntimeError> {
        io::Seek::rewind(&mut file).map_err(RuntimeError::io("read the file"))?;
        self.running()?.guest.write(path, file).await
    }

    async fn usage(&self, _payload: &Payload) -> Result<Usage, RuntimeError> {
        let running = self.running()?;
        let (cpu_sec, memory) = usage::of_family(running.pid);
        Ok(Usage { cpu_sec, memory, ..Usage::default() })
    }

    async fn ended(&self, _payload: &Payload) -> String {
        match self.running.get() {
            Some(running) => {
                let patience = patience();
                let reason = tokio::select! {
                    reason = running.guest.ended() => reason,
                    () = running.guest.silent(patience) => {
                        format!("it has not answered for {} s", patience.as_secs())
                    }
                };
                format!("the machine: {reason}{}", running.console.tail().await)
            }
            None => std::future::pending().await,
        }
    }

    async fn join(&self, payload: &Payload, network: &NetworkConfig) -> Result<Nic, RuntimeError> {
        let _telling = self.telling.lock().await;
        let id = network.network;
        if self.cards.need_a_place() {
            let directory = payload.make_directory("vm").await?;
            self.cards.set_place(Place { directory, owner: payload.namespace().await?.root() });
        }
        let nic = self.cards.take(id).map_err(RuntimeError::Failed)?;
        self.state().set(network);
        Ok(nic)
    }

    async fn joined(
        &self,
        _payload: &Payload,
        network: &NetworkConfig,
    ) -> Result<(), RuntimeError> {
        let _telling = self.telling.lock().await;
        let Some(running) = self.running.get() else { return Ok(()) };
        if let Some((number, plug)) = self.cards.unplugged(network.network) {
            plug_in(running, number, plug).await?;
        }
        self.tell(running, network).await
    }

    async fn update(
        &self,
        _payload: &Payload,
        network: &NetworkConfig,
    ) -> Result<(), RuntimeError> {
        let _telling = self.telling.lock().await;
        if let Some(running) = self.running.get() {
            self.tell(running, network).await?;
        }
        self.state().set(network);
        Ok(())
    }

    async fn leave(&self, _payload: &Payload, network: NetworkId) -> Result<(), RuntimeError> {
        let _telling = self.telling.lock().await;
        self.state().networks.retain(|known| known.network != network);
        let card = self.cards.of(network);
        let loose = self.cards.release(network);
        let (Some(card), Some(running)) = (card, self.running.get()) else { return Ok(()) };
        if running.guest.is_over() {
            return Ok(());
        }
        let order = Order::Clear { name: format!("eth{card}") };
        let mut left = running.guest.obey("leave a network", order).await.map(drop);
        if let Some(number) = loose {
            let pulled = running.monitor.pull(number).await;
            if pulled.is_ok() {
                self.cards.forget(number);
            }
            let failed =
                |e| RuntimeError::Failed(format!("the machine cannot leave a network: {e}"));
            left = left.and(pulled.map_err(failed));
        }
        // A machine that ends meanwhile is in no network.
        if running.guest.is_over() { Ok(()) } else { left }
    }

    async fn rename(&self, _payload: &Payload, names: &Names) -> Result<(), RuntimeError> {
        let _telling = self.telling.lock().await;
        self.state().names = names.clone();
        match self.running.get() {
            Some(running) => self.tell_names(running).await,
            None => Ok(()),
        }
    }
}

impl State {
    fn set(&mut self, network: &NetworkConfig) {
        self.networks.retain(|known| known.network != network.network);
        self.networks.push(network.clone());
    }
}
