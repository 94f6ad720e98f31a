//! ExeUnits with a small daemon around them: vNICs joined by a hub, files in memory.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod family;
pub mod hop;
pub mod hub;
pub mod oci;
pub mod program;
pub mod switchboard;
pub mod user;

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use gvpn_exeunit::{ExeUnit, ExeUnitConfig, ExeUnitEvent, NetworkConfig};
use gvpn_model::{
    ActivityId, BatchEventKind, BatchId, CommandResult, ExeCommand, MemberId, NetworkId,
    ResultKind, StatePair,
};
use tokio::sync::{mpsc, watch};

use hub::Hub;
use switchboard::Switchboard;

/// Enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A directory for a test's activities, and the hub that their vNICs are attached to.
pub struct Rig {
    pub directory: tempfile::TempDir,
    pub hub: Hub,
    /// Used instead of the hub where it is there.
    pub board: Option<Switchboard>,
    pub files: Files,
}

/// Files behind `gftp:` addresses.
pub type Files = Arc<Mutex<HashMap<String, Vec<u8>>>>;

impl Rig {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory, hub: Hub::default(), board: None, files: Files::default() }
    }

    /// With the product's data path between the vNICs.
    pub fn with_switch() -> (Self, Switchboard) {
        let board = Switchboard::new();
        (Self { board: Some(board.clone()), ..Self::new() }, board)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A root file system with busybox in it.
    pub fn busybox_image(&self) -> PathBuf {
        let root = self.path("busybox");
        if !root.exists() {
            busybox_root(&root);
        }
        root
    }

    /// Adds a program of this host to the image with busybox, with its libraries.
    pub fn install(&self, program: &str) {
        gvpn_lab::image::install(&self.busybox_image(), program).unwrap();
    }

    pub fn config(&self, image: &Path) -> ExeUnitConfig {
        let id = ActivityId::random();
        let workdir = self.path("activities").join(id.to_string());
        let mut config = ExeUnitConfig::new(id, workdir, self.path("images"));
        config.exe = exe();
        config.image = Some(image.to_str().unwrap().to_owned());
        config
    }

    pub async fn spawn(&self, config: ExeUnitConfig) -> Activity {
        let workdir = config.workdir.clone();
        let (unit, events) = ExeUnit::spawn(config).await.unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let (ending, ended) = watch::channel(None);
        let (results, incoming) = mpsc::unbounded_channel();
        let hub = self.hub.clone();
        let files = self.files.clone();
        let board = self.board.clone();
        let keeper = Keeper { hub, board, files, seen: seen.clone(), results, ending };
        tokio::spawn(keeper.run(events));
        Activity { unit, workdir, seen, results: tokio::sync::Mutex::new(incoming), ended }
    }

    /// An activity with busybox, deployed in these networks and started.
    pub async fn ready(&self, networks: Vec<NetworkConfig>) -> Activity {
        let activity = self.spawn(self.config(&self.busybox_image())).await;
        let results = activity.script(&deploy_and_start(&networks), networks).await;
        assert_ok(&results);
        activity
    }
}

pub fn exe() -> PathBuf {
    std::env::var_os("GVPN_TEST_EXEUNIT")
        .unwrap_or(env!("CARGO_BIN_EXE_gvpn-exeunit").into())
        .into()
}

pub fn busybox_root(root: &Path) {
    for directory in ["bin", "etc", "root", "var/www"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| Path::new(p).exists());
    let busybox = busybox.expect("busybox-static is installed");
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    let list = Command::new(busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines() {
        let _ = symlink("busybox", root.join("bin").join(applet));
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\n").unwrap();
}

/// What a network of these tests looks like to its member number `n`.
pub fn network(network: NetworkId, n: u32) -> NetworkConfig {
    NetworkConfig {
        network,
        member: MemberId(n),
        addresses: vec![
            format!("10.20.0.{n}/24").parse().unwrap(),
            format!("fd20::{n}/64").parse().unwrap(),
        ],
        gateways: vec!["10.20.0.1".parse().unwrap()],
        routes: vec![],
        mtu: 1400,
        hosts: vec![("peer2".into(), "10.20.0.2".parse().unwrap())],
        dns: vec!["10.20.0.1".parse().unwrap()],
        search: vec!["test.vpn".into()],
    }
}

pub fn deploy_and_start(networks: &[NetworkConfig]) -> String {
    let net: Vec<_> = networks
        .iter()
        .map(|n| {
            serde_json::json!({"id": n.network, "ip": "10.20.0.0", "mask": "255.255.255.0",
                "nodeIp": n.addresses[0].addr(), "nodes": {}})
        })
        .collect();
    serde_json::json!([{"deploy": {"net": net}}, {"start": {}}]).to_string()
}

pub fn run(entry_point: &str, args: &[&str]) -> String {
    let at_end = serde_json::json!({"atEnd": {"format": "string"}});
    serde_json::json!([{"run": {"entry_point": entry_point, "args": args,
        "capture": {"stdout": at_end, "stderr": at_end}}}])
    .to_string()
}

/// As [`run`], with an output that is told as it comes.
pub fn run_told(entry_point: &str, args: &[&str]) -> String {
    serde_json::json!([{"run": {"entry_point": entry_point, "args": args,
        "capture": {"stdout": {"stream": {}}}}}])
    .to_string()
}

/// Waits until something is so.
pub async fn until(is_so: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "it does not come to be");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn assert_ok(results: &[CommandResult]) {
    for result in results {
        assert_eq!(result.result, ResultKind::Ok, "{result:#?}");
    }
}

/// An activity under test.
pub struct Activity {
    pub unit: ExeUnit,
    pub workdir: PathBuf,
    pub seen: Arc<Mutex<Seen>>,
    results: tokio::sync::Mutex<mpsc::UnboundedReceiver<(BatchId, CommandResult)>>,
    pub ended: watch::Receiver<Option<Option<String>>>,
}

/// What has been reported so far.
#[derive(Default)]
pub struct Seen {
    pub states: Vec<StatePair>,
    pub events: Vec<(u32, BatchEventKind)>,
    pub usage: Option<gvpn_exeunit::Usage>,
}

impl Activity {
    /// Runs a script to its end; its results.
    pub async fn script(&self, text: &str, networks: Vec<NetworkConfig>) -> Vec<CommandResult> {
        let script = ExeCommand::parse_script(text).unwrap();
        let batch = BatchId::random();
        self.unit.exec(batch, script, networks);
        let collect = async {
            let mut results = vec![];
            let mut incoming = self.results.lock().await;
            while let Some((of, result)) = incoming.recv().await {
                if of == batch {
                    let last = result.is_batch_finished;
                    results.push(result);
                    if last {
                        break;
                    }
                }
            }
            results
        };
        let ended = tokio::time::timeout(PATIENCE, collect).await;
        ended.unwrap_or_else(|_| panic!("the script does not end: {text}"))
    }

    /// Runs a shell command that must succeed; its output.
    pub async fn shell(&self, command: &str) -> String {
        let results = self.script(&run("/bin/sh", &["-c", command]), vec![]).await;
        assert_ok(&results);
        results[0].stdout.clone().unwrap()
    }

    /// Runs a shell command that must fail; its result.
    pub async fn shell_fails(&self, command: &str) -> CommandResult {
        let mut results = self.script(&run("/bin/sh", &["-c", command]), vec![]).await;
        assert_eq!(results[0].result, ResultKind::Error, "{results:#?}");
        results.remove(0)
    }

    /// Runs a shell command that says `begun`, and terminates the activity once it has said so; the
    /// command's results.
    pub async fn terminated_in(&self, script: &str) -> Vec<CommandResult> {
        let ending = async {
            let begun = |(_, kind): &(u32, BatchEventKind)| {
                *kind == BatchEventKind::Stdout("begun\n".into())
            };
            until(|| self.seen.lock().unwrap().events.iter().any(begun)).await;
            self.unit.terminate().await;
        };
        tokio::join!(self.script(script, vec![]), ending).0
    }

    /// Repeats a shell command until it succeeds; its output.
    pub async fn shell_until(&self, command: &str) -> String {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let results = self.script(&run("/bin/sh", &["-c", command]), vec![]).await;
            if results[0].result == ResultKind::Ok {
                return results[0].stdout.clone().unwrap_or_default();
            }
            assert!(std::time::Instant::now() < deadline, "{command}: {results:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the activity has gone; why.
    pub async fn gone(&self) -> Option<String> {
        let mut ended = self.ended.clone();
        let ended = tokio::time::timeout(PATIENCE, ended.wait_for(Option::is_some)).await;
        ended.expect("the activity ends").unwrap().clone().unwrap()
    }
}

struct Keeper {
    hub: Hub,
    board: Option<Switchboard>,
    files: Files,
    seen: Arc<Mutex<Seen>>,
    results: mpsc::UnboundedSender<(BatchId, CommandResult)>,
    ending: watch::Sender<Option<Option<String>>>,
}

impl Keeper {
    async fn run(self, mut events: mpsc::Receiver<ExeUnitEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                ExeUnitEvent::State(state) => self.seen.lock().unwrap().states.push(state),
                ExeUnitEvent::Batch(event) => {
                    self.seen.lock().unwrap().events.push((event.index, event.kind));
                }
                ExeUnitEvent::Result { batch, result } => {
                    let _ = self.results.send((batch, result));
                }
                ExeUnitEvent::AttachNic { network, member, nic, reply } => {
                    let attached = match &self.board {
                        Some(board) => board.attach(network, member, nic),
                        None => {
                            self.hub.attach(network, member, nic);
                            Ok(())
                        }
                    };
                    let _ = reply.send(attached);
                }
                ExeUnitEvent::DetachNic { network, member } => match &self.board {
                    Some(board) => board.detach(network, member),
                    None => self.hub.detach(network, member),
                },
                ExeUnitEvent::FetchFile { url, file, reply } => {
                    let bytes = self.files.lock().unwrap().get(&url).cloned();
                    let _ = reply.send(match bytes {
                        Some(bytes) => {
                            fs::File::from(file).write_all(&bytes).map_err(|e| e.to_string())
                        }
                        None => Err(format!("no file {url}")),
                    });
                }
                ExeUnitEvent::StoreFile { url, file, reply } => {
                    let mut bytes = vec![];
                    fs::File::from(file).read_to_end(&mut bytes).unwrap();
                    self.files.lock().unwrap().insert(url, bytes);
                    let _ = reply.send(Ok(()));
                }
                ExeUnitEvent::Sign { digest, reply } => {
                    let _ = reply.send(Ok(format!("signed {:02x}", digest[0])));
                }
                ExeUnitEvent::Usage(usage) => self.seen.lock().unwrap().usage = Some(usage),
                ExeUnitEvent::Exited { reason } => {
                    let _ = self.ending.send(Some(reason));
                    return;
                }
            }
        }
    }
}
