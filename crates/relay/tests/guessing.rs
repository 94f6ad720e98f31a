//! A payload's traffic on a way that was found by guessing ports: between a node behind a symmetric NAT
//! and one behind a port-restricted one. Real sockets, TUN devices and nftables NATs in namespaces;
//! needs root.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_lab::{Lab, Lan, Nat, Router};
use gvpn_net::{Filtering, Net, NetConfig, PathKind, PathReport};
use gvpn_relay::{Relay, RelayConfig};
use on::{LIMIT, On};
use payload::{Network, Payload};

#[path = "../../net/tests/on/mod.rs"]
mod on;
#[path = "../../net/tests/payload/mod.rs"]
mod payload;

const PORT: u16 = 7464;
/// Ports are guessed again so soon; twice as late each further time. Within the limit of a minute that are
/// five attempts, all of which are in vain with less than 1 in 10^8.
const GUESS_AGAIN: Duration = Duration::from_secs(2);

/// Two relays: it takes two observers to tell what a NAT does.
const RELAYS: [[u8; 4]; 2] = [[198, 51, 100, 1], [198, 51, 100, 2]];

fn relay(lab: &Lab, wan: &Lan, ip: [u8; 4]) -> On<Relay> {
    let host = lab.host("relay").unwrap();
    let addr = SocketAddr::from((ip, PORT));
    host.join(wan, &[&format!("{}/24", addr.ip())]).unwrap();
    let mut config = RelayConfig::new(Identity::generate(), vec![addr]);
    config.workers = 1;
    On::start(host, || async { Relay::start(config).await.unwrap() })
}

/// A node behind a NAT with the address 198.51.100.`n`.
fn home(lab: &Lab, wan: &Lan, n: u8, nat: Nat) -> (On<Net>, Router) {
    let (outside, inside) = (format!("198.51.100.{n}/24"), format!("192.168.{n}.1/24"));
    let router = lab.nat(nat, wan, &outside, &inside).unwrap();
    let host = lab.host("home").unwrap();
    host.join(&router.lan, &[&format!("192.168.{n}.2/24")]).unwrap();
    host.default_route(&format!("192.168.{n}.1")).unwrap();
    let mut config = NetConfig::new(Identity::generate());
    config.listen = vec![([0, 0, 0, 0], PORT).into()];
    config.relays = RELAYS.map(|ip| (ip, PORT).into()).to_vec();
    config.guess_again = GUESS_AGAIN;
    config.workers = 1;
    (On::start(host, || async { Net::bind(config).await.unwrap() }), router)
}

/// How many UDP sockets there are on a node's host.
fn sockets(node: &On<Net>) -> usize {
    let table = node.host.run("cat", ["/proc/net/udp"]).unwrap();
    table.lines().skip(1).count()
}

fn ping(from: &On<Net>, to: &On<Net>) -> PathReport {
    from.runtime.block_on(from.what.ping(to.what.node_id())).unwrap()
}

/// Lets the payloads talk until something holds.
fn talk(what: &str, (from, to): (&Payload, &Payload), mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        from.reaches(to);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn payloads_use_the_way_that_was_guessed_and_its_socket_is_closed_with_it() {
    let lab = Lab::new().unwrap();
    let wan = lab.lan().unwrap();
    let relays = RELAYS.map(|ip| relay(&lab, &wan, ip));
    let (a, router) = home(&lab, &wan, 11, Nat::Symmetric);
    let (b, _router) = home(&lab, &wan, 12, Nat::PortRestricted);
    let registered = || relays.iter().all(|relay| relay.what.stats().clients == 2);
    on::until("both register", registered);
    // What the NAT lets in is found out with a socket more.
    on::until("the NAT is known", || a.what.filtering() == Filtering::AddressAndPortDependent);
    on::until("only its own socket is open", || sockets(&a) == 1);

    let network = Network::of(&[a.what.node_id(), b.what.node_id()]);
    let (here, there) = (Payload::new(&lab, 0), Payload::new(&lab, 1));
    a.with(|net| network.join(net, 0, &here));
    b.with(|net| network.join(net, 1, &there));
    here.reaches(&there);
    let kinds = || [ping(&a, &b), ping(&b, &a)].map(|report| report.kind);
    let mut said = false;
    talk("direct by guessing", (&here, &there), || {
        let report = ping(&a, &b);
        said |= report.reason.contains("guessing the ports of this node's NAT");
        kinds() == [PathKind::Direct; 2]
    });
    assert!(said, "the reason for the relayed path names the attempt");
    on::until("all other sockets are closed", || sockets(&a) == 2);
    assert_eq!(ping(&a, &b).remote, Some("198.51.100.12:7464".parse().unwrap()));
    assert_eq!(ping(&b, &a).remote.map(|addr| addr.ip()), Some([198, 51, 100, 11].into()));

    // Streams, both families, and full-size datagrams go by it, and nothing by the relays.
    talk("MTU", (&here, &there), || ping(&a, &b).mtu >= 1400 && ping(&b, &a).mtu >= 1400);
    let carried = || relays.each_ref().map(|relay| relay.what.stats().forwarded_bytes);
    let before = carried();
    let bytes: Vec<u8> = (0..4_000_000u32).map(|i| (i / 7) as u8).collect();
    for six in [false, true] {
        assert_eq!(here.send_tcp(&there, &bytes, six), bytes);
        assert_eq!(there.send_tcp(&here, &bytes, six), bytes);
    }
    assert_eq!(kinds(), [PathKind::Direct; 2]);
    let after = carried();
    for (before, after) in before.iter().zip(after) {
        assert!(after - before < 1_000_000, "the relays carried {before} and then {after}");
    }

    // The way is cut, and its socket closed; once it is open again, so is another.
    let cut = "table ip cut {
        chain forward {
            type filter hook forward priority -1
            ip daddr 198.51.100.12 drop
            ip saddr 198.51.100.12 drop
        }
    }";
    router.host.run("nft", [cut]).unwrap();
    talk("relayed again", (&here, &there), || kinds() == [PathKind::Relay; 2]);
    talk("socket closed", (&here, &there), || sockets(&a) == 1);
    router.host.run("nft", ["delete table ip cut"]).unwrap();
    a.with(Net::look_again);
    b.with(Net::look_again);
    talk("direct again", (&here, &there), || kinds() == [PathKind::Direct; 2]);

    a.runtime.block_on(a.what.shutdown());
    drop(a.what);
    on::until("no socket is left", || {
        let table = a.host.run("cat", ["/proc/net/udp"]).unwrap();
        table.lines().count() == 1
    });
}
