//! Real packets between two data planes, in every mode.

mod support;

use std::{net::UdpSocket, os::fd::AsRawFd};

use gvpn_dataplane::{Event, Offloads};
use gvpn_session::Suite;
use support::*;

/// What an idle pair may drop: neighbour and router discovery that ends at the switch.
const CHATTER: &[&str] = &["consumed", "no_listener", "multicast_off", "spoofed_source"];

#[test]
fn ping_in_both_families_and_both_directions() {
    let pair = Pair::new(Offloads::ALL, Kind::Vnet, 1472);
    ping(&pair.host_a, v4(1), &[]);
    ping(&pair.host_b, v4(0), &["-s", "1372"]);
    ping(&pair.host_a, v6(1), &["-s", "1000"]);
    ping(&pair.host_b, v6(0), &[]);
    assert_eq!(pair.a.drops_except(CHATTER), []);
    assert_eq!(pair.b.drops_except(CHATTER), []);
    let stats = pair.a.plane.stats();
    assert_eq!(stats.lanes.len(), 1);
    assert!(stats.lanes[0].active && stats.lanes[0].packets_sent >= 12);
    assert!(stats.ports[0].packets_in >= 12 && stats.ports[0].super_packets);
    assert_eq!(stats.networks[0].packets_out, stats.ports[0].packets_out);
}

#[test]
fn tcp_arrives_whole_whatever_offloads_are_missing() {
    let modes = [
        (Offloads::ALL, Kind::Vnet, Suite::Aes256Gcm),
        (Offloads::ALL, Kind::Vnet, Suite::ChaCha20Poly1305),
        (Offloads { udp_gso: false, ..Offloads::ALL }, Kind::Vnet, Suite::Aes256Gcm),
        (Offloads { udp_gro: false, ..Offloads::ALL }, Kind::Vnet, Suite::Aes256Gcm),
        (Offloads { coalesce: false, ..Offloads::ALL }, Kind::Vnet, Suite::Aes256Gcm),
        (Offloads::ALL, Kind::Plain, Suite::Aes256Gcm),
        (Offloads::NONE, Kind::Plain, Suite::Aes256Gcm),
    ];
    for (offloads, kind, suite) in modes {
        let pair = Pair::without_lane(offloads, kind, 1472);
        lane_of(&pair.a, &pair.b, Some(pair.net.id()), 1, suite);
        for (ip, len) in [(v4(1), 24 << 20), (v6(1), 8 << 20)] {
            transfer(&pair.host_a, &pair.host_b, ip, len);
        }
        for node in [&pair.a, &pair.b] {
            let wrong = ["forged", "replayed", "malformed", "port_failed", "bad_frame", "too_big"];
            let drops = node.plane.stats().drops;
            assert!(!drops.iter().any(|(name, _)| wrong.contains(name)), "{offloads:?} {drops:?}");
        }
    }
}

#[test]
fn a_vnic_without_offloads_talks_to_one_with_them() {
    let pair = Pair::new(Offloads::ALL, Kind::Vnet, 1472);
    let plain = pair.lab.host("plain").unwrap();
    let port = pair.b.plane.stats().ports[0].port;
    pair.b.plane.detach(port);
    pair.b.attach(pair.net.id(), pair.net.members[1], tun(&plain, 1, Kind::Plain, 1400));
    transfer(&pair.host_a, &plain, v4(1), 8 << 20);
    transfer(&plain, &pair.host_a, v6(0), 8 << 20);
}

#[test]
fn a_clean_link_loses_and_reorders_nothing() {
    let pair = Pair::new(Offloads::ALL, Kind::Vnet, 1472);
    transfer(&pair.host_a, &pair.host_b, v4(1), 64 << 20);
    let (a, b) = (pair.a.plane.stats(), pair.b.plane.stats());
    assert_eq!(a.lanes[0].packets_sent, b.lanes[0].packets_received);
    assert_eq!(b.lanes[0].packets_sent, a.lanes[0].packets_received);
    assert_eq!((pair.a.drops_except(CHATTER), pair.b.drops_except(CHATTER)), (vec![], vec![]));
    // Retransmissions alone prove nothing: a starved machine lets TCP probe for a lost tail.
    for host in [&pair.host_a, &pair.host_b] {
        let said = host.run("nstat", ["-asz", "TcpExtTCPOFOQueue"]).unwrap();
        let count = said.lines().last().and_then(|line| line.split_whitespace().nth(1));
        assert_eq!(count, Some("0"), "segments out of order: {said}");
    }
}

#[test]
fn udp_segmentation_by_the_payload_arrives_as_the_datagrams_it_stands_for() {
    for kind in [Kind::Vnet, Kind::Plain] {
        let pair = Pair::new(Offloads::ALL, kind, 1472);
        for (from, to) in [(v4(0), v4(1)), (v6(0), v6(1))] {
            let receiver = pair.host_b.enter(|| UdpSocket::bind((to, 0)).unwrap()).unwrap();
            receiver.set_read_timeout(Some(LIMIT)).unwrap();
            let sender = pair.host_a.enter(|| UdpSocket::bind((from, 0)).unwrap()).unwrap();
            let size: libc::c_int = 1000;
            // SAFETY: the pointer and length describe one live int.
            let set = unsafe {
                libc::setsockopt(
                    sender.as_raw_fd(),
                    libc::SOL_UDP,
                    103,
                    (&raw const size).cast(),
                    4,
                )
            };
            assert_eq!(set, 0);
            let bytes: Vec<u8> = (0..20_500u32).map(|i| (i / 100) as u8).collect();
            sender.send_to(&bytes, receiver.local_addr().unwrap()).unwrap();
            let mut got = Vec::new();
            for _ in 0..21 {
                let mut buffer = [0; 2000];
                let n = receiver.recv(&mut buffer).unwrap_or_else(|error| {
                    let (a, b) = (pair.a.plane.stats(), pair.b.plane.stats());
                    panic!("{kind:?} {to} after {}: {error}; {a:?} {b:?}", got.len())
                });
                assert!(n == 1000 || got.len() == 20_000, "{n}");
                got.extend_from_slice(&buffer[..n]);
            }
            assert_eq!(got, bytes);
        }
    }
}

#[test]
fn packets_wait_for_a_lane_that_is_asked_for_once() {
    let mut pair = Pair::without_lane(Offloads::ALL, Kind::Vnet, 1472);
    let network = pair.net.id();
    std::thread::scope(|scope| {
        scope.spawn(|| ping(&pair.host_a, v4(1), &["-c", "1"]));
        let wanted = Event::LaneWanted { peer: pair.b.id, network };
        pair.a.wait_event("a lane is wanted", |event| *event == wanted);
        lane(&pair.a, &pair.b, Some(network), 1);
    });
    ping(&pair.host_b, v4(0), &[]);
    let mut again = 0;
    while let Ok(event) = pair.a.events.try_recv() {
        again += u32::from(matches!(event, Event::LaneWanted { .. }));
    }
    assert_eq!(again, 0);
}

#[test]
fn both_directions_of_time_are_reported() {
    let mut pair = Pair::new(Offloads::ALL, Kind::Vnet, 1472);
    ping(&pair.host_a, v4(1), &[]);
    let (peer, hop) = (pair.a.id, gvpn_dataplane::Hop::Direct(pair.a.addr()));
    pair.b.wait_event("heard", |event| *event == Event::Heard { peer, hop });
    pair.a.wait_event("active", |event| *event == Event::Active { peer: pair.b.id });
    let activity = pair.a.plane.activity(pair.b.id);
    assert!(activity.sent.is_some() && activity.heard.is_some());
    assert!(activity.packets_sent >= 3 && activity.packets_received >= 3);
}

#[test]
fn two_payloads_of_one_node_need_no_lane() {
    let lab = gvpn_lab::Lab::new().unwrap();
    let node = Node::start(Offloads::ALL);
    let net = network(&gvpn_identity::Identity::generate(), &[node.id, node.id]);
    node.plane.set_network(net.id(), net.table(node.id));
    for kinds in [[Kind::Vnet, Kind::Vnet], [Kind::Vnet, Kind::Plain], [Kind::Plain, Kind::Vnet]] {
        let hosts = [lab.host("a").unwrap(), lab.host("b").unwrap()];
        let ports: Vec<_> = (0..2)
            .map(|i| node.attach(net.id(), net.members[i], tun(&hosts[i], i, kinds[i], 1400)))
            .collect();
        ping(&hosts[0], v4(1), &[]);
        transfer(&hosts[0], &hosts[1], v4(1), 16 << 20);
        transfer(&hosts[0], &hosts[1], v6(1), 4 << 20);
        ports.into_iter().for_each(|port| node.plane.detach(port));
    }
}

#[test]
fn a_vnic_that_goes_away_is_reported_and_can_come_back() {
    let mut pair = Pair::new(Offloads::ALL, Kind::Vnet, 1472);
    let port = pair.a.plane.stats().ports[0].port;
    pair.host_a.ip(["link", "del", "tun0"]).unwrap();
    pair.a.wait_event("port closed", |event| *event == Event::PortClosed { port });
    let nic = tun(&pair.host_a, 0, Kind::Vnet, 1400);
    let again = pair.a.attach(pair.net.id(), pair.net.members[0], nic);
    assert_ne!(port, again);
    ping(&pair.host_a, v4(1), &[]);
    let nic = tun(&pair.lab.host("other").unwrap(), 0, Kind::Vnet, 1400);
    let spec =
        gvpn_dataplane::PortSpec { network: pair.net.id(), member: pair.net.members[0], nic };
    assert!(pair.a.plane.attach(spec).unwrap_err().to_string().contains("already"));
}

#[test]
fn an_underlay_of_either_family_carries_both() {
    let pair = Pair::new(Offloads::ALL, Kind::Vnet, 1452);
    let config = gvpn_dataplane::Config {
        listen: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()],
        workers: 1,
        offloads: Offloads::ALL,
    };
    let (plane, _events, _datagrams) = gvpn_dataplane::DataPlane::start(config).unwrap();
    let addrs = plane.local_addrs();
    assert!(addrs[0].is_ipv4() && addrs[1].is_ipv6());
    drop(plane);

    let six = |id| {
        let listen = vec!["[::1]:0".parse().unwrap()];
        let config = gvpn_dataplane::Config { listen, workers: 1, offloads: Offloads::ALL };
        let (plane, events, datagrams) = gvpn_dataplane::DataPlane::start(config).unwrap();
        Node { id, plane, events, datagrams }
    };
    let hosts = [pair.lab.host("a6").unwrap(), pair.lab.host("b6").unwrap()];
    let nodes = [six(pair.a.id), six(pair.b.id)];
    for (index, node) in nodes.iter().enumerate() {
        node.plane.set_network(pair.net.id(), pair.net.table(node.id));
        let nic = tun(&hosts[index], index, Kind::Vnet, 1400);
        node.attach(pair.net.id(), pair.net.members[index], nic);
    }
    routes(&nodes[0], &nodes[1], 1452);
    lane(&nodes[0], &nodes[1], Some(pair.net.id()), 9);
    ping(&hosts[0], v4(1), &[]);
    transfer(&hosts[0], &hosts[1], v6(1), 8 << 20);
    let again = gvpn_dataplane::Config {
        listen: vec![nodes[0].addr()],
        workers: 1,
        offloads: Offloads::ALL,
    };
    let taken = gvpn_dataplane::DataPlane::start(again).unwrap_err().to_string();
    assert!(taken.contains("choose another port"), "{taken}");
}
