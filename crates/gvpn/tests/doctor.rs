//! `gvpn doctor` behind real NATs (nftables) and a router that maps ports (miniupnpd), in
//! namespaces. Needs root, nftables and miniupnpd.

use std::net::SocketAddr;

use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab, Lan, Nat, Process, Router};
use gvpn_relay::{Relay, RelayConfig};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Handle;

const PORT: u16 = 7464;

/// Two relays outside, a router, a host behind it.
struct World {
    _lab: Lab,
    _wan: Lan,
    _relays: Vec<(Relay, Host)>,
    router: Router,
    host: Host,
}

impl World {
    fn new(kind: Nat) -> Self {
        let lab = Lab::new().unwrap();
        let wan = lab.lan().unwrap();
        let relay = |n: u8| {
            let host = lab.host("relay").unwrap();
            // Addresses that are public as far as any program knows.
            host.join(&wan, &[&format!("11.0.0.{n}/24")]).unwrap();
            let listen = vec![SocketAddr::from(([0, 0, 0, 0], PORT))];
            let mut config = RelayConfig::new(Identity::generate(), listen);
            config.workers = 1;
            let runtime = Handle::current();
            let start = || runtime.block_on(Relay::start(config));
            let relay = tokio::task::block_in_place(|| host.enter(start)).unwrap().unwrap();
            (relay, host)
        };
        let relays = vec![relay(1), relay(2)];
        let router = lab.nat(kind, &wan, "11.0.0.11/24", "192.168.1.1/24").unwrap();
        let host = lab.host("home").unwrap();
        host.join(&router.lan, &["192.168.1.2/24"]).unwrap();
        host.default_route("192.168.1.1").unwrap();
        Self { _lab: lab, _wan: wan, _relays: relays, router, host }
    }

    /// What the doctor says, and whether it is content.
    fn doctor(&self, args: &[&str]) -> (Value, bool) {
        let dir = TempDir::new().unwrap();
        let mut command = self.host.command(env!("CARGO_BIN_EXE_gvpn"));
        command.arg("--data-dir").arg(dir.path()).args(["--json", "doctor"]);
        command.args(["--relay", "11.0.0.1:7464", "--relay", "11.0.0.2:7464"]).args(args);
        let output = tokio::task::block_in_place(|| command.output()).unwrap();
        let said = serde_json::from_slice(&output.stdout);
        let said = said.unwrap_or_else(|e| panic!("{e}: {output:?}"));
        (said, output.status.success())
    }
}

fn check<'a>(said: &'a Value, name: &str) -> &'a Value {
    let checks = said["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check of {name} in {said:#}"))
}

fn found<'a>(said: &'a Value, name: &str) -> &'a str {
    check(said, name)["found"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kind_of_nat_is_told() {
    let world = World::new(Nat::PortRestricted);
    let (said, content) = world.doctor(&["--no-port-mapping"]);
    assert!(content, "{said:#}");
    assert!(found(&said, "nat").starts_with("endpoint-independent"), "{said:#}");
    assert!(found(&said, "nat").ends_with("(address-and-port-dependent)"), "{said:#}");
    assert_eq!(check(&said, "udp")["verdict"], "ok", "{said:#}");
    let buffers = check(&said, "buffers");
    let (enough, room) = (buffers["verdict"] == "ok", found(&said, "buffers"));
    assert!(room.starts_with("UDP sockets hold"), "{said:#}");
    assert_eq!((room.contains("only"), room.ends_with("and more")), (!enough, enough), "{said:#}");
    assert_eq!(buffers["advice"].to_string().contains("rmem_max"), !enough, "{said:#}");
    assert!(found(&said, "addresses").contains("192.168.1.2; others see 11.0.0.11:"), "{said:#}");
    let home = [192, 168, 1, 2].into();
    let open = [
        (Nat::FullCone(home), "(endpoint-independent)"),
        (Nat::AddressRestricted(home), "(address-dependent)"),
    ];
    for (open, filtering) in open {
        world.router.set(open).unwrap();
        let (said, _) = world.doctor(&["--no-port-mapping"]);
        assert!(found(&said, "nat").starts_with("endpoint-independent"), "{said:#}");
        assert!(found(&said, "nat").ends_with(filtering), "{said:#}");
    }
    world.router.set(Nat::Symmetric).unwrap();
    let (said, content) = world.doctor(&["--no-port-mapping"]);
    assert!(content, "{said:#}");
    assert!(found(&said, "nat").starts_with("address-dependent"), "{said:#}");
    assert!(check(&said, "nat")["advice"].as_str().unwrap().contains("router"), "{said:#}");
    world.router.set(Nat::None).unwrap();
    for relay in &world._relays {
        relay.1.ip(["route", "add", "192.168.1.0/24", "via", "11.0.0.11"]).unwrap();
    }
    let (said, _) = world.doctor(&["--no-port-mapping"]);
    assert!(found(&said, "nat").starts_with("none"), "{said:#}");
    assert!(found(&said, "nat").ends_with("(endpoint-independent)"), "{said:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_udp_is_called_that() {
    let world = World::new(Nat::UdpBlocked);
    let (said, content) = world.doctor(&["--no-port-mapping"]);
    assert!(!content, "{said:#}");
    assert_eq!(said["verdict"], "fail");
    assert_eq!(check(&said, "udp")["verdict"], "fail");
    assert!(found(&said, "udp").contains("blocks UDP"), "{said:#}");
    // With nobody there at all it says so.
    world.host.ip(["link", "set", "eth0", "down"]).unwrap();
    let (said, content) = world.doctor(&["--no-port-mapping"]);
    assert!(!content && found(&said, "udp").contains("no relay answers"), "{said:#}");
}

/// A router's daemon for PCP, NAT-PMP and UPnP.
fn miniupnpd(router: &Router, dir: &TempDir, protocols: &str) -> Process {
    let tables = "add table inet filter
        add chain inet filter forward { type filter hook forward priority 0; }
        add chain inet filter prerouting { type nat hook prerouting priority -100; }
        add chain inet filter postrouting { type nat hook postrouting priority 100; }
        add chain inet filter miniupnpd
        add chain inet filter prerouting_miniupnpd
        add chain inet filter postrouting_miniupnpd
        add rule inet filter forward jump miniupnpd
        add rule inet filter prerouting jump prerouting_miniupnpd
        add rule inet filter postrouting jump postrouting_miniupnpd";
    router.host.run("nft", [tables]).unwrap();
    let file = dir.path().join("miniupnpd.conf");
    let settings = format!(
        "ext_ifname=eth0\nlistening_ip=eth1\nport=5555\n{protocols}\nsecure_mode=yes\n\
         uuid=5a1a9cf8-0000-4000-8000-000000000001\nallow 1024-65535 0.0.0.0/0 1024-65535\n"
    );
    std::fs::write(&file, settings).unwrap();
    let mut command = router.host.command("miniupnpd");
    command.args(["-d", "-f"]).arg(&file).arg("-P").arg(dir.path().join("pid"));
    let log = std::fs::File::create(dir.path().join("log")).unwrap();
    command.inner().stdout(log.try_clone().unwrap()).stderr(log);
    command.spawn().unwrap()
}

async fn a_port_is_mapped_by(protocols: &str, name: &str) {
    a_port_is_mapped(protocols, name, None).await;
}

async fn a_port_is_mapped(protocols: &str, name: &str, rules: Option<&str>) {
    let world = World::new(Nat::Symmetric);
    if let Some(rules) = rules {
        world.router.host.run("nft", [rules]).unwrap();
    }
    let dir = TempDir::new().unwrap();
    let _daemon = miniupnpd(&world.router, &dir, protocols);
    let mut said = Value::Null;
    for _ in 0..5 {
        // The router's daemon may still be starting.
        said = world.doctor(&[]).0;
        if found(&said, "port mapping").contains("forwards") {
            break;
        }
    }
    let log = || std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
    let mapping = found(&said, "port mapping");
    assert!(mapping.contains("forwards 11.0.0.11:"), "{said:#}\n{}", log());
    assert!(mapping.ends_with(&format!("({name})")), "{said:#}\n{}", log());
    // What was mapped is given back at the end.
    let rules =
        world.router.host.run("nft", ["list", "chain", "inet", "filter", "prerouting_miniupnpd"]);
    assert!(!rules.unwrap().contains("dnat"), "{}", log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_maps_a_port_by_pcp() {
    a_port_is_mapped_by("enable_natpmp=yes\nenable_upnp=no", "PCP").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_that_knows_no_pcp_maps_a_port_by_nat_pmp() {
    // The router's daemon knows both: what is of PCP's version (RFC 6887, 7.1) does not reach it.
    let older = "add table inet older
        add chain inet older input { type filter hook input priority 0; }
        add rule inet older input udp dport 5351 @th,64,8 2 drop";
    a_port_is_mapped("enable_natpmp=yes\nenable_upnp=no", "NAT-PMP", Some(older)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_maps_a_port_by_upnp() {
    a_port_is_mapped_by("enable_natpmp=no\nenable_upnp=yes", "UPnP").await;
}
