//! Nodes that UDP is blocked for, with a real relay, real payloads and a real HTTP proxy, each in a
//! network namespace of its own. Needs root, nftables, /dev/net/tun and tinyproxy.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab, Lan, Process};
use gvpn_net::{Net, NetConfig, PathKind};
use gvpn_relay::{Relay, RelayConfig};
use on::{LIMIT, On, until};
use payload::{Network, Payload};

#[path = "../../net/tests/on/mod.rs"]
mod on;
#[path = "../../net/tests/payload/mod.rs"]
mod payload;

const PORT: u16 = 7464;
const STREAM: u16 = 443;
/// Not even loopback: nothing on the host may count on UDP.
const NO_UDP: &str = "flush ruleset
    table inet lab {
      chain out { type filter hook output priority 0; meta l4proto udp drop; }
      chain in { type filter hook input priority 0; meta l4proto udp drop; }
    }";

struct World {
    lab: Lab,
    lan: Lan,
    relay: On<Relay>,
}

impl World {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let lan = lab.lan().unwrap();
        let host = lab.host("relay").unwrap();
        host.join(&lan, &["10.0.0.1/24"]).unwrap();
        let any = IpAddr::from([0, 0, 0, 0]);
        let mut config = RelayConfig::new(Identity::generate(), vec![SocketAddr::new(any, PORT)]);
        config.listen_stream = vec![SocketAddr::new(any, STREAM).into()];
        config.workers = 1;
        let relay = On::start(host, || async { Relay::start(config).await.unwrap() });
        Self { lab, lan, relay }
    }

    /// A node at 10.0.0.`n` that only the relay can be reached from: nodes see none of each other.
    fn node(&self, n: u8, rules: &str, proxy: Option<&str>) -> On<Net> {
        let host = self.lab.host("node").unwrap();
        host.join(&self.lan, &[&format!("10.0.0.{n}/24")]).unwrap();
        if !rules.is_empty() {
            host.run("nft", [rules]).unwrap();
        }
        let mut config = NetConfig::new(Identity::generate());
        config.listen = vec![SocketAddr::new([0, 0, 0, 0].into(), PORT)];
        config.relays = vec![SocketAddr::new([10, 0, 0, 1].into(), PORT)];
        config.proxy = proxy.map(|proxy| proxy.parse().unwrap());
        config.workers = 1;
        On::start(host, || async { Net::bind(config).await.unwrap() })
    }

    fn clients(&self, clients: usize, streams: usize) {
        let relay = &self.relay.what;
        until(&format!("{clients} clients, {streams} streams"), || {
            let stats = relay.stats();
            stats.clients == clients && stats.streams == streams
        });
    }
}

/// Payloads of two nodes, and what they send each other.
struct Payloads {
    here: Payload,
    there: Payload,
}

impl Payloads {
    fn new(lab: &Lab, a: &Net, b: &Net) -> Self {
        let network = Network::of(&[a.node_id(), b.node_id()]);
        let (here, there) = (Payload::new(lab, 0), Payload::new(lab, 1));
        network.join(a, 0, &here);
        network.join(b, 1, &there);
        Self { here, there }
    }

    fn talk(&self, size: usize) {
        let bytes: Vec<u8> = (0..size).map(|i| (i >> 5) as u8).collect();
        self.here.reaches(&self.there);
        assert!(self.here.send_tcp(&self.there, &bytes, false) == bytes);
        assert!(self.there.send_tcp(&self.here, &bytes, true) == bytes);
    }
}

fn relayed(a: &On<Net>, b: &On<Net>) -> String {
    let peer = b.what.node_id();
    let report = a.runtime.block_on(a.what.ping(peer)).unwrap();
    assert_eq!(report.kind, PathKind::Relay, "{report:?}");
    assert_eq!(report.remote, Some(SocketAddr::new([10, 0, 0, 1].into(), PORT)), "{report:?}");
    report.reason
}

#[test]
fn nodes_without_udp_reach_each_other_and_go_back_to_udp_when_it_works() {
    let world = World::new();
    let (a, b) = (world.node(2, NO_UDP, None), world.node(3, NO_UDP, None));
    world.clients(2, 2);
    let payloads = Payloads::new(&world.lab, &a.what, &b.what);
    payloads.talk(1_000_000);
    let reason = relayed(&a, &b);
    assert!(reason.contains("TLS stream"), "{reason}");
    assert!(a.what.observed_addrs().is_empty(), "{:?}", a.what.observed_addrs());

    // One of them may use UDP again.
    a.filter("flush ruleset");
    world.clients(2, 1);
    payloads.talk(200_000);
    // And then not.
    a.filter(NO_UDP);
    payloads.talk(200_000);
    world.clients(2, 2);
    // Both may: they find each other directly.
    a.filter("flush ruleset");
    b.filter("flush ruleset");
    world.clients(2, 0);
    payloads.talk(200_000);
    let peer = b.what.node_id();
    until("a direct path", || {
        a.what.peers().iter().any(|p| p.node == peer && p.kind == PathKind::Direct)
    });
}

/// Nothing but TCP to the proxy's port leaves the host.
const PROXY_ONLY: &str = "flush ruleset
    table inet lab {
      chain out { type filter hook output priority 0; policy drop;
                  meta l4proto icmpv6 accept; ip daddr 10.0.0.9 tcp dport 8888 accept; }
    }";

fn proxy(world: &World, dir: &std::path::Path) -> (Host, Process) {
    let host = world.lab.host("proxy").unwrap();
    host.join(&world.lan, &["10.0.0.9/24"]).unwrap();
    let config = dir.join("tinyproxy.conf");
    std::fs::write(
        &config,
        "Port 8888\nListen 10.0.0.9\nTimeout 600\nAllow 10.0.0.0/24\nConnectPort 443\n\
         BasicAuth golem secret\n",
    )
    .unwrap();
    let mut command = host.command("tinyproxy");
    command.arg("-d").arg("-c").arg(&config);
    command.inner().stdout(std::process::Stdio::null());
    let process = command.spawn().expect("Debian package tinyproxy");
    until("the proxy listens", || {
        host.enter(|| std::net::TcpStream::connect("10.0.0.9:8888").is_ok()).unwrap()
    });
    (host, process)
}

#[test]
fn a_node_behind_an_http_proxy_reaches_everyone() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let _proxy = proxy(&world, dir.path());
    let a = world.node(2, PROXY_ONLY, Some("http://golem:secret@10.0.0.9:8888"));
    let b = world.node(3, "", None);
    world.clients(2, 1);
    Payloads::new(&world.lab, &a.what, &b.what).talk(500_000);
    let reason = relayed(&a, &b);
    assert!(reason.contains("TLS stream"), "{reason}");
}

#[test]
fn a_proxy_that_says_no_is_named_with_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new();
    let _proxy = proxy(&world, dir.path());
    let a = world.node(2, PROXY_ONLY, Some("http://golem:wrong@10.0.0.9:8888"));
    let nobody = Identity::generate().node_id();
    let end = Instant::now() + LIMIT;
    loop {
        let text = a.runtime.block_on(a.what.open(nobody, "hello")).unwrap_err().to_string();
        if text.contains("10.0.0.9:8888 refused") && text.contains("password") {
            return;
        }
        assert!(Instant::now() < end, "{text}");
    }
}
