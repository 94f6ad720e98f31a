//! The daemon as a process: commands against it, kills at bad moments, bad input.

use std::{
    fs::File,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use gvpn_lab::Process;
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

fn gvpn(dir: &Path, args: &[&str]) -> Output {
    command(dir).args(args).output().unwrap()
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gvpn"));
    command.arg("--data-dir").arg(dir).stdin(Stdio::null());
    for name in ["GVPN_API_URL", "GVPN_APPKEY", "YAGNA_API_URL", "YAGNA_APPKEY", "GVPN_DATA_DIR"] {
        command.env_remove(name);
    }
    command
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}

/// A daemon that serves its API.
fn daemon(dir: &Path) -> Process {
    // A killed daemon leaves this behind.
    let _ = std::fs::remove_file(dir.join("api.url"));
    std::fs::create_dir_all(dir).unwrap();
    let log = File::create(dir.join("log")).unwrap();
    let mut command = command(dir);
    command.args(["daemon", "--api", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
    command.stdout(Stdio::null()).stderr(log);
    let mut process = Process::from(command.spawn().unwrap());
    let start = Instant::now();
    while !dir.join("api.url").exists() {
        let log = || std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(process.is_running() && start.elapsed() < LONG, "{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    process
}

#[test]
fn networks_survive_a_kill_and_a_clean_end_is_clean() {
    let dir = TempDir::new().unwrap();
    let mut process = daemon(dir.path());
    let id = said(&gvpn(dir.path(), &["net", "create", "10.60.0.0/24", "--name", "lasting"]));
    let me = said(&gvpn(dir.path(), &["--json", "status"]));
    let me: serde_json::Value = serde_json::from_str(&me).unwrap();
    let node = "0x00112233445566778899aabbccddeeff00112233";
    said(&gvpn(dir.path(), &["node", "add", "lasting", node, "10.60.0.7"]));

    let second = refused(&gvpn(dir.path(), &["daemon", "--api", "127.0.0.1:0"]));
    assert!(second.contains("another daemon runs"), "{second}");

    process.kill().unwrap();
    let dead = refused(&gvpn(dir.path(), &["net", "ls"]));
    assert!(dead.contains("no daemon answers") && dead.contains("gvpn daemon"), "{dead}");

    let mut process = daemon(dir.path());
    assert!(said(&gvpn(dir.path(), &["net", "ls"])).contains(&id));
    assert!(said(&gvpn(dir.path(), &["node", "ls", &id[..8]])).contains("10.60.0.7"));
    let again = said(&gvpn(dir.path(), &["--json", "status"]));
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["nodeId"], me["nodeId"]);

    said(&gvpn(dir.path(), &["net", "rm", "lasting"]));
    process.signal(Signal::SIGTERM).unwrap();
    let status = process.wait(LONG).unwrap().expect("SIGTERM ends the daemon");
    assert!(status.success(), "{status}");
    assert!(!dir.path().join("api.url").exists());
}

#[test]
fn bad_input_is_refused_with_a_reason_and_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let _process = daemon(dir.path());
    let id = said(&gvpn(dir.path(), &["net", "create", "10.61.0.0/24"]));
    let node = "0x00112233445566778899aabbccddeeff00112233";
    let cases: [(&[&str], &str); 8] = [
        (&["net", "create", "300.0.0.0/24"], "300.0.0.0/24"),
        (&["net", "create", "10.0.0.0/31"], "/30"),
        (&["node", "add", &id, node, "10.62.0.2"], "none of the network"),
        (&["node", "add", &id, node, "10.61.0.0"], "10.61.0.0"),
        (&["node", "add", &id, node, "10.61.0.255"], "10.61.0.255"),
        (&["node", "add", &id, "provider-1", "10.61.0.2"], "40 hexadecimal digits"),
        (&["net", "show", "nothing"], "no network is called"),
        (&["connect", "00000000000000000000000000000000", "10.61.0.2", "80"], "0000"),
    ];
    for (args, reason) in cases {
        let message = refused(&gvpn(dir.path(), args));
        assert!(message.contains(reason), "{args:?}: {message}");
    }
    let nodes = said(&gvpn(dir.path(), &["--json", "node", "ls", &id]));
    assert!(!nodes.contains(node), "{nodes}");

    let key = refused(&gvpn(dir.path(), &["--app-key", "wrong", "net", "ls"]));
    assert!(key.contains("app key"), "{key}");
}

#[test]
fn images_are_imported_listed_and_removed() {
    let dir = TempDir::new().unwrap();
    let _process = daemon(dir.path());
    let image = |args: &[&str]| gvpn(dir.path(), &[&["image"][..], args].concat());
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (root, file) = (path("root"), path("image.tar"));
    std::fs::create_dir_all(dir.path().join("root/etc")).unwrap();
    std::fs::write(dir.path().join("root/etc/motd"), "hello").unwrap();
    // A directory, as it is; and the same as an archive is the same image.
    let hash = said(&image(&["import", &root, "--tag", "a/b"]));
    assert_eq!(hash.len(), 56);
    let listed = said(&image(&["ls"]));
    assert!(listed.contains("a/b:latest") && listed.contains(&hash), "{listed}");
    // A container image of it.
    let build = ["build", &root, "--entrypoint", "/serve", "--entrypoint", "-v", "--env", "A=1"];
    let built = said(&image(&[&build[..], &["--user", "web", "--tag", "a/c", "--json"]].concat()));
    let built: Value = serde_json::from_str(&built).unwrap();
    assert_eq!((&built["kind"], &built["layers"]), (&"container".into(), &1.into()), "{built}");
    said(&image(&[&build[..], &["--output", &file]].concat()));
    let again = said(&image(&["import", &file, "--json"]));
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!((&again["kind"], &again["layers"]), (&"container".into(), &1.into()), "{again}");
    // The registry serves what was imported.
    let url = std::fs::read_to_string(dir.path().join("api.url")).unwrap();
    let info = format!("{}/registry/v1/image/info?tag=a/c", url.trim());
    let info = Command::new("curl").args(["-sf", &info]).output().unwrap();
    let info: Value = serde_json::from_slice(&info.stdout).unwrap();
    assert_eq!((&info["sha3"], &info["size"]), (&built["sha3"], &built["size"]));

    said(&image(&["rm", "a/b"]));
    let gone = refused(&image(&["rm", "a/b"]));
    assert!(gone.contains("a/b"), "{gone}");
    std::fs::write(dir.path().join("noise"), b"any bytes").unwrap();
    let mut spoilt = std::fs::read(&file).unwrap();
    let at = spoilt.windows(6).position(|bytes| bytes == b"/serve").unwrap();
    spoilt[at + 1] = b'S';
    std::fs::write(dir.path().join("spoilt.tar"), spoilt).unwrap();
    for (args, reason) in [
        (["import", "/does/not/exist"], "/does/not/exist"),
        (["import", &path("noise")], "is not an image"),
        (["import", &path("spoilt.tar")], "digest of its configuration is wrong"),
        (["build", "/does/not/exist"], "/does/not/exist"),
        (["build", &path("noise")], "root file system"),
    ] {
        let message = refused(&image(&args));
        assert!(message.contains(reason), "{reason}: {message}");
    }
}

#[test]
fn the_api_answers_nonsense_with_a_status() {
    let dir = TempDir::new().unwrap();
    let mut process = daemon(dir.path());
    let url = std::fs::read_to_string(dir.path().join("api.url")).unwrap();
    let key = std::fs::read_to_string(dir.path().join("appkey")).unwrap();
    let address = url.trim().trim_start_matches("http://").to_owned();
    let ask = |request: String| {
        let mut tcp = TcpStream::connect(&address).unwrap();
        tcp.set_read_timeout(Some(LONG)).unwrap();
        tcp.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        let _ = tcp.read_to_string(&mut answer);
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let post = |key: &str, body: &str| {
        ask(format!(
            "POST /net-api/v1/net HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    };
    let bearer = format!("Authorization: Bearer {}\r\n", key.trim());
    assert_eq!(post("", "{\"ip\": \"10.0.0.0/24\"}"), "401");
    assert_eq!(post("Authorization: Bearer wrong\r\n", "{\"ip\": \"10.0.0.0/24\"}"), "401");
    assert_eq!(post(&bearer, "{\"ip\": "), "400");
    assert_eq!(post(&bearer, "{\"ip\": \"10.0.0.0\", \"mask\": \"255.0.255.0\"}"), "400");
    assert_eq!(post(&bearer, "{\"ip\": \"10.0.0.0/24\", \"unknown\": 1}"), "200");
    assert!(process.is_running());
}
