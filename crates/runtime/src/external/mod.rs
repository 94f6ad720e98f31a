//! Runtimes that are programs of their own and speak Golem's runtime protocol.

mod message;
mod program;
mod service;
mod uplink;
mod volume;
mod wire;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    net::IpAddr,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gvpn_model::NetworkId;
use gvpn_vnic::Nic;
use tokio::{
    io::AsyncWriteExt,
    net::{UdpSocket, unix::pipe},
    sync::OnceCell,
};

use crate::{
    Access, Exit, Names, NetworkConfig, Output, Payload, Program, Runtime, RuntimeError, Usage,
};
use message::{
    Answer, Capture, CreateNetwork, ENVIRONMENT, Endpoints, Hello, LeaveNetwork, NETWORKS, Network,
    Order, Rename, Run,
};
use program::{Executable, Streams};
use service::Service;
use uplink::Uplink;
use volume::Volumes;

/// The version of the protocol that is spoken.
const VERSION: &str = "0.1.0";
/// How much of a program's output a runtime may hold back.
const HELD: u32 = 40_960;
/// Counters that runtimes report.
const CPU_COUNTER: &str = "golem.usage.cpu_sec";

/// How long a runtime may take for what it is told.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// `deploy`: it may unpack a large image.
    pub deploy: Duration,
    /// Its first answer after `start`: it may boot a machine.
    pub start: Duration,
    /// Any other answer.
    pub answer: Duration,
    /// Its end, when told to end.
    pub stop: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            deploy: Duration::from_secs(600),
            start: Duration::from_secs(120),
            answer: Duration::from_secs(30),
            stop: Duration::from_secs(10),
        }
    }
}

/// A runtime that is a program: `offer-template`, `test`, `deploy`, `start` and `run` on its command
/// line, protocol buffers over its standard input and output once it serves, Ethernet over a socket.
#[derive(Debug)]
pub struct External {
    executable: Executable,
    patience: Patience,
    deployed: OnceCell<Deployed>,
    service: OnceCell<Service>,
    uplink: Uplink,
    /// What the networks should be, for when the runtime serves.
    networks: tokio::sync::Mutex<BTreeMap<NetworkId, NetworkConfig>>,
    names: Mutex<Names>,
    features: Mutex<Vec<String>>,
}

/// What `deploy` gave.
#[derive(Debug)]
struct Deployed {
    workdir: PathBuf,
    volumes: Volumes,
    serves: bool,
}

/// What a runtime prints on `deploy`.
#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeployAnswer {
    valid: Result<String, String>,
    #[serde(default)]
    vols: Vec<volume::Volume>,
    #[serde(default)]
    start_mode: StartMode,
}

#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
enum StartMode {
    /// Each program is a command of its own.
    #[default]
    Empty,
    /// `start` stays and serves.
    Blocking,
}

impl External {
    /// The runtime that is the program at this path.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            executable: Executable { path: program.into() },
            patience: Patience::default(),
            deployed: OnceCell::new(),
            service: OnceCell::new(),
            uplink: Uplink::default(),
            networks: tokio::sync::Mutex::default(),
            names: Mutex::default(),
            features: Mutex::default(),
        }
    }

    /// With other limits of time.
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    fn failed(&self, what: &str) -> RuntimeError {
        RuntimeError::Failed(format!("the runtime {}: {what}", self.executable.name()))
    }

    fn deployed(&self) -> Result<&Deployed, RuntimeError> {
        self.deployed.get().ok_or_else(|| RuntimeError::NotRunning(": it was not deployed".into()))
    }

    fn service(&self) -> Result<&Service, RuntimeError> {
        self.service.get().ok_or_else(|| RuntimeError::NotRunning(": it was not started".into()))
    }

    fn has(&self, feature: &str) -> bool {
        lock(&self.features).iter().any(|known| known == feature)
    }

    fn args(&self, payload: &Payload, command: &[&str]) -> Result<Vec<OsString>, RuntimeError> {
        let mut args = Executable::global_args(payload, &self.deployed()?.workdir);
        args.extend(command.iter().map(OsString::from));
        Ok(args)
    }

    /// Whether the program says that it takes an option.
    async fn takes(&self, payload: &Payload, option: &str) -> bool {
        let Ok(deployed) = self.deployed() else { return false };
        let helper = &payload.config().helper;
        let args = ["--help".into()];
        let help = self.executable.ask(helper, &deployed.workdir, &args, self.patience.answer);
        help.await.is_ok_and(|text| String::from_utf8_lossy(&text).contains(option))
    }

    /// Greets a runtime that has just been started and gives it its networks.
    async fn greet(&self, service: &Service, udp: Option<UdpSocket>) -> Result<(), RuntimeError> {
        let features = vec![NETWORKS.to_owned(), ENVIRONMENT.to_owned()];
        let hello = Order::Hello(Hello { version: VERSION.to_owned(), features });
        match service.ask("hello", hello, self.patience.start).await?.0 {
            Answer::Hello(hello) => *lock(&self.features) = hello.features,
            _ => return Err(self.failed("hello: it gave the answer to another question")),
        }
        let networks = self.networks.lock().await;
        if networks.is_empty() {
            return Ok(());
        }
        self.create(service, &networks.values().collect::<Vec<_>>(), udp).await
    }

    async fn create(
        &self,
        service: &Service,
        networks: &[&NetworkConfig],
        udp: Option<UdpSocket>,
    ) -> Result<(), RuntimeError> {
        let live = self.has(NETWORKS);
        let hosts = lock(&self.names).hosts.clone();
        let order = CreateNetwork {
            networks: networks.iter().map(|network| describe(network, live)).collect(),
            hosts: hosts.into_iter().map(|(name, ip)| (name, ip.to_string())).collect(),
            interface: 0,
        };
        let asked = service.ask("network", Order::CreateNetwork(order), self.patience.answer);
        let endpoint = match asked.await?.0 {
            Answer::CreateNetwork(Endpoints { endpoint: Some(endpoint) }) => endpoint,
            _ => return Err(self.failed("network: it named no endpoint")),
        };
        let ids: Vec<NetworkId> = networks.iter().map(|network| network.network).collect();
        let connected = self.uplink.connect(endpoint.clone(), udp, &ids);
        let connected = tokio::time::timeout(self.patience.answer, connected).await;
        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|e| {
            self.failed(&format!("network: cannot connect to its endpoint {endpoint:?}: {e}"))
        })
    }

    /// Runs a program of a runtime that serves.
    async fn run_served(&self, program: Program, output: Output) -> Result<Exit, RuntimeError> {
        let service = self.service()?;
        let name = program.path.clone();
        let capture = Some(Capture { at_end: Some(HELD) });
        let env = if self.has(ENVIRONMENT) { program.env } else { BTreeMap::new() };
        let order = Run {
            bin: program.path,
            args: program.args,
            work_dir: program.directory.unwrap_or_default(),
            stdout: capture.clone(),
            stderr: capture,
            env: env.into_iter().collect(),
        };
        let asked = service.ask("run", Order::Run(order), self.patience.answer).await;
        let reply =
            asked.map_err(|e| RuntimeError::Program { program: name, reason: e.to_string() })?;
        let (Answer::Run(_), Some(mut statuses)) = reply else {
            return Err(self.failed("run: it gave the answer to another question"));
        };
        let open = |fd| pipe::Sender::from_owned_fd(fd).map_err(RuntimeError::io("open a pipe"));
        let (mut stdout, mut stderr) = (open(output.stdout)?, open(output.stderr)?);
        while let Some(status) = statuses.recv().await {
            // Where nobody listens any more there is nobody to tell.
            let _ = stdout.write_all(&status.stdout).await;
            let _ = stderr.write_all(&status.stderr).await;
            if !status.running {
                return Ok(Exit::Code(status.return_code));
            }
        }
        Err(self.failed(&service.ended().await))
    }
}

impl Runtime for External {
    async fn deploy(&self, payload: &Payload) -> Result<(), RuntimeError> {
        let config = payload.config();
        let workdir = config.directory.join("runtime");
        std::fs::create_dir_all(&workdir)
            .map_err(RuntimeError::io(format!("make directory {}", workdir.display())))?;
        let mut args = Executable::global_args(payload, &workdir);
        args.push("deploy".into());
        let (helper, patience) = (&config.helper, self.patience.deploy);
        let printed = self.executable.ask(helper, &workdir, &args, patience).await?;
        let answer = read_deploy(&printed).map_err(|reason| self.failed(&reason))?;
        if let Err(reason) = answer.valid {
            return Err(self.failed(&format!("deploy: {reason}")));
        }
        let volumes = Volumes::new(&workdir, answer.vols)
            .map_err(|reason| self.failed(&format!("deploy: {reason}")))?;
        let serves = answer.start_mode == StartMode::Blocking;
        let _ = self.deployed.set(Deployed { workdir, volumes, serves });
        Ok(())
    }

    async fn start(&self, payload: &Payload, args: &[String]) -> Result<(), RuntimeError> {
        if !self.deployed()?.serves {
            return Ok(());
        }
        let mut own = Executable::global_args(payload, &self.deployed()?.workdir);
        let mut udp = None;
        if !self.networks.lock().await.is_empty() && self.takes(payload, "--vpn-endpoint").await {
            let bound = UdpSocket::bind("127.0.0.1:0").await;
            let bound = bound.map_err(RuntimeError::io("open a UDP socket"))?;
            let address = bound.local_addr().map_err(RuntimeError::io("open a UDP socket"))?;
            own.extend(["--vpn-endpoint".into(), format!("udp://{address}").into()]);
            udp = Some(bound);
        }
        own.push("start".into());
        own.extend(args.iter().map(OsString::from));
        let (helper, workdir) = (&payload.config().helper, &self.deployed()?.workdir);
        let running = self.executable.start(helper, workdir, &own, Streams::Channel).await?;
        let service = Service::new(self.executable.name(), running)
            .map_err(RuntimeError::io("talk to the runtime"))?;
        if let Err(e) = self.greet(&service, udp).await {
            service.stop(Duration::ZERO).await;
            self.uplink.close();
            return Err(e);
        }
        let _ = self.service.set(service);
        let names = lock(&self.names).clone();
        self.rename(payload, &names).await
    }

    async fn run(
        &self,
        payload: &Payload,
        program: Program,
        output: Output,
    ) -> Result<Exit, RuntimeError> {
        if self.deployed()?.serves {
            return self.run_served(program, output).await;
        }
        let mut args = self.args(payload, &["run", &program.path])?;
        args.extend(program.args.iter().map(OsString::from));
        let (helper, workdir) = (&payload.config().helper, &self.deployed()?.workdir);
        let streams = Streams::Pipes { stdout: output.stdout, stderr: output.stderr };
        let mut running = self.executable.start(helper, workdir, &args, streams).await?;
        let status = running.process.wait().await;
        let status = status.map_err(RuntimeError::io("wait for the program"))?;
        Ok(Exit::Code(status.code().unwrap_or(1)))
    }

    async fn stop(&self, _payload: &Payload) -> Result<(), RuntimeError> {
        if let Some(service) = self.service.get() {
            service.stop(self.patience.stop).await;
        }
        self.uplink.close();
        Ok(())
    }

    async fn open(
        &self,
        _payload: &Payload,
        path: &str,
        access: Access,
    ) -> Result<File, RuntimeError> {
        let opened = self.deployed()?.volumes.open(path, access);
        opened.map_err(|reason| self.failed(&format!("cannot open {path}: {reason}")))
    }

    async fn usage(&self, _payload: &Payload) -> Result<Usage, RuntimeError> {
        let cpu_sec = self.service()?.counter(CPU_COUNTER).filter(|v| v.is_finite() && *v >= 0.0);
        Ok(Usage { cpu_sec: cpu_sec.unwrap_or_default(), ..Usage::default() })
    }

    async fn ended(&self, _payload: &Payload) -> String {
        let Some(service) = self.service.get() else { return std::future::pending().await };
        let name = self.executable.name();
        let reason = tokio::select! {
            reason = service.ended() => reason,
            reason = self.uplink.failed() => {
                // A runtime that has died closes its network first.
                let died = tokio::time::timeout(Duration::from_secs(1), service.ended()).await;
                died.unwrap_or_else(|_| format!("its network: {reason}"))
            }
        };
        format!("the runtime {name}: {reason}")
    }

    async fn join(&self, _payload: &Payload, network: &NetworkConfig) -> Result<Nic, RuntimeError> {
        if !self.deployed()?.serves {
            return Err(self.failed("it does not stay running, so it can be in no network"));
        }
        let id = network.network;
        let nic = self.uplink.add(id, &network.addresses)?;
        let mut networks = self.networks.lock().await;
        if let Some(service) = self.service.get()
            && let Err(e) = self.create(service, &[network], None).await
        {
            self.uplink.remove(id);
            return Err(e);
        }
        networks.insert(id, network.clone());
        Ok(nic)
    }

    async fn update(
        &self,
        _payload: &Payload,
        network: &NetworkConfig,
    ) -> Result<(), RuntimeError> {
        let id = network.network;
        let mut networks = self.networks.lock().await;
        let changed = networks.get(&id).is_none_or(|known| {
            let shape = |n: &NetworkConfig| (n.addresses.clone(), n.routes.clone(), n.mtu);
            shape(known) != shape(network)
        });
        if let Some(service) = self.service.get()
            && changed
        {
            if !self.has(NETWORKS) {
                let text = "it cannot change a network while it runs: end the activity and \
                            deploy it anew";
                return Err(self.failed(text));
            }
            let order = Order::UpdateNetwork(describe(network, true));
            service.ask("network change", order, self.patience.answer).await?;
        }
        self.uplink.update(id, &network.addresses);
        networks.insert(id, network.clone());
        Ok(())
    }

    async fn leave(&self, _payload: &Payload, network: NetworkId) -> Result<(), RuntimeError> {
        self.networks.lock().await.remove(&network);
        self.uplink.remove(network);
        if let Some(service) = self.service.get()
            && self.has(NETWORKS)
            && !service.is_over()
        {
            let order = Order::LeaveNetwork(LeaveNetwork { id: network.to_string() });
            service.ask("network removal", order, self.patience.answer).await?;
        }
        Ok(())
    }

    async fn rename(&self, _payload: &Payload, names: &Names) -> Result<(), RuntimeError> {
        *lock(&self.names) = names.clone();
        let Some(service) = self.service.get().filter(|_| self.has(NETWORKS)) else {
            return Ok(());
        };
        let order = Order::Rename(Rename {
            hostname: names.hostname.clone(),
            hosts: names.hosts_file(),
            resolv_conf: names.resolv_conf(),
        });
        service.ask("names", order, self.patience.answer).await.map(drop)
    }
}

/// A network as the protocol says it: the first address of IPv4, or the first one; more to those who
/// understand more.
fn describe(network: &NetworkConfig, live: bool) -> Network {
    let first = network.addresses.iter().find(|a| a.addr().is_ipv4());
    let first = first.or(network.addresses.first());
    let gateway = network
        .gateways
        .iter()
        .find(|gateway| first.is_some_and(|first| first.addr().is_ipv4() == gateway.is_ipv4()));
    let text = |ip: Option<IpAddr>| ip.map(|ip| ip.to_string()).unwrap_or_default();
    let mut described = Network {
        addr: text(first.map(ipnet::IpNet::network)),
        gateway: text(gateway.copied()),
        mask: text(first.map(ipnet::IpNet::netmask)),
        if_addr: text(first.map(ipnet::IpNet::addr)),
        ..Network::default()
    };
    if live {
        described.id = network.network.to_string();
        described.addresses = network.addresses.iter().map(ToString::to_string).collect();
        described.routes = network.routes.iter().map(ToString::to_string).collect();
        described.mtu = network.mtu.into();
    }
    described
}

/// Reads what `deploy` printed: nothing, or a JSON object after whatever else.
fn read_deploy(printed: &[u8]) -> Result<DeployAnswer, String> {
    if printed.trim_ascii().is_empty() {
        let valid = Ok(String::new());
        return Ok(DeployAnswer { valid, vols: vec![], start_mode: StartMode::Empty });
    }
    let shown = || String::from_utf8_lossy(&printed[..printed.len().min(200)]).into_owned();
    let start = printed.iter().position(|byte| *byte == b'{');
    let start = start.ok_or_else(|| format!("deploy printed no JSON object but `{}`", shown()))?;
    let mut values = serde_json::Deserializer::from_slice(&printed[start..]).into_iter();
    match values.next() {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(e)) => Err(format!("deploy printed `{}`: {e}", shown())),
        None => Err("deploy printed nothing".to_owned()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
