//! What `gvpn status` says of the NAT in front of a daemon, behind each kind of it (nftables, in
//! namespaces), with one relay and with two. Needs root and nftables.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab, Lan, Nat, Process, Router};
use gvpn_relay::{Relay, RelayConfig};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Handle;

const PORT: u16 = 7464;
const STREAM: u16 = 443;
const PATIENCE: Duration = Duration::from_secs(90);
/// Addresses that are public as far as any program knows.
const RELAYS: [&str; 2] = ["11.0.0.1", "11.0.0.2"];

/// An internet with two relays.
struct World {
    lab: Lab,
    wan: Lan,
    relays: Vec<(Relay, Host)>,
}

impl World {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let wan = lab.lan().unwrap();
        let relay = |ip: &str| {
            let host = lab.host("relay").unwrap();
            host.join(&wan, &[&format!("{ip}/24")]).unwrap();
            let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
            let mut config = RelayConfig::new(Identity::generate(), vec![any(PORT)]);
            config.listen_stream = vec![any(STREAM).into()];
            config.workers = 1;
            let runtime = Handle::current();
            let start = || runtime.block_on(Relay::start(config));
            let relay = tokio::task::block_in_place(|| host.enter(start)).unwrap().unwrap();
            (relay, host)
        };
        let relays = RELAYS.map(relay).into();
        Self { lab, wan, relays }
    }

    /// A daemon that knows the first of the relays, or both, at 192.168.`n`.2 behind a NAT, or
    /// behind none at 11.0.0.`n`.
    fn daemon(&self, n: u8, nat: Option<Nat>, relays: usize) -> Daemon {
        let host = self.lab.host("home").unwrap();
        let router = match nat {
            None => {
                host.join(&self.wan, &[&format!("11.0.0.{n}/24")]).unwrap();
                None
            }
            Some(kind) => {
                let (outside, inside) = (format!("11.0.0.{n}/24"), format!("192.168.{n}.1/24"));
                let router = self.lab.nat(kind, &self.wan, &outside, &inside).unwrap();
                host.join(&router.lan, &[&format!("192.168.{n}.2/24")]).unwrap();
                host.default_route(&format!("192.168.{n}.1")).unwrap();
                Some(router)
            }
        };
        let dir = TempDir::new().unwrap();
        let mut command = host.command(env!("CARGO_BIN_EXE_gvpn"));
        command.args(["daemon", "--api", "127.0.0.1:0", "--workers", "1"]);
        command.arg("--data-dir").arg(dir.path().join("data"));
        for ip in &RELAYS[..relays] {
            command.args(["--relay", &format!("{ip}:{PORT}")]);
        }
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        command.inner().stdout(log.try_clone().unwrap()).stderr(log);
        let process = command.spawn().unwrap();
        Daemon { host, _router: router, dir, _process: process }
    }
}

struct Daemon {
    host: Host,
    _router: Option<Router>,
    dir: TempDir,
    _process: Process,
}

impl Daemon {
    /// What `gvpn status` prints; null as long as the daemon does not answer.
    fn status(&self) -> Value {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_gvpn"));
        command.arg("--data-dir").arg(self.dir.path().join("data")).args(["--json", "status"]);
        let output = command.output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Waits until `gvpn status` shows this.
    fn shows(&self, nat: &str, filtering: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if status["nat"] == nat && status["filtering"] == filtering {
                return;
            }
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "want {nat} {filtering}: {status:#}\n{}", log());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_each_kind_of_nat() {
    let world = World::new();
    let home = |n: u8| Ipv4Addr::new(192, 168, n, 2);
    let (mapping, strict) = ("endpoint-independent", "address-and-port-dependent");
    let daemons = [
        (None, 2, "none", "endpoint-independent"),
        (Some(Nat::FullCone(home(12))), 2, mapping, "endpoint-independent"),
        (Some(Nat::AddressRestricted(home(13))), 2, mapping, "address-dependent"),
        (Some(Nat::PortRestricted), 2, mapping, strict),
        (Some(Nat::Symmetric), 2, "address-dependent", strict),
        (Some(Nat::UdpBlocked), 2, "unknown", "blocked"),
        // With one relay there is nobody to send from another address.
        (None, 1, "none", "port-independent"),
        (Some(Nat::AddressRestricted(home(18))), 1, "present", "port-independent"),
        (Some(Nat::PortRestricted), 1, "present", strict),
    ];
    tokio::task::block_in_place(|| {
        let numbered = daemons.iter().zip(11..);
        let started = numbered.map(|((nat, relays, ..), n)| world.daemon(n, *nat, *relays));
        let started: Vec<_> = started.collect();
        for (daemon, (_, _, nat, filtering)) in started.iter().zip(&daemons) {
            daemon.shows(nat, filtering);
        }
        // It stays so.
        for (daemon, (_, _, nat, filtering)) in started.iter().zip(&daemons) {
            let status = daemon.status();
            assert_eq!(
                (&status["nat"], &status["filtering"]),
                (&Value::from(*nat), &Value::from(*filtering))
            );
        }
    });
    assert_eq!(world.relays[0].0.stats().clients, daemons.len());
}

/// A firewall without NAT, which lets in answers only.
#[tokio::test(flavor = "multi_thread")]
async fn a_firewall_filters_without_translating() {
    let world = World::new();
    let daemon = tokio::task::block_in_place(|| {
        let daemon = world.daemon(11, None, 2);
        daemon.shows("none", "endpoint-independent");
        let wall = "table inet wall {
                      chain in {
                        type filter hook input priority 0
                        iifname eth0 ct state new meta l4proto udp drop
                      }
                    }";
        daemon.host.run("nft", [wall]).unwrap();
        daemon
    });
    // Nothing tells the node; it looks again when its addresses change.
    daemon.host.ip(["addr", "add", "11.0.0.99/24", "dev", "eth0"]).unwrap();
    tokio::task::block_in_place(|| daemon.shows("none", "address-and-port-dependent"));
}
