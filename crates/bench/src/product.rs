//! This product, whole: a relay, two daemons, a payload on each, payload to payload.

use std::{
    any::Any,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use gvpn_lab::{Host, Process};
use serde_json::Value;

use crate::{
    bed::{A, B, Bed},
    blast,
    system::{BenchError, GateAddress, KeysAge, Layout, Peer, Running, Side, System, Tunnel, io},
};

/// `gvpn`.
pub(crate) struct Product {
    binary: PathBuf,
}

impl Product {
    /// The product whose binary this is.
    pub(crate) fn new(binary: &Path) -> Self {
        Self { binary: fs::canonicalize(binary).unwrap_or_else(|_| binary.to_owned()) }
    }
}

impl System for Product {
    fn name(&self) -> &str {
        "gvpn"
    }

    fn available(&self) -> Result<(), String> {
        if self.binary.exists() {
            return Ok(());
        }
        Err(format!("{} is not there; build it with `make build`", self.binary.display()))
    }

    fn suits(&self, _: Layout) -> bool {
        true
    }

    fn up(&self, bed: &Bed, layout: Layout) -> Result<Tunnel, BenchError> {
        let dir = tempfile::tempdir().map_err(io("making a directory"))?;
        let force_chacha20 = layout == Layout::OtherCipher;
        let world = World { binary: &self.binary, dir: dir.path(), force_chacha20 };
        let mut processes = vec![
            world.relay(&bed.a)?,
            world.daemon(&bed.a, OWNER, A, 6999, "requestor")?,
            world.daemon(&bed.a, "a", A, 7000, "provider")?,
        ];
        let network = world.text(&bed.a, &["net", "create", "10.98.0.0/24", "--json"], "/id")?;
        let mut servers = Vec::new();
        for number in 0..layout.servers() {
            let (host, name) = match layout {
                Layout::OneHost => (&bed.a, "a".to_owned()),
                _ => (&bed.b, format!("b{number}")),
            };
            if layout != Layout::OneHost {
                processes.push(world.daemon(host, &name, B, 7000 + number, "provider")?);
            }
            let address = Ipv4Addr::new(10, 98, 0, 3 + number as u8);
            let payload = world.payload(&bed.a, host, &name, &network, address)?;
            servers.push(Peer { side: Box::new(payload), address: address.into() });
        }
        let mut gate = None;
        let client: Box<dyn Side> = if matches!(layout, Layout::Gate | Layout::LongGate) {
            let to = &mut servers[0].address;
            gate = Some(world.gate(&bed.a, &network, *to)?);
            for port in [5201, blast::GREETING_PORT] {
                processes.push(world.forward(&bed.a, &network, *to, port)?);
            }
            *to = Ipv4Addr::LOCALHOST.into();
            Box::new(bed.a.clone())
        } else {
            let address = Ipv4Addr::new(10, 98, 0, 2);
            Box::new(world.payload(&bed.a, &bed.a, "a", &network, address)?)
        };
        let keys_age = (layout == Layout::LongRun).then(|| world.keys_age(bed)).transpose()?;
        // Processes end before the directory that they write to.
        let guards: Vec<Box<dyn Any>> = vec![Box::new(processes), Box::new(dir)];
        Ok(Tunnel { client, servers, gate, keys_age, _guards: guards })
    }
}

/// The daemon that owns the network.
pub(crate) const OWNER: &str = "owner";

/// Where the daemons of one run keep their things.
pub(crate) struct World<'a> {
    pub(crate) binary: &'a Path,
    pub(crate) dir: &'a Path,
    /// Whether daemons are told to do without AES.
    pub(crate) force_chacha20: bool,
}

impl World<'_> {
    fn relay(&self, host: &Host) -> Result<Process, BenchError> {
        self.spawn(host, "relay", &["relay", "--listen", &format!("{A}:7464")])
    }

    fn daemon(
        &self,
        host: &Host,
        name: &str,
        ip: &str,
        port: u16,
        role: &str,
    ) -> Result<Process, BenchError> {
        self.daemon_of(host, name, &format!("{ip}:{port}"), &format!("{A}:7464"), role)
    }

    /// A daemon with this relay.
    pub(crate) fn daemon_of(
        &self,
        host: &Host,
        name: &str,
        listen: &str,
        relay: &str,
        role: &str,
    ) -> Result<Process, BenchError> {
        let listen = ["--listen", listen, "--relay", relay, "--api", "127.0.0.1:0"];
        let mut args = [&["daemon", "--role", role], &listen[..]].concat();
        if self.force_chacha20 {
            args.extend(["--cipher", "chacha20-poly1305"]);
        }
        let daemon = self.spawn(host, name, &args)?;
        eventually(|| self.output(host, name, &["status", "--json"]))?;
        Ok(daemon)
    }

    /// Where the owner's daemon has WebSockets to ports of a payload.
    fn gate(&self, host: &Host, network: &str, to: IpAddr) -> Result<GateAddress, BenchError> {
        let url = self.text(host, &["status", "--json"], "/api")?;
        let api = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let key = fs::read_to_string(self.dir.join(OWNER).join("appkey"));
        let key = key.map_err(io("reading an app key"))?.trim().to_owned();
        Ok(GateAddress { api, key, path: format!("/net-api/v2/vpn/net/{network}/tcp/{to}") })
    }

    /// Asks the client's daemon how old its keys with the first server's are.
    fn keys_age(&self, bed: &Bed) -> Result<KeysAge, BenchError> {
        let peer = json_text(&self.output(&bed.b, "b0", &["status", "--json"])?, "/nodeId")?;
        let (host, binary, dir) = (bed.a.clone(), self.binary.to_owned(), self.dir.to_owned());
        Ok(Box::new(move || {
            let world = World { binary: &binary, dir: &dir, force_chacha20: false };
            let text = world.output(&host, "a", &["status", "--json"])?.stdout;
            let status: Value = serde_json::from_slice(&text).unwrap_or_default();
            let peers = status["peers"].as_array().into_iter().flatten();
            let age = peers.filter(|with| with["node"] == peer.as_str()).find_map(|with| {
                serde_json::from_value::<Option<Duration>>(with["keysAge"].clone()).ok()?
            });
            age.ok_or_else(|| BenchError::Figure {
                program: "gvpn status".into(),
                output: String::from_utf8_lossy(&text).into_owned(),
            })
        }))
    }

    /// A port of the host's loopback that leads to one of a payload, through the gate.
    fn forward(
        &self,
        host: &Host,
        network: &str,
        to: IpAddr,
        port: u16,
    ) -> Result<Process, BenchError> {
        let forwarded = format!("{port}:{to}:{port}");
        let mut command = self.command(host, OWNER, &["forward", network, &forwarded]);
        command.inner().stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.spawn()?)
    }

    /// A payload of `owner`'s network on `name`'s daemon, with a program in it that waits.
    pub(crate) fn payload(
        &self,
        owner: &Host,
        host: &Host,
        name: &str,
        network: &str,
        ip: Ipv4Addr,
    ) -> Result<Payload, BenchError> {
        let ip = &ip.to_string();
        let node = json_text(&self.output(host, name, &["status", "--json"])?, "/nodeId")?;
        eventually(|| self.output(owner, OWNER, &["node", "add", network, &node, ip]))?;
        let image = self.image()?.display().to_string();
        let net = format!("{network}={ip}");
        let start = ["activity", "start", &node, "--image", &image, "--net", &net, "--json"];
        let started = eventually(|| self.output(owner, OWNER, &start))?;
        let activity = json_text(&started, "/activityId")?;
        let token = format!("86399.{}", ip.replace('.', ""));
        let mut waiting = self.command(
            owner,
            OWNER,
            &["activity", "exec", &activity, "/bin/busybox", "sleep", &token],
        );
        waiting.inner().stdout(Stdio::null()).stderr(Stdio::null());
        let waiting = waiting.spawn()?;
        let pid = eventually(|| process_with(&token))?;
        Ok(Payload { pid, _waiting: waiting })
    }

    /// A root file system with one static program.
    fn image(&self) -> Result<PathBuf, BenchError> {
        let path = self.dir.join("image.tar");
        let root = self.dir.join("image");
        if !path.exists() {
            fs::create_dir_all(root.join("bin")).map_err(io("making an image"))?;
            fs::copy("/bin/busybox", root.join("bin/busybox")).map_err(io("copying busybox"))?;
            let status =
                Command::new("tar").arg("-cf").arg(&path).arg("-C").arg(&root).arg(".").status();
            status.map_err(io("packing an image"))?;
        }
        Ok(path)
    }

    pub(crate) fn spawn(
        &self,
        host: &Host,
        name: &str,
        args: &[&str],
    ) -> Result<Process, BenchError> {
        let log =
            fs::File::create(self.dir.join(format!("{name}.log"))).map_err(io("making a log"))?;
        let mut command = self.command(host, name, args);
        let copy = log.try_clone().map_err(io("sharing a log"))?;
        command.inner().stdout(log).stderr(copy);
        Ok(command.spawn()?)
    }

    fn command(&self, host: &Host, name: &str, args: &[&str]) -> gvpn_lab::HostCommand {
        let mut command = host.command(self.binary);
        command.arg("--data-dir").arg(self.dir.join(name)).args(args);
        command
    }

    pub(crate) fn output(
        &self,
        host: &Host,
        name: &str,
        args: &[&str],
    ) -> Result<Output, BenchError> {
        let output = self.command(host, name, args).output()?;
        if output.status.success() {
            return Ok(output);
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(BenchError::Figure { program: format!("gvpn {}", args.join(" ")), output: said })
    }

    pub(crate) fn text(
        &self,
        host: &Host,
        args: &[&str],
        pointer: &str,
    ) -> Result<String, BenchError> {
        json_text(&self.output(host, OWNER, args)?, pointer)
    }
}

/// The network namespace of a payload.
pub(crate) struct Payload {
    pid: u32,
    _waiting: Process,
}

impl Payload {
    fn command(&self, program: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-n", "-t", &self.pid.to_string(), "--"]).args(program);
        command
    }
}

impl Side for Payload {
    fn output(&self, program: &[&str]) -> Result<Output, BenchError> {
        self.command(program).output().map_err(io("running a program"))
    }

    fn start(&self, program: &[&str]) -> Result<Running, BenchError> {
        let mut command = self.command(program);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Running::Child).map_err(io("starting a program"))
    }
}

/// The process on this machine that has `word` among its arguments and runs in a payload.
fn process_with(word: &str) -> Result<u32, BenchError> {
    let is_it = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
            words.first().is_some_and(|first| first.ends_with(b"busybox"))
                && words.contains(&word.as_bytes())
        })
    };
    fs::read_dir("/proc")
        .map_err(io("reading /proc"))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(is_it)
        .ok_or_else(|| BenchError::Figure {
            program: "sleep".into(),
            output: "it does not run".into(),
        })
}

fn json_text(output: &Output, pointer: &str) -> Result<String, BenchError> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|json| json.pointer(pointer)?.as_str().map(str::to_owned))
        .ok_or(BenchError::Figure { program: format!("gvpn ({pointer})"), output: text })
}

/// Repeats until it works, for half a minute at the most.
fn eventually<T>(mut attempt: impl FnMut() -> Result<T, BenchError>) -> Result<T, BenchError> {
    let begin = Instant::now();
    loop {
        match attempt() {
            Err(_) if begin.elapsed() < Duration::from_secs(30) => {
                thread::sleep(Duration::from_millis(100));
            }
            result => return result,
        }
    }
}
