//! What peers and payloads must not be able to do.

mod support;

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use gvpn_dataplane::{Event, Hop, LaneSpec, Offloads, Route};
use gvpn_identity::Identity;
use gvpn_packet::{Packet, ipv4_header_checksum, transport_checksum};
use gvpn_session::{HEADER_LEN, OVERHEAD, Suite, write_header};
use support::*;

const LOCAL_INDEX: u32 = 77;

/// A node under test with one member, and the test in the place of its peer.
struct Target {
    node: Node,
    host: gvpn_lab::Host,
    net: Net,
    peer: gvpn_model::NodeId,
    socket: UdpSocket,
    sealer: gvpn_session::Sealer,
    probes: gvpn_session::Sealer,
}

impl Target {
    fn new() -> Self {
        let lab = gvpn_lab::Lab::new().unwrap();
        let node = Node::start(Offloads::ALL);
        let peer = Identity::generate().node_id();
        let net = network(&Identity::generate(), &[node.id, peer, Identity::generate().node_id()]);
        node.plane.set_network(net.id(), net.table(node.id));
        let host = lab.host("target").unwrap();
        node.attach(net.id(), net.members[0], tun(&host, 0, Kind::Vnet, 1400));
        let mut sealers = Vec::new();
        for (i, network) in [Some(net.id()), None].into_iter().enumerate() {
            let (ours, theirs) = keys(i as u8, Suite::Aes256Gcm);
            let local_index = LOCAL_INDEX + i as u32;
            node.plane.add_lane(LaneSpec {
                peer,
                network,
                keys: theirs,
                local_index,
                remote_index: 5,
            });
            node.plane.activate_lane(local_index);
            sealers.push(ours.sealer());
        }
        let socket = UdpSocket::bind(LOCAL).unwrap();
        let hop = Hop::Direct(socket.local_addr().unwrap());
        node.plane.set_route(peer, Some(Route { hop, mtu: 1472 }));
        let probes = sealers.pop().unwrap();
        Self { node, host, net, peer, socket, sealer: sealers.pop().unwrap(), probes }
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.node.addr()).unwrap();
    }

    fn sealed(&self, text: &[u8]) -> Vec<u8> {
        seal(&self.sealer, LOCAL_INDEX, text)
    }

    /// Waits until a reason has been counted `n` times.
    fn wait_drops(&self, reason: &str, n: u64) {
        let end = Instant::now() + LIMIT;
        while self.node.dropped(reason) < n {
            assert!(Instant::now() < end, "{reason}: {:?}", self.node.plane.stats().drops);
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(self.node.dropped(reason), n, "{reason}");
    }
}

fn seal(sealer: &gvpn_session::Sealer, index: u32, text: &[u8]) -> Vec<u8> {
    let counter = sealer.reserve(1).unwrap();
    let mut datagram = vec![0; text.len() + OVERHEAD];
    write_header(datagram.first_chunk_mut().unwrap(), index, counter);
    datagram[HEADER_LEN..HEADER_LEN + text.len()].copy_from_slice(text);
    sealer.seal_in_place(counter, &mut datagram);
    datagram
}

/// A UDP packet between members.
fn udp(from: usize, to: usize, port: u16, payload: &[u8]) -> Vec<u8> {
    let octets = |index: usize| [10, 77, 0, index as u8 + 2];
    let len = (28 + payload.len()) as u16;
    let mut packet = vec![0x45, 0, (len >> 8) as u8, len as u8, 0, 1, 0x40, 0, 64, 17, 0, 0];
    packet.extend(octets(from));
    packet.extend(octets(to));
    let sum = ipv4_header_checksum(&packet).to_be_bytes();
    packet[10..12].copy_from_slice(&sum);
    let body = len - 20;
    packet.extend([0x10, 0, (port >> 8) as u8, port as u8, (body >> 8) as u8, body as u8, 0, 0]);
    packet.extend(payload);
    let outline = Packet::parse(&packet).unwrap();
    let sum = transport_checksum(&packet, &outline).unwrap().to_be_bytes();
    packet[26..28].copy_from_slice(&sum);
    packet
}

#[test]
fn only_fresh_authentic_packets_from_their_own_address_come_through() {
    let target = Target::new();
    let inside = target.host.enter(|| UdpSocket::bind("10.77.0.2:0").unwrap()).unwrap();
    inside.set_read_timeout(Some(LIMIT)).unwrap();
    let port = inside.local_addr().unwrap().port();
    let good = target.sealed(&udp(1, 0, port, b"first"));

    target.send(&good);
    let mut buffer = [0; 100];
    assert_eq!(inside.recv(&mut buffer).unwrap(), 5);

    target.send(&good);
    target.wait_drops("replayed", 1);

    let mut forged = target.sealed(&udp(1, 0, port, b"forged"));
    *forged.last_mut().unwrap() ^= 1;
    target.send(&forged);
    target.wait_drops("forged", 1);
    target.send(&seal(&target.sealer, 999, &udp(1, 0, port, b"lane")));
    target.wait_drops("unknown_lane", 1);
    for rubbish in
        [&[4u8][..], &[4, 0, 0, 1, 9, 9], &[0; 60], &[5, 0, 0, 0, 1], &[5, 0, 0, 0, 1, 0, 0, 0, 9]]
    {
        target.send(rubbish);
    }
    target.wait_drops("unrecognised", 5);
    target.send(&target.sealed(&udp(2, 0, port, b"another node's address")));
    target.send(&target.sealed(&udp(0, 0, port, b"the receiver's own address")));
    target.wait_drops("spoofed_source", 2);
    target.send(&target.sealed(&udp(1, 2, port, b"for a third node")));
    target.wait_drops("not_here", 1);
    target.send(&target.sealed(&[0x45; 12]));
    target.send(&target.sealed(&[0x46; 40]));
    target.send(&seal(&target.probes, LOCAL_INDEX + 1, &udp(1, 0, port, b"on the probes' lane")));
    target.wait_drops("malformed", 3);
    target.send(&target.sealed(&[3, 9, 2, 0, 1, 2, 3]));
    target.wait_drops("fragment", 1);
    target.send(&target.sealed(&[]));

    target.node.plane.remove_network(target.net.id());
    target.send(&target.sealed(&udp(1, 0, port, b"no network")));
    target.wait_drops("not_a_member", 1);
    target.node.plane.set_network(target.net.id(), target.net.table(target.node.id));

    target.send(&target.sealed(&udp(1, 0, port, b"last")));
    assert_eq!(inside.recv(&mut buffer).unwrap(), 4);
    assert_eq!(&buffer[..4], b"last");
}

#[test]
fn a_window_of_reordering_is_accepted_and_what_lies_behind_it_is_not() {
    let target = Target::new();
    let inside = target.host.enter(|| UdpSocket::bind("10.77.0.2:0").unwrap()).unwrap();
    inside.set_read_timeout(Some(LIMIT)).unwrap();
    let port = inside.local_addr().unwrap().port();
    let old = target.sealed(&udp(1, 0, port, b"too old"));
    target.sealer.reserve(gvpn_session::WINDOW - 1).unwrap();
    let late = target.sealed(&udp(1, 0, port, b"late"));
    let new = target.sealed(&udp(1, 0, port, b"new"));
    for (datagram, len) in [(&new, 3), (&late, 4)] {
        target.send(datagram);
        assert_eq!(inside.recv(&mut [0; 100]).unwrap(), len);
    }
    target.send(&old);
    target.wait_drops("too_old", 1);
}

#[test]
fn a_bad_checksum_is_not_made_good_on_the_way() {
    let target = Target::new();
    let inside = target.host.enter(|| UdpSocket::bind("10.77.0.2:0").unwrap()).unwrap();
    inside.set_read_timeout(Some(LIMIT)).unwrap();
    let port = inside.local_addr().unwrap().port();
    for _ in 0..2 {
        let mut wrong = udp(1, 0, port, b"wrong");
        wrong[27] ^= 1;
        target.send(&target.sealed(&wrong));
    }
    target.send(&target.sealed(&udp(1, 0, port, b"right!")));
    assert_eq!(inside.recv(&mut [0; 100]).unwrap(), 6);
}

#[test]
fn probes_come_out_and_go_in_and_quic_shares_the_socket() {
    let mut target = Target::new();
    let hop = Hop::Direct(target.socket.local_addr().unwrap());
    target.send(&seal(&target.probes, LOCAL_INDEX + 1, &[1, 2, 3]));
    let want = Event::Probe { peer: target.peer, hop, bytes: vec![1, 2, 3] };
    target.node.wait_event("a probe", |event| *event == want);

    target.node.plane.send_probe(target.peer, hop, &[2, 9]).unwrap();
    target.socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut buffer = [0; 100];
    let n = target.socket.recv(&mut buffer).unwrap();
    let (ours, _) = keys(1, Suite::Aes256Gcm);
    assert_eq!(ours.opener().open_in_place(0, &mut buffer[..n]).unwrap(), [2, 9]);

    target.send(&[0x40, 1, 2]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let received = runtime
        .block_on(async { tokio::time::timeout(LIMIT, target.node.datagrams.recv()).await })
        .unwrap()
        .unwrap();
    assert_eq!((received.hop, &received.contents[..]), (hop, &[0x40, 1, 2][..]));
    let stranger = Identity::generate().node_id();
    let error = target.node.plane.send_probe(stranger, hop, &[1]).unwrap_err();
    assert!(error.to_string().contains(&stranger.to_string()));
}

#[test]
fn a_payload_sends_from_its_own_address_only() {
    let target = Target::new();
    target.host.ip(["addr", "add", "10.77.0.99/24", "dev", "tun0"]).unwrap();
    let inside = target.host.enter(|| UdpSocket::bind("10.77.0.99:0").unwrap()).unwrap();
    let before = target.node.dropped("spoofed_source");
    inside.send_to(b"x", "10.77.0.3:9").unwrap();
    let end = Instant::now() + LIMIT;
    while target.node.dropped("spoofed_source") == before {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(2));
    }
}
