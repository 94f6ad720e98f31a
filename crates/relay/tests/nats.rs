//! Nodes behind real NATs (nftables), with two relays outside that speak both address families. Needs
//! root and nftables. With GVPN_FIGURES set the tables in docs/paths.md are written anew.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4},
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab, Lan, Nat, Router, figures};
use gvpn_net::{Net, NetConfig, PathKind, PeerStatus};
use gvpn_relay::{Relay, RelayConfig};
use on::{On, until};

#[path = "../../net/tests/on/mod.rs"]
mod on;

const PORT: u16 = 7464;
const STREAM: u16 = 443;
/// Ports are guessed again so soon here. Each attempt fails with 1.7 % (256 sockets, 1024 of 64,512 ports),
/// so that five do with less than 1 in 10^8; the fifth ends before a minute is over.
const GUESS_AGAIN: Duration = Duration::from_millis(100);
/// How often a stream says something while ports are to be guessed.
const TALK: Duration = Duration::from_millis(20);
/// So long a relayed pair is watched.
const WATCH: Duration = Duration::from_secs(4);

/// What is between a node and the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Public,
    FullCone,
    AddressRestricted,
    PortRestricted,
    Symmetric,
    CarrierAndHome,
    Double,
    UdpBlocked,
    Ipv6Only,
}

impl Access {
    const ALL: [Self; 9] = [
        Self::Public,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::Symmetric,
        Self::CarrierAndHome,
        Self::Double,
        Self::UdpBlocked,
        Self::Ipv6Only,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Public => "no NAT",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Symmetric => "symmetric",
            Self::CarrierAndHome => "CGNAT and home",
            Self::Double => "double NAT",
            Self::UdpBlocked => "UDP blocked",
            Self::Ipv6Only => "IPv6 only",
        }
    }

    /// The NATs in front of node `n`, the nearest last.
    fn nats(self, n: u8) -> Vec<Nat> {
        let home = Ipv4Addr::new(192, 168, n, 2);
        match self {
            Self::Public | Self::Ipv6Only => vec![],
            Self::FullCone => vec![Nat::FullCone(home)],
            Self::AddressRestricted => vec![Nat::AddressRestricted(home)],
            Self::PortRestricted => vec![Nat::PortRestricted],
            Self::Symmetric => vec![Nat::Symmetric],
            Self::CarrierAndHome => {
                vec![Nat::FullCone(Ipv4Addr::new(100, 64, n, 2)), Nat::PortRestricted]
            }
            Self::Double => vec![Nat::PortRestricted, Nat::PortRestricted],
            Self::UdpBlocked => vec![Nat::UdpBlocked],
        }
    }

    /// How hard it is to get in: ends get through to each other unless it is 6 in all, and at 5 by
    /// guessing ports.
    fn strictness(self) -> u8 {
        match self {
            Self::Public | Self::FullCone | Self::Ipv6Only => 0,
            Self::AddressRestricted => 1,
            Self::PortRestricted | Self::CarrierAndHome | Self::Double => 2,
            Self::Symmetric => 3,
            Self::UdpBlocked => 9,
        }
    }

    fn meets(self, other: Self) -> PathKind {
        let one_family = (self == Self::Ipv6Only) == (other == Self::Ipv6Only);
        if one_family && self.strictness() + other.strictness() < 6 {
            PathKind::Direct
        } else {
            PathKind::Relay
        }
    }
}

/// An internet with two relays: it takes two observers to tell what a NAT does.
struct World {
    lab: Lab,
    wan: Lan,
    relays: Vec<On<Relay>>,
}

/// A node, and what it is behind.
struct Home {
    node: On<Net>,
    routers: Vec<Router>,
}

impl World {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let wan = lab.lan().unwrap();
        let relays = (1..=2).map(|n| relay(&lab, &wan, n)).collect();
        Self { lab, wan, relays }
    }
    /// A node at 192.168.`n`.2 behind the NATs, the outermost of which is 198.51.100.`n`.
    fn home(&self, n: u8, access: Access) -> Home {
        let host = self.lab.host("home").unwrap();
        let mut routers: Vec<Router> = Vec::new();
        let nats = access.nats(n);
        for (level, kind) in nats.iter().enumerate() {
            let (around, outside) = match routers.last() {
                None => (&self.wan, format!("198.51.100.{n}/24")),
                Some(router) => (&router.lan, format!("100.64.{n}.2/24")),
            };
            let inside = match level + 1 == nats.len() {
                true => format!("192.168.{n}.1/24"),
                false => format!("100.64.{n}.1/24"),
            };
            let router = self.lab.nat(*kind, around, &outside, &inside).unwrap();
            if level > 0 {
                router.host.default_route(&format!("100.64.{n}.1")).unwrap();
            }
            routers.push(router);
        }
        match routers.last() {
            Some(router) => {
                host.join(&router.lan, &[&format!("192.168.{n}.2/24")]).unwrap();
                host.default_route(&format!("192.168.{n}.1")).unwrap();
            }
            None if access == Access::Ipv6Only => {
                host.join(&self.wan, &[&format!("2001:db8:7::{n}/64")]).unwrap();
            }
            None => drop(host.join(&self.wan, &[&format!("198.51.100.{n}/24")]).unwrap()),
        }
        Home { node: node(host, PORT, access == Access::Ipv6Only), routers }
    }

    fn registered(&self, clients: usize) {
        for relay in &self.relays {
            until("all register", || relay.what.stats().clients == clients);
        }
    }
}

fn relay(lab: &Lab, wan: &Lan, n: u8) -> On<Relay> {
    let host = lab.host("relay").unwrap();
    host.join(wan, &[&format!("198.51.100.{n}/24"), &format!("2001:db8:7::{n}/64")]).unwrap();
    let any = [IpAddr::from([0, 0, 0, 0]), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
    let listen = any.map(|ip| SocketAddr::new(ip, PORT)).to_vec();
    let mut config = RelayConfig::new(Identity::generate(), listen);
    config.listen_stream = vec![SocketAddr::new(any[0], STREAM).into()];
    config.workers = 1;
    On::start(host, || async { Relay::start(config).await.unwrap() })
}

fn node(host: Host, port: u16, six: bool) -> On<Net> {
    let (any, relays): (IpAddr, [IpAddr; 2]) = match six {
        true => (
            Ipv6Addr::UNSPECIFIED.into(),
            ["2001:db8:7::1", "2001:db8:7::2"].map(|ip| ip.parse().unwrap()),
        ),
        false => {
            (Ipv4Addr::UNSPECIFIED.into(), [[198, 51, 100, 1], [198, 51, 100, 2]].map(IpAddr::from))
        }
    };
    let mut config = NetConfig::new(Identity::generate());
    config.listen = vec![SocketAddr::new(any, port)];
    config.relays = relays.map(|relay| SocketAddr::new(relay, PORT)).to_vec();
    config.guess_again = GUESS_AGAIN;
    config.workers = 1;
    On::start(host, || async { Net::bind(config).await.unwrap() })
}

/// What became of a call.
struct Outcome {
    first_byte: Duration,
    direct_after: Option<Duration>,
}

impl Outcome {
    fn row(&self, left: &str, right: &str) -> String {
        let path = if self.direct_after.is_some() { "direct" } else { "relay" };
        let after = self.direct_after.map_or("-".into(), |t| format!("{} ms", t.as_millis()));
        format!("| {left} | {right} | {path} | {} ms | {after} |\n", self.first_byte.as_millis())
    }
}

fn status(from: &On<Net>, to: &On<Net>) -> Option<PeerStatus> {
    from.what.peers().into_iter().find(|peer| peer.node == to.what.node_id())
}

/// One node calls another.
fn meet(a: &On<Net>, b: &On<Net>, want: PathKind, names: &str) -> Outcome {
    let mut incoming = b.what.serve("hello");
    let start = Instant::now();
    let (mut stream, mut call, first_byte) = a.runtime.block_on(async {
        let mut stream = a.what.open(b.what.node_id(), "hello").await.unwrap();
        let mut call = incoming.recv().await.unwrap();
        stream.send_msg(&1).await.unwrap();
        assert_eq!(call.stream.recv_msg::<u32>().await.unwrap(), Some(1));
        (stream, call.stream, start.elapsed())
    });
    let direct_after = (want == PathKind::Direct).then(|| {
        let direct = |a, b| status(a, b).is_some_and(|status| status.kind == PathKind::Direct);
        // Ports are guessed only while something flows.
        let mut talked = start;
        until(&format!("{names} go direct"), || {
            if talked.elapsed() > TALK {
                talked = Instant::now();
                a.runtime.block_on(async {
                    stream.send_msg(&2).await.unwrap();
                    assert_eq!(call.recv_msg::<u32>().await.unwrap(), Some(2));
                });
            }
            direct(a, b) && direct(b, a)
        });
        start.elapsed()
    });
    Outcome { first_byte, direct_after }
}

/// A path stays what it is, and says why if it is not direct.
fn stays(a: &On<Net>, b: &On<Net>, want: PathKind, names: &str) {
    for (from, to) in [(a, b), (b, a)] {
        let report = from.runtime.block_on(from.what.ping(to.what.node_id()));
        let report = report.unwrap_or_else(|error| {
            panic!("{names}: {error}: {:?} {:?}", status(from, to), status(to, from))
        });
        assert_eq!(report.kind, want, "{names}: {report:?}");
        assert_eq!(report.reason.is_empty(), want == PathKind::Direct, "{names}: {report:?}");
    }
}

const TITLE: &str = "| caller behind | called behind | path | first byte | direct after |
|---|---|---|---|---|\n";

/// A table, and how it was measured: who waits for a processor shows in single figures.
fn under_conditions(table: &str) -> String {
    format!("{}\n\n{table}", figures::conditions())
}

/// Every pair of accesses, several at once; for the page one after the other, and both ways.
#[test]
fn every_pair_of_nats_is_direct_where_it_can_be() {
    let world = World::new();
    let homes = |from: u8| {
        let numbered = Access::ALL.iter().zip(from..);
        numbered.map(|(access, n)| world.home(n, *access)).collect::<Vec<_>>()
    };
    let (callers, called) = (homes(11), homes(31));
    let count = Access::ALL.len();
    world.registered(2 * count);
    let call = |(i, j): (usize, usize)| {
        let (a, b) = (Access::ALL[i], Access::ALL[j]);
        let names = format!("{} and {}", a.name(), b.name());
        let outcome = meet(&callers[i].node, &called[j].node, a.meets(b), &names);
        ((i, j), outcome)
    };
    let mut outcomes = Vec::new();
    for shift in 0..count {
        let pairs = (0..count).map(|i| (i, (i + shift) % count));
        if figures::wanted() {
            outcomes.extend(pairs.map(call));
            continue;
        }
        std::thread::scope(|scope| {
            let calls = pairs.filter(|(i, j)| i <= j).map(|pair| scope.spawn(move || call(pair)));
            let calls: Vec<_> = calls.collect();
            outcomes.extend(calls.into_iter().map(|call| call.join().unwrap()));
        });
    }
    let end = Instant::now() + WATCH;
    while Instant::now() < end {
        for ((i, j), _) in &outcomes {
            let (a, b) = (Access::ALL[*i], Access::ALL[*j]);
            let names = format!("{} and {}", a.name(), b.name());
            stays(&callers[*i].node, &called[*j].node, a.meets(b), &names);
        }
    }
    outcomes.sort_by_key(|(pair, _)| *pair);
    let rows = outcomes
        .iter()
        .map(|((i, j), outcome)| outcome.row(Access::ALL[*i].name(), Access::ALL[*j].name()));
    let table = format!("{TITLE}{}", rows.collect::<String>());
    println!("{table}");
    if figures::wanted() {
        figures::write("paths.md", "matrix", &under_conditions(&table)).unwrap();
    }
}

/// Two nodes in their homes behind one NAT of their provider.
fn behind_one_carrier(world: &World, carrier: Nat) -> (Vec<Home>, Router) {
    let around = world.lab.nat(carrier, &world.wan, "198.51.100.20/24", "100.64.0.1/24").unwrap();
    let homes = [(2, PORT), (3, PORT + 1)].map(|(n, port)| {
        let (outside, inside) = (format!("100.64.0.{n}/24"), format!("192.168.{n}.1/24"));
        let router = world.lab.nat(Nat::PortRestricted, &around.lan, &outside, &inside).unwrap();
        router.host.default_route("100.64.0.1").unwrap();
        let host = world.lab.host("home").unwrap();
        host.join(&router.lan, &[&format!("192.168.{n}.2/24")]).unwrap();
        host.default_route(&format!("192.168.{n}.1")).unwrap();
        Home { node: node(host, port, false), routers: vec![router] }
    });
    (homes.into(), around)
}

/// Nodes that are near each other, but only some of which can know that.
#[test]
fn neighbours_are_direct_where_their_routers_let_them() {
    let hairpin = Nat::Hairpin(
        [(2, PORT), (3, PORT + 1)]
            .map(|(n, port)| SocketAddrV4::new(Ipv4Addr::new(100, 64, 0, n), port)),
    );
    let mut table = TITLE.to_owned();
    for (name, carrier, want) in [
        ("home, CGNAT with hairpins", hairpin, PathKind::Direct),
        ("home, CGNAT without hairpins", Nat::PortRestricted, PathKind::Relay),
    ] {
        let world = World::new();
        let (homes, _around) = behind_one_carrier(&world, carrier);
        world.registered(2);
        let [a, b] = [&homes[0].node, &homes[1].node];
        table += &meet(a, b, want, name).row(name, "the same CGNAT");
        std::thread::sleep(if want == PathKind::Relay { WATCH } else { Duration::ZERO });
        stays(a, b, want, name);
    }
    let world = World::new();
    let home = world.home(11, Access::Symmetric);
    let host = world.lab.host("neighbour").unwrap();
    host.join(&home.routers[0].lan, &["192.168.11.3/24"]).unwrap();
    host.default_route("192.168.11.1").unwrap();
    let neighbour = node(host, PORT, false);
    world.registered(2);
    let name = "symmetric";
    table += &meet(&home.node, &neighbour, PathKind::Direct, name).row(name, "the same LAN");
    stays(&home.node, &neighbour, PathKind::Direct, name);
    println!("{table}");
    if figures::wanted() {
        figures::write("paths.md", "neighbours", &under_conditions(&table)).unwrap();
    }
}
