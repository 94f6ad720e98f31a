//! vNICs that speak Ethernet over sockets.

mod support;

use gvpn_dataplane::{Event, Offloads};
use support::*;

#[test]
fn every_framing_carries_both_families_and_talks_to_a_tun() {
    for kind in ["stream", "stream2", "dgram"] {
        let pair = Pair::new(Offloads::ALL, Kind::Vnet, 1472);
        let host = pair.lab.host("ethernet").unwrap();
        let port = pair.b.plane.stats().ports[0].port;
        pair.b.plane.detach(port);
        pair.b.attach(pair.net.id(), pair.net.members[1], ethernet(&host, 1, kind));
        ping(&host, v4(0), &[]);
        ping(&pair.host_a, v4(1), &["-s", "1300"]);
        ping(&host, v6(0), &[]);
        transfer(&pair.host_a, &host, v4(1), 4 << 20);
        transfer(&host, &pair.host_a, v6(0), 4 << 20);
        assert_eq!(pair.b.plane.stats().ports[0].kind, kind);
        assert_eq!(pair.b.dropped("port_failed"), 0);
    }
}

#[test]
fn the_first_packet_to_a_silent_payload_makes_it_tell_its_address() {
    let pair = Pair::new(Offloads::ALL, Kind::Vnet, 1472);
    let host = pair.lab.host("ethernet").unwrap();
    // The kernel's own chatter would give the address away.
    host.run("sysctl", ["-qw", "net.ipv6.conf.default.disable_ipv6=0"]).unwrap();
    let port = pair.b.plane.stats().ports[0].port;
    pair.b.plane.detach(port);
    pair.b.attach(pair.net.id(), pair.net.members[1], ethernet(&host, 1, "stream"));
    let to = v4(1).to_string();
    // One of several comes back: the first may fall to the search for the address.
    pair.host_a.run("ping", ["-c", "5", "-i", "0.3", "-W", "5", &to]).unwrap();
}

#[test]
fn an_ethernet_vnic_whose_other_end_closes_is_reported() {
    let mut pair = Pair::new(Offloads::ALL, Kind::Vnet, 1472);
    let port = pair.b.plane.stats().ports[0].port;
    pair.b.plane.detach(port);
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let nic = gvpn_dataplane::Nic::Stream(ours.into());
    let port = pair.b.attach(pair.net.id(), pair.net.members[1], nic);
    drop(theirs);
    pair.b.wait_event("port closed", |event| *event == Event::PortClosed { port });
    assert!(pair.b.plane.stats().ports.iter().all(|other| other.port != port));
}
