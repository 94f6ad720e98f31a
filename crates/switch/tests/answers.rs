//! What the switch answers itself: echo, errors, names, ARP and neighbour discovery.

mod world;

use std::net::IpAddr;

use gvpn_roster::{MemberEdit, Policy, Service, SettingsEdit};
use gvpn_switch::{
    DropReason, Table, Verdict,
    ethernet::{EthernetEdge, FrameIn, SWITCH_MAC},
};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use proptest::prelude::*;
use world::*;

const SECOND: u64 = 1_000_000_000;
const PAYLOAD_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

#[test]
fn the_gateway_answers_echo_when_nobody_holds_it() {
    let world = World::new();
    let table = world.table(node(1));
    let port = ix(&table, 1);
    for (from, to, at, reply) in
        [("10.0.0.2", "10.0.0.254", 20, 0), ("fd00::2", "fd00::fe", 40, 129)]
    {
        let asked = ping(from, to);
        assert_eq!(table.from_port(port, &asked), Verdict::Answer);
        let answer = table.answer(port, &asked, 0).unwrap();
        assert_sums(&answer);
        assert_eq!(answer[at], reply);
        assert_eq!(answer[at + 4..], asked[at + 4..], "the same data");
        assert_eq!(table.answer(port, &answer, 0), None, "a reply is not answered");
    }
}

#[test]
fn a_gateway_that_somebody_holds_is_theirs_but_for_names() {
    let mut world = World::new();
    world.book.set_gateway("10.0.0.0/24".parse().unwrap(), ip("10.0.0.1")).unwrap();
    let table = world.table(node(1));
    let port = ix(&table, 1);
    let owner = Verdict::Deliver(ix(&table, 0));
    assert_eq!(table.from_port(port, &ping("10.0.0.2", "10.0.0.1")), owner);
    let question = udp("10.0.0.2", "10.0.0.1", (5000, 53), b"");
    assert_eq!(table.from_port(port, &question), Verdict::Answer);
    world.policy(Policy { dns: false, ..Default::default() });
    let table = world.table(node(1));
    assert_eq!(table.from_port(port, &question), owner, "unless the owner turns them off");
}

#[test]
fn refusals_tell_the_sender_and_do_not_flood() {
    let world = World::new();
    let table = world.table(node(1));
    let lost = tcp("10.0.0.2", "10.0.0.99", (1, 80), 2);
    let error = table.refusal(&lost, DropReason::NoSuchMember, SECOND).unwrap();
    assert_sums(&error);
    assert_eq!((error[9], error[20], error[21]), (1, 3, 1), "host unreachable");
    assert_eq!(error[12..16], [10, 0, 0, 254]);
    assert_eq!(error[28..], lost[..]);
    let six = table.refusal(&ping("fd00::2", "fd00::99"), DropReason::Denied, SECOND).unwrap();
    assert_sums(&six);
    assert_eq!((six[40], six[41]), (1, 1), "administratively prohibited");
    // Never about errors, groups or what the sender need not know.
    assert_eq!(table.refusal(&error, DropReason::NoSuchMember, SECOND), None);
    let group = udp("10.0.0.2", "239.1.1.1", (1, 2), b"");
    assert_eq!(table.refusal(&group, DropReason::Denied, SECOND), None);
    assert_eq!(table.refusal(&lost, DropReason::RateLimited, SECOND), None);
    let sent = (0..10_000)
        .filter(|n| table.refusal(&lost, DropReason::Denied, 2 * SECOND + n * 100_000).is_some());
    assert!(sent.count() < 200, "a hundred a second");
}

#[test]
fn a_gateway_without_services_says_so() {
    let world = World::new();
    let table = world.table(node(1));
    let port = ix(&table, 1);
    let syn = tcp("10.0.0.2", "10.0.0.254", (1, 80), 2);
    let reset = table.answer(port, &syn, 0).unwrap();
    assert_sums(&reset);
    assert_eq!(reset[33], 0x14, "RST and ACK");
    assert_eq!(table.answer(port, &reset, 0), None);
    let unreachable = table.answer(port, &udp("10.0.0.2", "10.0.0.254", (1, 80), b"x"), 0).unwrap();
    assert_eq!((unreachable[20], unreachable[21]), (3, 3), "port unreachable");
}

fn ask(table: &Table, name: &str, kind: RecordType) -> Message {
    ask_with(table, name, kind, None)
}

fn ask_with(table: &Table, name: &str, kind: RecordType, edns: Option<u16>) -> Message {
    let mut question = Message::query();
    question.metadata.id = 77;
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(size) = edns {
        let mut edns = Edns::new();
        edns.set_max_payload(size);
        question.set_edns(edns);
    }
    let packet = udp("10.0.0.2", "10.0.0.254", (5000, 53), &question.to_vec().unwrap());
    let port = ix(table, 1);
    assert_eq!(table.from_port(port, &packet), Verdict::Answer);
    // Late enough that no limit applies.
    static NOW: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let now = NOW.fetch_add(SECOND, std::sync::atomic::Ordering::Relaxed);
    let reply = table.answer(port, &packet, now).unwrap();
    assert_sums(&reply);
    assert_eq!(reply[12..20], [10, 0, 0, 254, 10, 0, 0, 2]);
    assert_eq!(reply[20..24], [0, 53, 0x13, 0x88]);
    let message = Message::from_vec(&reply[28..]).unwrap();
    assert_eq!(message.metadata.id, 77);
    assert_eq!(message.metadata.message_type, MessageType::Response);
    message
}

fn texts(message: &Message) -> Vec<String> {
    message.answers.iter().map(|r| r.data.to_string()).collect()
}

#[test]
fn members_are_found_by_name_and_names_by_address() {
    let mut world = World::new();
    let services = vec![
        Service { name: "http".into(), udp: false, port: 8080 },
        Service { name: "echo".into(), udp: true, port: 7 },
    ];
    world.edit(1, MemberEdit { services: Some(services), ..Default::default() });
    let hosts = [("printer.home".to_owned(), vec![ip("192.168.1.9")])];
    let edit = SettingsEdit { hosts: Some(hosts.into()), ..Default::default() };
    world.book.edit_settings(edit).unwrap();
    let table = world.table(node(1));
    let id = world.book.network();
    let cases = [
        ("web.lab.vpn.", RecordType::A, "10.0.0.2"),
        ("WEB.Lab.VPN.", RecordType::A, "10.0.0.2"),
        ("web.lab.vpn.", RecordType::AAAA, "fd00::2"),
        ("member-3.lab.vpn.", RecordType::A, "10.0.0.4"),
        (&format!("db.{id}.vpn."), RecordType::A, "10.0.0.3"),
        ("gateway.lab.vpn.", RecordType::A, "10.0.0.254"),
        ("db.", RecordType::A, "10.0.0.3"),
        ("printer.home.", RecordType::A, "192.168.1.9"),
        ("2.0.0.10.in-addr.arpa.", RecordType::PTR, "web.lab.vpn."),
        ("4.0.0.10.in-addr.arpa.", RecordType::PTR, "member-3.lab.vpn."),
        (
            "3.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
            RecordType::PTR,
            "db.lab.vpn.",
        ),
        ("_http._tcp.web.lab.vpn.", RecordType::SRV, "0 0 8080 web.lab.vpn."),
        ("_http._tcp.lab.vpn.", RecordType::SRV, "0 0 8080 web.lab.vpn."),
        ("_echo._udp.lab.vpn.", RecordType::SRV, "0 0 7 web.lab.vpn."),
    ];
    for (name, kind, want) in cases {
        let reply = ask(&table, name, kind);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{name}");
        assert!(reply.metadata.authoritative && !reply.metadata.recursion_available);
        assert_eq!(texts(&reply), [want], "{name} {kind}");
        assert!(reply.answers.iter().all(|r| r.ttl <= 5), "changes are seen at once");
    }
}

#[test]
fn other_questions_get_a_clear_no() {
    let table = World::new().table(node(1));
    for (name, kind, code) in [
        ("nobody.lab.vpn.", RecordType::A, ResponseCode::NXDomain),
        ("_http._tcp.web.lab.vpn.", RecordType::SRV, ResponseCode::NXDomain),
        ("a.b.c.lab.vpn.", RecordType::A, ResponseCode::NXDomain),
        ("99.0.0.10.in-addr.arpa.", RecordType::PTR, ResponseCode::NXDomain),
        ("web.lab.vpn.", RecordType::MX, ResponseCode::NoError),
        ("lab.vpn.", RecordType::A, ResponseCode::NoError),
        ("web.other.vpn.", RecordType::A, ResponseCode::Refused),
        ("example.com.", RecordType::A, ResponseCode::Refused),
        ("nobody.", RecordType::A, ResponseCode::Refused),
        (".", RecordType::NS, ResponseCode::Refused),
        ("9.9.9.9.in-addr.arpa.", RecordType::PTR, ResponseCode::Refused),
    ] {
        let reply = ask(&table, name, kind);
        assert_eq!(reply.metadata.response_code, code, "{name}");
        assert!(reply.answers.is_empty(), "{name}");
        let negative = code != ResponseCode::Refused;
        assert_eq!(reply.authorities.len(), usize::from(negative), "SOA of {name}");
    }
    let soa = ask(&table, "lab.vpn.", RecordType::SOA);
    assert!(matches!(soa.answers[0].data, RData::SOA(_)));
    let mut update = Message::query();
    update.metadata.op_code = OpCode::Update;
    let packet = udp("10.0.0.2", "10.0.0.254", (1, 53), &update.to_vec().unwrap());
    let reply = table.answer(ix(&table, 1), &packet, 1000 * SECOND).unwrap();
    let reply = Message::from_vec(&reply[28..]).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
}

#[test]
fn names_follow_a_change_at_once() {
    let mut world = World::new();
    let before = world.table(node(1));
    assert_eq!(texts(&ask(&before, "web.lab.vpn.", RecordType::A)), ["10.0.0.2"]);
    let edit = MemberEdit {
        add_ips: vec![ip("10.0.0.50")],
        name: Some(Some("www".into())),
        ..Default::default()
    };
    world.edit(1, edit);
    let after = before.rebuild(world.book.roster());
    assert_eq!(texts(&ask(&after, "www.lab.vpn.", RecordType::A)), ["10.0.0.2", "10.0.0.50"]);
    let old = ask(&after, "web.lab.vpn.", RecordType::A);
    assert_eq!(old.metadata.response_code, ResponseCode::NXDomain);
}

#[test]
fn long_answers_fit_what_the_asker_can_take() {
    let mut world = World::new();
    let services = (0..60).map(|n| Service { name: "job".into(), udp: false, port: n }).collect();
    world.edit(1, MemberEdit { services: Some(services), ..Default::default() });
    let table = world.table(node(1));
    for (edns, limit) in [(None, 512), (Some(1232), 1232), (Some(65535), 1232), (Some(0), 512)] {
        let reply = ask_with(&table, "_job._tcp.lab.vpn.", RecordType::SRV, edns);
        assert!(reply.to_vec().unwrap().len() <= limit);
        assert!(reply.metadata.truncation && !reply.answers.is_empty());
    }
}

#[test]
fn a_flood_of_questions_is_cut_off() {
    let table = World::new().table(node(1));
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii("web.lab.vpn.").unwrap(), RecordType::A));
    let packet = udp("10.0.0.2", "10.0.0.254", (1, 53), &question.to_vec().unwrap());
    let port = ix(&table, 1);
    let answered = (0..10_000).filter(|n| table.answer(port, &packet, n * 10_000).is_some());
    assert!(answered.count() < 1000, "in a tenth of a second");
}

fn arp(operation: u8, from: &str, target: &str) -> Vec<u8> {
    let octets = |text: &str| match ip(text) {
        IpAddr::V4(a) => a.octets(),
        IpAddr::V6(_) => panic!(),
    };
    let mut frame = vec![0xff; 6];
    frame.extend(PAYLOAD_MAC);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(PAYLOAD_MAC);
    frame.extend(octets(from));
    frame.extend([0; 6]);
    frame.extend(octets(target));
    frame
}

#[test]
fn arp_is_answered_for_those_who_exist() {
    let table = World::new().table(node(1));
    let port = ix(&table, 1);
    let mut edge = EthernetEdge::new();
    assert_eq!(edge.header_out(&ping("10.0.0.4", "10.0.0.2")), None, "nobody spoke yet");
    for target in ["10.0.0.3", "10.0.0.4", "10.0.0.254", "10.0.0.1"] {
        let frame = arp(1, "10.0.0.2", target);
        let FrameIn::Reply(reply) = edge.frame_in(&table, port, &frame) else { panic!("{target}") };
        assert_eq!(reply[..6], PAYLOAD_MAC);
        assert_eq!(reply[20..22], [0, 2]);
        assert_eq!(reply[22..28], SWITCH_MAC);
        assert_eq!(reply[28..32], frame[38..42]);
        assert_eq!(reply[38..42], [10, 0, 0, 2]);
    }
    // Not for nobody, not for the asker (it looks for duplicates), not for announcements.
    for (from, target) in [
        ("10.0.0.2", "10.0.0.99"),
        ("0.0.0.0", "10.0.0.2"),
        ("10.0.0.2", "10.0.0.2"),
        ("10.0.0.2", "10.0.0.255"),
        ("10.0.0.2", "8.8.8.8"),
    ] {
        let frame = arp(1, from, target);
        let got = edge.frame_in(&table, port, &frame);
        assert_eq!(got, FrameIn::Drop(DropReason::Consumed), "{from} {target}");
    }
    // Another's address is defended against duplicates.
    assert!(matches!(
        edge.frame_in(&table, port, &arp(1, "0.0.0.0", "10.0.0.3")),
        FrameIn::Reply(_)
    ));
    assert_eq!(edge.mac(), Some(PAYLOAD_MAC));
    let header = edge.header_out(&ping("10.0.0.4", "10.0.0.2")).unwrap();
    assert_eq!(header[..6], PAYLOAD_MAC);
    assert_eq!(header[12..], [8, 0]);
    let group = edge.header_out(&udp("10.0.0.4", "239.129.2.3", (1, 2), b"")).unwrap();
    assert_eq!(group[..6], [1, 0, 0x5e, 1, 2, 3]);
    let group = edge.header_out(&udp("fd00::4", "ff02::fb", (1, 2), b"")).unwrap();
    assert_eq!((&group[..6], &group[12..]), (&[0x33, 0x33, 0, 0, 0, 0xfb][..], &[0x86, 0xdd][..]));
}

fn solicit(from: &str, target: &str) -> Vec<u8> {
    let IpAddr::V6(address) = ip(target) else { panic!() };
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(address.octets());
    let mut ip = packet(from, "ff02::1:ff00:1", 58, &message);
    ip[7] = 255;
    let mut frame = vec![0x33, 0x33, 0xff, 0, 0, 1];
    frame.extend(PAYLOAD_MAC);
    frame.extend([0x86, 0xdd]);
    frame.extend(ip);
    frame
}

#[test]
fn neighbours_are_advertised_who_exist() {
    let table = World::new().table(node(1));
    let port = ix(&table, 1);
    let mut edge = EthernetEdge::new();
    for target in ["fd00::3", "fd00::4", "fd00::fe", "fe80::6776:706e:ffff:ffff"] {
        let FrameIn::Reply(reply) = edge.frame_in(&table, port, &solicit("fd00::2", target)) else {
            panic!("{target}")
        };
        assert_eq!(reply[..6], PAYLOAD_MAC);
        assert_sums(&reply[14..]);
        assert_eq!((reply[21], reply[54], reply[58]), (255, 136, 0x60));
        assert_eq!(reply[80..86], SWITCH_MAC);
    }
    let frame = solicit("::", "fd00::2");
    let dad = edge.frame_in(&table, port, &frame);
    assert_eq!(dad, FrameIn::Drop(DropReason::Consumed), "its own address is free for it");
    let FrameIn::Reply(defended) = edge.frame_in(&table, port, &solicit("::", "fd00::3")) else {
        panic!()
    };
    assert_eq!((&defended[..6], defended[58]), (&[0x33, 0x33, 0, 0, 0, 1][..], 0x20));
    let frame = solicit("fd00::2", "fd00::99");
    let nobody = edge.frame_in(&table, port, &frame);
    assert_eq!(nobody, FrameIn::Drop(DropReason::Consumed));
    let mut far = solicit("fd00::2", "fd00::3");
    far[21] = 64;
    assert_eq!(edge.frame_in(&table, port, &far), FrameIn::Drop(DropReason::Consumed));
}

#[test]
fn an_edge_asks_and_announces() {
    let table = World::new().table(node(1));
    let port = ix(&table, 1);
    let edge = EthernetEdge::new();
    let asked = edge.solicitations(&table, port);
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0][38..42], [10, 0, 0, 2]);
    assert_sums(&asked[1][14..]);
    let announced = edge.announcements(&table, port);
    assert_eq!(announced.len(), 2);
    assert_eq!(
        (&announced[0][28..32], &announced[0][38..42]),
        (&[10, 0, 0, 254][..], &[10, 0, 0, 254][..])
    );
    assert_sums(&announced[1][14..]);
}

#[test]
fn padding_of_short_frames_is_cut() {
    let table = World::new().table(node(1));
    let mut edge = EthernetEdge::new();
    let ip = ping("10.0.0.2", "10.0.0.3");
    let mut frame = vec![2; 12];
    frame.extend([8, 0]);
    frame.extend(&ip);
    frame.resize(60, 0);
    assert_eq!(edge.frame_in(&table, ix(&table, 1), &frame), FrameIn::Packet(&ip[..]));
}

proptest! {
    #[test]
    fn any_frame_and_any_question_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        kind in prop_oneof![Just([8u8, 0]), Just([8, 6]), Just([0x86, 0xdd]), Just([0x81, 0])],
    ) {
        let table = World::new().table(node(1));
        let port = ix(&table, 1);
        let mut edge = EthernetEdge::new();
        edge.frame_in(&table, port, &bytes);
        edge.header_out(&bytes);
        let mut frame = vec![2; 12];
        frame.extend(kind);
        frame.extend(&bytes);
        edge.frame_in(&table, port, &frame);
        let question = udp("10.0.0.2", "10.0.0.254", (1, 53), &bytes);
        if let Some(reply) = table.answer(port, &question, 0) {
            assert_sums(&reply);
        }
    }

    #[test]
    fn a_damaged_question_is_survived(place in 0usize..60, flip in 1u8..) {
        let table = World::new().table(node(1));
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii("_http._tcp.web.lab.vpn.").unwrap(), RecordType::SRV));
        let mut bytes = question.to_vec().unwrap();
        let place = place % bytes.len();
        bytes[place] ^= flip;
        let packet = udp("10.0.0.2", "10.0.0.254", (1, 53), &bytes);
        if let Some(reply) = table.answer(ix(&table, 1), &packet, 0) {
            assert_sums(&reply);
        }
    }
}
