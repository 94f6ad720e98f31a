//! How soon the first byte is there, on a LAN and through a relay, with delays on the lines. Needs
//! root, nftables and /dev/net/tun. With GVPN_FIGURES set, docs/paths.md gets the figures.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab, Lan, Line, Weather, figures};
use gvpn_net::{Net, NetConfig};
use gvpn_relay::{Relay, RelayConfig};
use on::{On, until};
use payload::{Network, Payload};

#[path = "../../net/tests/on/mod.rs"]
mod on;
#[path = "../../net/tests/payload/mod.rs"]
mod payload;

const PORT: u16 = 7464;
const ROUNDS: usize = 5;
/// A machine that does other things is slower than what `docs/paths.md` has; not by this much.
const SLOW: Duration = Duration::from_secs(5);

/// 10.0.0.1, 10.0.0.2 and 10.0.0.3, each at the end of a line to a LAN in the middle.
struct World {
    lab: Lab,
    hosts: Vec<Host>,
    _lines: Vec<(Lan, Line)>,
    _middle: Lan,
}

impl World {
    fn new(delay: Duration) -> Self {
        let lab = Lab::new().unwrap();
        let middle = lab.lan().unwrap();
        let (mut hosts, mut lines) = (Vec::new(), Vec::new());
        for n in 1..=3 {
            let lan = lab.lan().unwrap();
            let host = lab.host("host").unwrap();
            host.join(&lan, &[&format!("10.0.0.{n}/24")]).unwrap();
            let weather = Weather { delay, ..Weather::default() };
            lines.push((lan.clone(), lab.line(&lan, &middle, weather, n).unwrap()));
            hosts.push(host);
        }
        // Nobody has to ask for Ethernet addresses later.
        for (from, to) in [(0, 1), (0, 2), (1, 2)] {
            let to = format!("10.0.0.{}", to + 1);
            hosts[from].run("ping", ["-c1", "-W5", &to]).unwrap();
        }
        Self { lab, hosts, _lines: lines, _middle: middle }
    }

    fn node(&self, index: usize, relay: Option<SocketAddr>) -> On<Net> {
        let mut config = NetConfig::new(Identity::generate());
        config.listen = vec![address(index)];
        config.relays.extend(relay);
        config.workers = 1;
        let host = self.hosts[index].clone();
        On::start(host, || async { Net::bind(config).await.unwrap() })
    }
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::new([10, 0, 0, index as u8 + 1].into(), PORT)
}

/// Until the first byte of a stream is at the peer, and until the first packet of a payload is.
fn first(world: &World, meet: impl Fn(&World) -> [On<Net>; 2]) -> [Duration; 2] {
    let [a, b] = meet(world);
    let mut incoming = b.what.serve("hello");
    let start = Instant::now();
    let stream = a.runtime.block_on(async {
        let mut stream = a.what.open(b.what.node_id(), "hello").await.unwrap();
        let mut call = incoming.recv().await.unwrap();
        stream.send_msg(&1).await.unwrap();
        assert_eq!(call.stream.recv_msg::<u32>().await.unwrap(), Some(1));
        start.elapsed()
    });
    end([a, b]);
    let [a, b] = meet(world);
    let network = Network::of(&[a.what.node_id(), b.what.node_id()]);
    let (here, there) = (Payload::new(&world.lab, 0), Payload::new(&world.lab, 1));
    a.with(|net| network.join(net, 0, &here));
    b.with(|net| network.join(net, 1, &there));
    let packet = here.reaches(&there);
    end([a, b]);
    [stream, packet]
}

fn end(nodes: [On<Net>; 2]) {
    for node in nodes {
        node.runtime.block_on(node.what.shutdown());
    }
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

fn figure(name: &str, what: &str, asked: Duration, rounds: &[[Duration; 2]]) {
    let [stream, packet] = [0, 1].map(|i| median(rounds.iter().map(|r| r[i]).collect()));
    assert!(stream < SLOW && packet < SLOW, "{stream:?} {packet:?}");
    let text = format!(
        "- {what}: a stream's first byte after {} ms, a payload's first packet after {} ms \
         (medians of {}; asked: {} ms)",
        stream.as_millis(),
        packet.as_millis(),
        rounds.len(),
        asked.as_millis()
    );
    println!("{text}");
    if figures::wanted() {
        figures::write("paths.md", name, &text).unwrap();
    }
}

#[test]
fn the_first_byte_on_a_lan() {
    // Twice over a line, there and back: 4 ms.
    let world = World::new(Duration::from_millis(1));
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            first(&world, |world| {
                let nodes = [world.node(0, None), world.node(1, None)];
                let id = nodes[1].what.node_id();
                nodes[0].with(|net| net.add_peer_addrs(id, vec![address(1)]));
                nodes
            })
        })
        .collect();
    let asked = Duration::from_millis(4 + 50);
    figure("first-lan", "on a LAN with a round trip of 4 ms", asked, &rounds);
}

#[test]
fn the_first_byte_through_a_relay() {
    let world = World::new(Duration::from_millis(5));
    for (at, other) in [(0, 1), (1, 0)] {
        let wall = format!(
            "table ip wall {{ chain in {{ type filter hook input priority 0;
               ip saddr {} udp dport {PORT} drop; }}
            }}",
            address(other).ip()
        );
        world.hosts[at].run("nft", [wall]).unwrap();
    }
    let mut config = RelayConfig::new(Identity::generate(), vec![address(2)]);
    config.workers = 1;
    let host = world.hosts[2].clone();
    let relay = On::start(host, || async { Relay::start(config).await.unwrap() });
    let rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            first(&world, |world| {
                until("those of before are gone", || relay.what.stats().clients == 0);
                let nodes = [0, 1].map(|i| world.node(i, Some(address(2))));
                until("both register", || relay.what.stats().clients == 2);
                nodes
            })
        })
        .collect();
    let asked = Duration::from_millis(300 + 2 * 40);
    let what = "through a relay, with a round trip of 40 ms to the peer and 20 ms to the relay";
    figure("first-relay", what, asked, &rounds);
}
