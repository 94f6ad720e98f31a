//! The whole product on loopback: a relay, a requestor and providers, each a process of its own.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Enough for a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Everybody follows a change within this time, or the API says so.
pub const WAIT: &str = "wait=60";

/// A status and a JSON body.
pub type Answer = (u16, Value);

/// A relay and whatever daemons a test starts; all of it ends with this value.
pub struct Rig {
    dir: TempDir,
    relay: SocketAddr,
    _relay: Process,
}

/// A daemon.
pub struct Daemon {
    name: String,
    dir: PathBuf,
    args: Vec<String>,
    process: Option<Process>,
    http: Client<HttpConnector, Full<Bytes>>,
    url: String,
    key: String,
    pub id: String,
}

/// A process that is killed with its handle.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Rig {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        busybox_image(&dir.path().join("images/busybox"));
        let relay = free_address();
        let data = dir.path().join("relay");
        // Other tests have relays too: the ports that it would open by default are not for it alone.
        let none = ["--stream", "none", "--metrics", "none"];
        let args = ["relay", "--listen", &relay.to_string(), "--data-dir", &text(&data)];
        let args: Vec<_> = args.iter().chain(&none).map(|arg| (*arg).to_owned()).collect();
        let process = start(&args, &dir.path().join("relay.log"));
        let rig = Self { dir, relay, _relay: process };
        eventually("the relay listens", async || listens(rig.relay)).await;
        rig
    }

    pub async fn requestor(&self) -> Daemon {
        self.daemon("requestor", &["--role", "requestor"]).await
    }

    pub async fn provider(&self, name: &str) -> Daemon {
        let images = text(&self.images());
        self.daemon(name, &["--role", "provider", "--image-dir", &images]).await
    }

    /// A provider with this `config.toml`.
    pub async fn provider_with(&self, name: &str, config: &str, more: &[&str]) -> Daemon {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(dir.join("config.toml"), config).unwrap();
        let images = text(&self.images());
        let args = [&["--role", "provider", "--image-dir", &images], more].concat();
        self.daemon(name, &args).await
    }

    pub async fn daemon(&self, name: &str, more: &[&str]) -> Daemon {
        let dir = self.dir.path().join(name);
        let relay = self.relay.to_string();
        let data = text(&dir);
        let args: Vec<_> = ["daemon", "--data-dir", &data, "--api", "127.0.0.1:0", "--listen"]
            .into_iter()
            .chain(["127.0.0.1:0", "--relay", &relay])
            .chain(["--workers", "1"].into_iter().filter(|_| !more.contains(&"--workers")))
            .chain(more.iter().copied())
            .map(str::to_owned)
            .collect();
        // No connection stays open: tests count a daemon's descriptors.
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        let (name, url) = (name.to_owned(), String::new());
        let (key, id) = (String::new(), String::new());
        let mut daemon = Daemon { name, dir, args, process: None, http, url, key, id };
        daemon.start().await;
        daemon
    }

    pub fn images(&self) -> PathBuf {
        self.dir.path().join("images")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Adds a program of this host to the payloads' image, with its libraries.
    pub fn install(&self, program: &str) {
        gvpn_lab::image::install(&self.images().join("busybox"), program).unwrap();
    }
}

impl Daemon {
    /// Starts it, again after a [`kill`](Self::kill).
    pub async fn start(&mut self) {
        let _ = fs::remove_file(self.dir.join("api.url"));
        let log = self.dir.with_extension("log");
        self.process = Some(start(&self.args, &log));
        let file = self.dir.join("api.url");
        eventually("the daemon serves its API", async || file.exists()).await;
        self.url = fs::read_to_string(file).unwrap().trim().to_owned();
        self.key = fs::read_to_string(self.dir.join("appkey")).unwrap().trim().to_owned();
        let (status, answer) = self.get("/me").await;
        assert_eq!(status, 200, "{answer}");
        self.id = answer["identity"].as_str().unwrap().to_owned();
    }

    /// SIGKILL: no goodbyes.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// SIGTERM: an orderly end.
    pub async fn stop(&mut self) {
        if self.process.is_none() {
            return;
        }
        self.signal(nix::sys::signal::Signal::SIGTERM);
        let Some(mut process) = self.process.take() else { return };
        let mut ended = async || process.0.try_wait().unwrap().is_some();
        eventually("the daemon stops", async || ended().await).await;
    }

    /// SIGSTOP: nothing comes from it and nothing is taken.
    pub fn pause(&self) {
        self.signal(nix::sys::signal::Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(nix::sys::signal::Signal::SIGCONT);
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.pid().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().0.id()
    }

    pub fn client(&self) -> gvpn_sdk::Client {
        gvpn_sdk::Client::new(&self.url, Some(&self.key)).unwrap()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn websocket(&self, path: &str) -> String {
        format!("{}{path}?authToken={}", self.url.replacen("http", "ws", 1), self.key)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, Value::Null).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path, Value::Null).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call(Method::PATCH, path, body).await
    }

    /// PATCHes something of a network and waits until every member's node follows.
    pub async fn set(&self, path: &str, edit: Value) -> Value {
        let (status, answer) = self.patch(&format!("/gvpn/v1/net/{path}?{WAIT}"), edit).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.key))
            .body(Full::from(body))
            .unwrap();
        let response = self.http.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// A response that is no JSON.
    pub async fn get_text(&self, path: &str) -> String {
        let body = self.stream(path).await.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// A response whose body is read as it comes.
    pub async fn stream(&self, path: &str) -> hyper::Response<hyper::body::Incoming> {
        let request = Request::builder()
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.key))
            .header("accept", "text/event-stream")
            .body(Full::default())
            .unwrap();
        self.http.request(request).await.unwrap()
    }

    pub async fn network(&self, ip: &str) -> String {
        let (status, network) = self.post("/net-api/v1/net", json!({ "ip": ip })).await;
        assert_eq!(status, 200, "{network}");
        network["id"].as_str().unwrap().to_owned()
    }

    pub async fn add_node(&self, network: &str, node: &Daemon, ip: &str) {
        let path = format!("/net-api/v1/net/{network}/nodes");
        let answer = self.post(&path, json!({ "id": node.id, "ip": ip })).await;
        assert_eq!(answer, (200, Value::Null));
    }

    /// An agreement and an activity with busybox.
    pub async fn activity(&self, provider: &Daemon) -> String {
        self.activity_of(json!({ "provider": provider.id, "image": "busybox" })).await
    }

    /// An activity by this agreement.
    pub async fn activity_of(&self, ask: Value) -> String {
        self.activity_under(&self.agreement(ask).await).await
    }

    pub async fn agreement(&self, ask: Value) -> String {
        // A provider that has just started may not be registered at the relay yet.
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let (status, answer) = self.post("/gvpn/v1/agreements", ask.clone()).await;
            if status == 200 {
                return answer["id"].as_str().unwrap().to_owned();
            }
            assert!(status == 504 && std::time::Instant::now() < limit, "{status} {answer}");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    pub async fn activity_under(&self, agreement: &str) -> String {
        let ask = json!({ "agreementId": agreement });
        let (status, activity) = self.post("/activity-api/v1/activity", ask).await;
        assert_eq!(status, 200, "{activity}");
        activity["activityId"].as_str().unwrap().to_owned()
    }

    pub async fn begin(&self, activity: &str, script: Value) -> Answer {
        let body = json!({ "text": script.to_string() });
        self.post(&format!("/activity-api/v1/activity/{activity}/exec"), body).await
    }

    /// Results of a batch once it has finished.
    pub async fn finish(&self, activity: &str, batch: &str) -> Vec<Value> {
        let path = format!("/activity-api/v1/activity/{activity}/exec/{batch}?timeout=10");
        let start = Instant::now();
        loop {
            let (status, answer) = self.get(&path).await;
            assert_eq!(status, 200, "{answer}");
            let results = answer.as_array().unwrap();
            if results.last().is_some_and(|last| last["isBatchFinished"] == true) {
                return results.clone();
            }
            assert!(start.elapsed() < PATIENCE, "the batch does not end: {answer}");
        }
    }

    pub async fn exec(&self, activity: &str, script: Value) -> Vec<Value> {
        let (status, batch) = self.begin(activity, script).await;
        assert_eq!(status, 200, "{batch}");
        self.finish(activity, batch.as_str().unwrap()).await
    }

    /// Runs a shell command in a payload; its standard output, or the error.
    pub async fn sh(&self, activity: &str, command: &str) -> Result<String, String> {
        let results = self.exec(activity, json!([run("/bin/sh", &["-c", command])])).await;
        let last = results.last().unwrap();
        if last["result"] == "Ok" {
            Ok(last["stdout"].as_str().unwrap_or_default().to_owned())
        } else {
            Err(format!("{} {} {}", last["message"], last["stdout"], last["stderr"]))
        }
    }

    /// Waits until a command in a payload succeeds.
    pub async fn comes_true(&self, activity: &str, command: &str) {
        eventually(command, async || self.sh(activity, command).await.is_ok()).await;
    }

    /// An activity with busybox, added to the network at `ip`, deployed and started.
    pub async fn payload(&self, provider: &Daemon, network: &str, ip: &str) -> String {
        let ask = json!({ "provider": provider.id, "image": "busybox" });
        self.payload_of(ask, provider, network, ip).await
    }

    /// As [`payload`](Self::payload), by this agreement.
    pub async fn payload_of(
        &self,
        ask: Value,
        provider: &Daemon,
        network: &str,
        ip: &str,
    ) -> String {
        let activity = self.activity_of(ask).await;
        self.add_node(network, provider, ip).await;
        let results = self.exec(&activity, json!([deploy(network, ip), { "start": {} }])).await;
        assert!(results.iter().all(|result| result["result"] == "Ok"), "{results:#?}");
        activity
    }

    pub async fn state(&self, activity: &str) -> String {
        let (status, answer) =
            self.get(&format!("/activity-api/v1/activity/{activity}/state")).await;
        assert_eq!(status, 200, "{answer}");
        answer["state"][0].as_str().unwrap().to_owned()
    }

    /// Processes that were started by this daemon's payloads and gates, wherever they are now.
    pub fn descendants(&self) -> Vec<u32> {
        let mut found = vec![self.pid()];
        let mut at = 0;
        while at < found.len() {
            found.extend(children(found[at]));
            at += 1;
        }
        found.split_off(1)
    }
}

pub fn deploy(network: &str, ip: &str) -> Value {
    json!({ "deploy": { "net": [{ "id": network, "ip": "10.0.0.0", "nodeIp": ip, "nodes": {} }] } })
}

pub fn run(entry_point: &str, args: &[&str]) -> Value {
    let at_end = json!({ "atEnd": { "format": "string" } });
    json!({ "run": { "entry_point": entry_point, "args": args,
        "capture": { "stdout": at_end, "stderr": at_end } } })
}

/// Waits until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < PATIENCE, "{what}: did not come about");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Processes that still exist.
pub fn alive(pids: &[u32]) -> Vec<u32> {
    let exists = |pid: &&u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z "))
    };
    pids.iter().filter(exists).copied().collect()
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}

fn start(args: &[String], log: &Path) -> Process {
    let log = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let program = std::env::var_os("GVPN_TEST_PROGRAM");
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_gvpn").into());
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    Process(child)
}

/// A root file system with busybox in it.
fn busybox_image(root: &Path) {
    for directory in ["bin", "etc", "root", "www"] {
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
}

/// A free UDP port below those that the system gives out by itself: no daemon gets it meanwhile.
fn free_address() -> SocketAddr {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(101) + TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + u16::try_from(number % 20_000).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// Whether somebody has this UDP address. Who tried to take it would be in the way of who wants it.
fn listens(address: SocketAddr) -> bool {
    let port = format!(":{:04X}", address.port());
    let sockets = fs::read_to_string("/proc/net/udp").unwrap();
    sockets.lines().filter_map(|line| line.split_whitespace().nth(1)).any(|at| at.ends_with(&port))
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
