//! Kills in the middle of things, clients that vanish, payloads that lie: nothing is left, and
//! nobody else notices. Daemons, ExeUnits and payloads are real processes on loopback.

mod rig;

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::{Daemon, Rig, alive, eventually, run};
use serde_json::{Value, json};

/// A web server that begins every answer and ends none.
struct Stalling {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Stalling {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let count = asked.clone();
        std::thread::spawn(move || {
            let mut open = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                if stream.read(&mut request).is_ok_and(|length| length > 0) {
                    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n";
                    let _ = stream.write_all(head.as_bytes());
                    let _ = stream.write_all(&[7; 100_000]);
                    count.fetch_add(1, Relaxed);
                }
                open.push(stream);
            }
        });
        Self { address, asked }
    }

    fn url(&self) -> String {
        format!("http://{}/image.tar", self.address)
    }
}

/// What an activity is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Middle {
    Deploy,
    Run,
    Transfer,
}

/// An activity in the middle of something, and its batch.
async fn busy(
    middle: Middle,
    requestor: &Daemon,
    provider: &Daemon,
    net: &str,
    ip: &str,
    server: &Stalling,
) -> (String, String) {
    let before = server.asked.load(Relaxed);
    let (activity, script) = match middle {
        Middle::Deploy => {
            let ask = json!({ "provider": provider.id, "image": server.url() });
            let (status, agreement) = requestor.post("/gvpn/v1/agreements", ask).await;
            assert_eq!(status, 200, "{agreement}");
            let ask = json!({ "agreementId": agreement["id"] });
            let (status, activity) = requestor.post("/activity-api/v1/activity", ask).await;
            assert_eq!(status, 200, "{activity}");
            let activity = activity["activityId"].as_str().unwrap().to_owned();
            (activity, json!([{ "deploy": {} }, { "start": {} }]))
        }
        Middle::Run => {
            let script = json!([run("/bin/sh", &["-c", "touch /tmp/begun; sleep 1000"])]);
            (requestor.payload(provider, net, ip).await, script)
        }
        Middle::Transfer => {
            let to = "container:/root/file";
            let script = json!([{ "transfer": { "from": server.url(), "to": to } }]);
            (requestor.payload(provider, net, ip).await, script)
        }
    };
    let (status, batch) = requestor.begin(&activity, script).await;
    assert_eq!(status, 200, "{batch}");
    eventually("the command runs", async || {
        let path = format!("/activity-api/v1/activity/{activity}/command");
        let (status, answer) = requestor.get(&path).await;
        let name = format!("{middle:?}").to_lowercase();
        let begun = middle == Middle::Run || server.asked.load(Relaxed) > before;
        status == 200 && answer["command"] == name.as_str() && begun
    })
    .await;
    (activity, batch.as_str().unwrap().to_owned())
}

async fn ends_with_an_error(requestor: &Daemon, activity: &str, batch: &str, what: &str) {
    let results = requestor.finish(activity, batch).await;
    let last = results.last().unwrap();
    assert!(last["result"] == "Error" && last["message"].is_string(), "{what}: {results:?}");
    eventually("the requestor sees the end", async || {
        requestor.state(activity).await == "Terminated"
    })
    .await;
}

/// Nothing of a provider's activities is there: no process, mount or file.
async fn nothing_left(dir: &Path, payloads: &[u32], what: &str) {
    eventually(&format!("{what}: no process"), async || alive(payloads).is_empty()).await;
    let activities = dir.join("activities");
    eventually(&format!("{what}: no file"), async || {
        fs::read_dir(&activities).map_or(0, Iterator::count) == 0
    })
    .await;
    let text = activities.display().to_string();
    eventually(&format!("{what}: no mount"), async || {
        let mounts = fs::read_dir("/proc").unwrap().flatten();
        let mounts = mounts.filter_map(|p| fs::read_to_string(p.path().join("mounts")).ok());
        !mounts.collect::<BTreeSet<_>>().iter().any(|mounts| mounts.contains(&text))
    })
    .await;
}

fn exeunits(provider: &Daemon) -> Vec<u32> {
    let line = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_one = |pid: &u32| line(pid).split(|&b| b == 0).any(|word| word == b"exeunit");
    provider.descendants().into_iter().filter(is_one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exeunit_that_is_killed_in_the_middle_leaves_nothing() {
    let rig = Rig::new().await;
    let (requestor, provider) = (rig.requestor().await, rig.provider("a").await);
    let (net, server) = (requestor.network("10.80.0.0/24").await, Stalling::start());
    let lasting = requestor.payload(&provider, &net, "10.80.0.2").await;
    let before: BTreeSet<_> = provider.descendants().into_iter().collect();
    let units: BTreeSet<_> = exeunits(&provider).into_iter().collect();
    for (n, middle) in [Middle::Deploy, Middle::Run, Middle::Transfer].into_iter().enumerate() {
        let ip = format!("10.80.0.{}", 10 + n);
        let (activity, batch) = busy(middle, &requestor, &provider, &net, &ip, &server).await;
        let new = |pids: Vec<u32>, old: &BTreeSet<u32>| {
            pids.into_iter().filter(|pid| !old.contains(pid)).collect::<Vec<_>>()
        };
        let its = new(provider.descendants(), &before);
        let unit = new(exeunits(&provider), &units);
        assert!(!unit.is_empty(), "{middle:?}");
        for pid in unit {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        ends_with_an_error(&requestor, &activity, &batch, &format!("{middle:?}")).await;
        eventually("no process of it", async || alive(&its).is_empty()).await;
        eventually("no file of it", async || {
            fs::read_dir(provider.dir().join("activities")).unwrap().count() == 1
        })
        .await;
        requestor.sh(&lasting, "true").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_killed_in_the_middle_leaves_nothing() {
    let rig = Rig::new().await;
    let (requestor, mut provider) = (rig.requestor().await, rig.provider("a").await);
    let (net, server) = (requestor.network("10.81.0.0/24").await, Stalling::start());
    requestor.payload(&provider, &net, "10.81.0.2").await;
    let mut busy_ones = Vec::new();
    for (n, middle) in [Middle::Deploy, Middle::Run, Middle::Transfer].into_iter().enumerate() {
        let ip = format!("10.81.0.{}", 10 + n);
        busy_ones.push((middle, busy(middle, &requestor, &provider, &net, &ip, &server).await));
    }
    let payloads = provider.descendants();
    provider.kill();
    eventually("no process is left", async || alive(&payloads).is_empty()).await;
    provider.start().await;
    for (middle, (activity, batch)) in &busy_ones {
        ends_with_an_error(&requestor, activity, batch, &format!("{middle:?}")).await;
    }
    nothing_left(provider.dir(), &payloads, "killed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requestor_that_is_killed_in_the_middle_can_still_end_everything() {
    let rig = Rig::new().await;
    let (mut requestor, provider) = (rig.requestor().await, rig.provider("a").await);
    let (net, server) = (requestor.network("10.82.0.0/24").await, Stalling::start());
    requestor.payload(&provider, &net, "10.82.0.2").await;
    let mut activities = Vec::new();
    for (n, middle) in [Middle::Deploy, Middle::Run, Middle::Transfer].into_iter().enumerate() {
        let ip = format!("10.82.0.{}", 10 + n);
        activities.push(busy(middle, &requestor, &provider, &net, &ip, &server).await.0);
    }
    let payloads = provider.descendants();
    let gates = requestor.descendants();
    requestor.kill();
    eventually("no gate is left", async || alive(&gates).is_empty()).await;
    requestor.start().await;
    let listed = requestor.get("/gvpn/v1/activities").await.1;
    for activity in listed.as_array().unwrap() {
        let path = format!("/activity-api/v1/activity/{}", activity["id"].as_str().unwrap());
        assert_eq!(requestor.delete(&path).await, (200, Value::Null));
    }
    assert_eq!(listed.as_array().unwrap().len(), activities.len() + 1, "{listed}");
    assert_eq!(requestor.delete(&format!("/net-api/v1/net/{net}")).await, (200, Value::Null));
    nothing_left(provider.dir(), &payloads, "ended").await;
    eventually("the provider has left the network", async || {
        provider.get("/gvpn/v1/status").await.1["memberships"] == 0
    })
    .await;
}

fn descriptors(daemon: &Daemon) -> usize {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

/// How many connections between clients with these ports and a server the server has taken.
fn connections(server: &str, clients: &[u16]) -> usize {
    let hex = |port: u16| format!("{port:04X}");
    let server: SocketAddr = server.parse().unwrap();
    let clients: BTreeSet<_> = clients.iter().copied().map(hex).collect();
    let taken = |line: &&str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let port = |at: &str| at.rsplit(':').next().unwrap_or_default().to_owned();
        // What nobody holds, or not yet, has no inode.
        words.len() > 9
            && port(words[1]) == hex(server.port())
            && clients.contains(&port(words[2]))
            && words[9] != "0"
    };
    fs::read_to_string("/proc/net/tcp").unwrap().lines().filter(taken).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_while_they_wait_leave_nothing() {
    let rig = Rig::new().await;
    let (requestor, provider) = (rig.requestor().await, rig.provider("a").await);
    let net = requestor.network("10.83.0.0/24").await;
    let activity = requestor.payload(&provider, &net, "10.83.0.2").await;
    let (_, batch) = requestor.begin(&activity, json!([run("/bin/sleep", &["1000"])])).await;
    let results = format!(
        "/activity-api/v1/activity/{activity}/exec/{}?timeout=300",
        batch.as_str().unwrap()
    );
    let capture = format!("/gvpn/v1/net/{net}/capture");
    let waits = [
        (results.as_str(), "*/*"),
        (results.as_str(), "text/event-stream"),
        (capture.as_str(), "*/*"),
        ("/market-api/v1/agreementEvents?timeout=300&afterTimestamp=2100-01-01T00:00:00Z", "*/*"),
        ("/payment-api/v1/invoiceEvents?timeout=300&afterTimestamp=2100-01-01T00:00:00Z", "*/*"),
    ];
    let url = requestor.websocket("");
    let (address, token) = url
        .trim_start_matches("ws://")
        .split_once("?authToken=")
        .map(|(a, t)| (a.to_owned(), t))
        .unwrap();
    let before = descriptors(&requestor);
    let mut clients = Vec::new();
    for n in 0..40 {
        let (path, accept) = waits[n % waits.len()];
        let mut client = TcpStream::connect(&address).unwrap();
        write!(
            client,
            "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nAuthorization: Bearer {token}\r\n\r\n"
        )
        .unwrap();
        clients.push(client);
    }
    let ports: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap().port()).collect();
    eventually("they wait", async || connections(&address, &ports) == 40).await;
    for client in &clients {
        let _ = client.shutdown(Shutdown::Both);
    }
    drop(clients);
    eventually("their connections are gone", async || connections(&address, &ports) == 0).await;
    eventually("no descriptor is left", async || descriptors(&requestor) <= before + 2).await;
    assert_eq!(requestor.state(&activity).await, "Ready");
}

/// A UDP packet to port 7000 as bytes for `printf`.
fn packet(from: [u8; 4], to: [u8; 4], text: &str) -> String {
    let length = u16::try_from(text.len()).unwrap();
    let mut bytes = vec![0x45, 0];
    bytes.extend((28 + length).to_be_bytes());
    bytes.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    bytes.extend(from.iter().chain(&to));
    bytes.extend([0x1b, 0x59, 0x1b, 0x58]);
    bytes.extend((8 + length).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(text.bytes());
    bytes.iter().map(|byte| format!("\\{byte:03o}")).collect()
}

async fn spoofed(provider: &Daemon) -> u64 {
    let metrics = provider.get_text("/metrics").await;
    let line = metrics.lines().find(|line| line.contains("reason=\"spoofed_source\""));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_that_lies_about_its_address_is_not_heard() {
    let rig = Rig::new().await;
    rig.install("/usr/bin/socat");
    let (requestor, a, b) =
        (rig.requestor().await, rig.provider("a").await, rig.provider("b").await);
    let net = requestor.network("10.84.0.0/24").await;
    let liar = requestor.payload(&a, &net, "10.84.0.2").await;
    let hearer = requestor.payload(&b, &net, "10.84.0.3").await;
    requestor.payload(&b, &net, "10.84.0.4").await;
    let listen = "socat -u UDP4-RECV:7000 OPEN:/tmp/heard,creat,append >/dev/null 2>&1 &";
    requestor.sh(&hearer, listen).await.unwrap();
    let before = spoofed(&a).await;
    let to = [10, 84, 0, 3];
    // As another payload, as the owner, as somebody outside, as the hearer itself.
    for from in [[10, 84, 0, 4], [10, 84, 0, 1], [8, 8, 8, 8], to] {
        let bytes = packet(from, to, "a lie ");
        let send = format!("printf '{bytes}' | socat -u - IP4-SENDTO:10.84.0.3:255");
        requestor.sh(&liar, &send).await.unwrap();
    }
    eventually("the lies are counted", async || spoofed(&a).await >= before + 4).await;
    let bytes = packet([10, 84, 0, 2], to, "the truth ");
    let send = format!("printf '{bytes}' | socat -u - IP4-SENDTO:10.84.0.3:255");
    eventually("the truth is heard", async || {
        requestor.sh(&liar, &send).await.unwrap();
        requestor.sh(&hearer, "grep truth /tmp/heard").await.is_ok()
    })
    .await;
    let heard = requestor.sh(&hearer, "cat /tmp/heard").await.unwrap();
    assert!(!heard.contains("lie"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_payloads_outlasts_a_daemon_that_stands_still() {
    let rig = Rig::new().await;
    let requestor = rig.requestor().await;
    let (a, b) = (rig.provider("a").await, rig.provider("b").await);
    let net = requestor.network("10.49.0.0/24").await;
    let one = requestor.payload(&a, &net, "10.49.0.2").await;
    let two = requestor.payload(&b, &net, "10.49.0.3").await;
    // An nc that reads nothing any more makes the other one end.
    let listen = "(mkfifo /tmp/open; exec 3<>/tmp/open; nc -l -p 9000 <&3 > /tmp/got; \
                  touch /tmp/ended) >/dev/null 2>&1 &";
    requestor.sh(&one, listen).await.unwrap();
    requestor.comes_true(&one, "netstat -ltn | grep -q :9000").await;
    let talk = "(i=0; while [ $i -lt 60 ]; do echo $i; i=$((i+1)); sleep 0.2; done \
                | nc 10.49.0.2 9000) >/dev/null 2>&1 &";
    requestor.sh(&two, talk).await.unwrap();
    requestor.comes_true(&one, "test -s /tmp/got").await;
    b.pause();
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    b.resume();
    requestor.comes_true(&one, "test -e /tmp/ended").await;
    let got = requestor.sh(&one, "cat /tmp/got").await.unwrap();
    let numbers: Vec<u32> = got.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(numbers, (0..60).collect::<Vec<_>>());
}
