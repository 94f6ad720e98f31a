//! Underlays of all widths: nodes on two LANs with a narrow line between them that drops what is
//! too large without a word, as where ICMP is filtered, or a narrow link between routers that say
//! so. Needs root, nftables and /dev/net/tun.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab, Lan, Line, Weather};
use gvpn_net::{Net, NetConfig, PathKind};
use gvpn_relay::{Relay, RelayConfig};
use on::{LIMIT, On, until};
use payload::{Network, Payload, v4};

#[path = "../../net/tests/on/mod.rs"]
mod on;
#[path = "../../net/tests/payload/mod.rs"]
mod payload;

const PORT: u16 = 7464;
/// Headers of IP (version 4, version 6) and UDP.
const HEADERS: [u16; 2] = [28, 48];
/// The search for the path MTU ends when it is as near.
const GRAIN: u16 = 8;

/// Where the nodes and the relay are: A alone on one side.
struct World {
    lab: Lab,
    hosts: [Host; 3],
    six: bool,
    routers: Vec<Host>,
    _lans: Vec<Lan>,
    _line: Option<Line>,
}

const A: [u8; 4] = [10, 1, 0, 2];
const B: [u8; 4] = [10, 2, 0, 3];
const RELAY: [u8; 4] = [10, 2, 0, 1];

/// An address, or one in IPv6 instead.
fn ip(four: [u8; 4], six: bool) -> IpAddr {
    let segment = |i: usize| u16::from(four[i]);
    match six {
        true => IpAddr::from([0xfd00, 0, 0, 0, 0, segment(1), segment(2), segment(3)]),
        false => IpAddr::from(four),
    }
}

impl World {
    /// A black hole: nobody says that a datagram was too large.
    fn silent(mtu: u16) -> Self {
        Self::silent_in(mtu, false)
    }

    /// The same with IPv6 only.
    fn silent_in(mtu: u16, six: bool) -> Self {
        let lab = Lab::new().unwrap();
        let lans = vec![lab.lan().unwrap(), lab.lan().unwrap()];
        let weather = Weather { mtu: Some(mtu.into()), ..Weather::default() };
        let line = lab.line(&lans[0], &lans[1], weather, 1).unwrap();
        let hosts = ["a", "b", "relay"].map(|name| lab.host(name).unwrap());
        for ((host, lan), ip) in hosts.iter().zip([0, 1, 1]).zip([A, B, RELAY]) {
            let prefix = if six { 64 } else { 8 };
            host.join(&lans[lan], &[&format!("{}/{prefix}", self::ip(ip, six))]).unwrap();
            if mtu > 1500 {
                host.ip(["link", "set", "eth0", "mtu", &mtu.to_string()]).unwrap();
            }
        }
        Self { lab, hosts, six, routers: vec![], _lans: lans, _line: Some(line) }
    }

    /// Routers that know how narrow the link between them is, and say so: by ICMPv4's fragmentation
    /// needed or by ICMPv6's packet too big.
    fn told(mtu: u16, six: bool) -> Self {
        let lab = Lab::new().unwrap();
        let lans: Vec<Lan> = (0..3).map(|_| lab.lan().unwrap()).collect();
        let mut between = Vec::new();
        let routers = [(1, 0, [10, 9, 0, 1], [10, 9, 0, 2]), (2, 2, [10, 9, 0, 2], [10, 9, 0, 1])];
        let (ip, prefix) = (|four| ip(four, six), if six { 112 } else { 24 });
        for (n, inner, near, far) in routers {
            let router = lab.host("router").unwrap();
            router.join(&lans[inner], &[&format!("{}/{prefix}", ip([10, n, 0, 254]))]).unwrap();
            router.join(&lans[1], &[&format!("{}/{prefix}", ip(near))]).unwrap();
            router.ip(["link", "set", "eth1", "mtu", &mtu.to_string()]).unwrap();
            let on =
                "echo 1 | tee /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding";
            router.run("sh", ["-c", on]).unwrap();
            router.default_route(&ip(far).to_string()).unwrap();
            between.push(router);
        }
        let hosts = ["a", "b", "relay"].map(|name| lab.host(name).unwrap());
        for ((host, lan), four) in hosts.iter().zip([0, 2, 2]).zip([A, B, RELAY]) {
            host.join(&lans[lan], &[&format!("{}/{prefix}", ip(four))]).unwrap();
            host.default_route(&ip([10, four[1], 0, 254]).to_string()).unwrap();
        }
        hosts[0].run("ping", ["-c1", "-W5", &ip(B).to_string()]).unwrap();
        Self { lab, hosts, six, routers: between, _lans: lans, _line: None }
    }

    /// The same, but what the routers say is filtered on the way.
    fn filtered(mtu: u16, six: bool) -> Self {
        let world = Self::told(mtu, six);
        let rules = "table inet filter {
                       chain out {
                         type filter hook output priority 0
                         icmp type destination-unreachable drop
                         icmpv6 type packet-too-big drop
                       }
                     }";
        world.routers.iter().for_each(|router| drop(router.run("nft", [rules]).unwrap()));
        world
    }

    /// How often the routers said that a datagram was too large.
    fn said(&self) -> u64 {
        let name = if self.six { "Icmp6OutPktTooBigs" } else { "IcmpOutDestUnreachs" };
        let said = |router: &Host| {
            let all = router.run("nstat", ["-asz", name]).unwrap();
            let line = all.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
        };
        self.routers.iter().map(said).sum()
    }

    fn node(&self, index: usize, relayed: bool) -> On<Net> {
        let host = self.hosts[index].clone();
        let mut config = NetConfig::new(Identity::generate());
        // The node that was there before may still hold its port.
        let port = if relayed { PORT + 1 } else { PORT };
        config.listen = vec![self.any(port)];
        config.workers = 1;
        config.stream_port = None;
        if relayed {
            config.relays = vec![SocketAddr::new(ip(RELAY, self.six), PORT)];
        }
        On::start(host, || async { Net::bind(config).await.unwrap() })
    }

    /// Every address of a host.
    fn any(&self, port: u16) -> SocketAddr {
        let four = SocketAddr::new([0, 0, 0, 0].into(), port);
        if self.six { SocketAddr::new([0; 16].into(), port) } else { four }
    }

    fn relay(&self) -> On<Relay> {
        let mut config = RelayConfig::new(Identity::generate(), vec![self.any(PORT)]);
        config.workers = 1;
        On::start(self.hosts[2].clone(), || async { Relay::start(config).await.unwrap() })
    }

    /// The two nodes see nothing of each other.
    fn part(&self) {
        let rules = format!(
            "table {family} wall {{ chain in {{
            type filter hook input priority 0; {family} saddr {} meta l4proto udp drop; }}
            }}",
            ip(A, self.six),
            family = if self.six { "ip6" } else { "ip" },
        );
        self.hosts[1].run("nft", [&rules]).unwrap();
    }
}

/// Streams of the QUIC lane, whole packets of payloads and full-size TCP both ways; then the path
/// MTU that was found.
fn carries_all(world: &World, a: &On<Net>, b: &On<Net>, want: PathKind, mtu: u16) {
    let mut incoming = b.what.serve("hello");
    let sent = vec![7u8; 20_000];
    let got = a.runtime.block_on(async {
        let mut stream = a.what.open(b.what.node_id(), "hello").await.unwrap();
        let mut call = incoming.recv().await.unwrap();
        stream.send_msg(&sent).await.unwrap();
        call.stream.recv_msg::<Vec<u8>>().await.unwrap()
    });
    assert_eq!(got, Some(sent));
    let network = Network::of(&[a.what.node_id(), b.what.node_id()]);
    let (here, there) = (Payload::new(&world.lab, 0), Payload::new(&world.lab, 1));
    a.with(|net| network.join(net, 0, &here));
    b.with(|net| network.join(net, 1, &there));
    here.reaches(&there);
    let end = Instant::now() + LIMIT;
    let full = v4(1).to_string();
    // 1280 bytes with the headers of ICMP and IP.
    let ping = ["-c1", "-W1", "-Mdo", "-s1252", full.as_str()];
    while let Err(error) = here.host.run("ping", ping) {
        assert!(Instant::now() < end, "{mtu} {want:?}: {error}");
    }
    let bytes: Vec<u8> = (0..1_000_000u32).map(|i| (i >> 5) as u8).collect();
    assert!(here.send_tcp(&there, &bytes, false) == bytes);
    assert!(there.send_tcp(&here, &bytes, true) == bytes);
    let real = mtu - HEADERS[usize::from(world.six)];
    until(&format!("the path MTU of {mtu} is found, {want:?}"), || {
        // A direction is measured while payload flows in it.
        here.reaches(&there);
        there.reaches(&here);
        std::thread::sleep(Duration::from_millis(50));
        [(a, b), (b, a)].iter().all(|(from, to)| {
            let peers = from.what.peers();
            let peer = peers.iter().find(|p| p.node == to.what.node_id()).unwrap();
            peer.kind == want && peer.mtu <= real && peer.mtu + GRAIN > real
        })
    });
}

fn direct(world: &World, mtu: u16) {
    let (a, b) = (world.node(0, false), world.node(1, false));
    let id = b.what.node_id();
    a.with(|net| net.add_peer_addrs(id, vec![SocketAddr::new(ip(B, world.six), PORT)]));
    carries_all(world, &a, &b, PathKind::Direct, mtu);
}

fn relayed(world: &World, mtu: u16) {
    world.part();
    let relay = world.relay();
    let (a, b) = (world.node(0, true), world.node(1, true));
    until("both register", || relay.what.stats().clients == 2);
    carries_all(world, &a, &b, PathKind::Relay, mtu);
}

fn underlay(world: &World, mtu: u16) {
    direct(world, mtu);
    relayed(world, mtu);
}

#[test]
fn an_underlay_of_576_bytes_carries_all() {
    underlay(&World::silent(576), 576);
}

#[test]
fn an_underlay_of_1280_bytes_carries_all() {
    underlay(&World::silent(1280), 1280);
}

#[test]
fn an_underlay_of_1400_bytes_carries_all() {
    underlay(&World::silent(1400), 1400);
}

#[test]
fn an_underlay_of_1500_bytes_carries_all() {
    underlay(&World::silent(1500), 1500);
}

#[test]
fn an_underlay_of_9000_bytes_carries_all() {
    underlay(&World::silent(9000), 9000);
}

#[test]
fn underlays_with_but_ipv6_carry_all() {
    for mtu in [1280, 1400, 1500, 9000] {
        underlay(&World::silent_in(mtu, true), mtu);
    }
}

#[test]
fn narrow_links_of_which_routers_tell_carry_all() {
    // In IPv6 nothing is narrower than 1280 bytes (RFC 8200, section 5).
    for (mtu, six) in [(576, false), (1400, false), (1280, true), (1400, true)] {
        let world = World::told(mtu, six);
        underlay(&world, mtu);
        assert!(world.said() > 0, "routers of {mtu} bytes, IPv6: {six}");
    }
}

#[test]
fn narrow_links_carry_all_where_what_routers_tell_is_filtered() {
    for (mtu, six) in [(1400, false), (1400, true)] {
        underlay(&World::filtered(mtu, six), mtu);
    }
}

#[test]
fn a_node_whose_own_interface_is_narrow_reaches_others() {
    let world = World::silent(1500);
    world.hosts[0].ip(["link", "set", "eth0", "mtu", "600"]).unwrap();
    direct(&world, 600);
}
