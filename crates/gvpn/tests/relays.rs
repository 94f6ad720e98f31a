//! Relays that are started together on one host, each on whatever port is free. Needs root.

use std::{
    collections::HashSet,
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use gvpn_lab::{Host, Lab, Process};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(90);
const RELAYS: usize = 6;

/// A relay with all of its default ports but that of UDP, which is any.
fn start(host: &Host, dir: &Path) -> Process {
    let mut command = host.command(env!("CARGO_BIN_EXE_gvpn"));
    command.arg("--data-dir").arg(dir).args(["relay", "--listen", "127.0.0.1:0", "--log-json"]);
    // More than one thread, so that its sockets share a port.
    command.args(["--workers", "2"]);
    let log = File::create(dir.with_extension("log")).unwrap();
    command.inner().stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

/// The address that a relay says in its log to listen on.
fn address(dir: &Path) -> SocketAddr {
    let end = Instant::now() + PATIENCE;
    loop {
        let log = fs::read_to_string(dir.with_extension("log")).unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let up =
            lines.map(|line| line["fields"].clone()).find(|f| f["message"] == "the relay is up");
        if let Some(up) = up {
            return up["address"].as_str().unwrap().parse().unwrap();
        }
        assert!(Instant::now() < end, "the relay does not come up: {log}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn relays_that_are_started_together_have_ports_of_their_own() {
    let lab = Lab::new().unwrap();
    let host = lab.host("relays").unwrap();
    let dir = TempDir::new().unwrap();
    let dirs: Vec<_> = (0..RELAYS).map(|n| dir.path().join(n.to_string())).collect();
    let _relays: Vec<_> = dirs.iter().map(|dir| start(&host, dir)).collect();
    let addresses: Vec<_> = dirs.iter().map(|dir| address(dir)).collect();
    let distinct: HashSet<_> = addresses.iter().collect();
    assert_eq!(distinct.len(), RELAYS, "{addresses:?}");
    // Each answers, as the relay that it is.
    let mut command = host.command(env!("CARGO_BIN_EXE_gvpn"));
    command.arg("--data-dir").arg(dir.path().join("node"));
    command.args(["--json", "doctor", "--no-port-mapping"]);
    for address in &addresses {
        command.args(["--relay", &address.to_string()]);
    }
    let output = command.output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = said["checks"].as_array().unwrap();
    let relays: Vec<_> = checks.iter().filter(|check| check["name"] == "relay").collect();
    assert_eq!(relays.len(), RELAYS, "{said:#}");
    assert!(relays.iter().all(|relay| relay["verdict"] == "ok"), "{said:#}");
}

#[test]
fn a_relay_does_not_start_where_another_one_is() {
    let lab = Lab::new().unwrap();
    let host = lab.host("relays").unwrap();
    let dir = TempDir::new().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let _relay = start(&host, &one);
    let taken = address(&one).to_string();
    // Sockets that share a port within one relay do not share it with another's.
    for (dir, listen, complaint) in [(&two, taken.as_str(), "in use"), (&one, "127.0.0.1:0", "")] {
        let mut command = host.command(env!("CARGO_BIN_EXE_gvpn"));
        command.arg("--data-dir").arg(dir).args(["relay", "--listen", listen]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(complaint), "{output:?}");
    }
    // It is still there.
    assert_eq!(address(&one).to_string(), taken);
}
