//! A small network for tests: an owner's book, and packets.
#![allow(dead_code, unreachable_pub)]

use std::net::IpAddr;

use gvpn_identity::Identity;
use gvpn_model::{MemberId, NodeId};
use gvpn_roster::{MemberEdit, MemberSpec, NetworkSpec, OwnerBook, Policy, SettingsEdit};
use gvpn_switch::{MemberIx, Table};

/// Owner's node, where the first host is.
pub struct World {
    pub book: OwnerBook,
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 20])
}

impl World {
    /// A dual-stack network called `lab`: member 1 (`web`) and 2 (`db`) on node 1, member 3 on node 2. Member
    /// N has the addresses 10.0.0.(N+1) and fd00::(N+1); the gateways .254 and fe belong to nobody.
    pub fn new() -> Self {
        let spec = NetworkSpec {
            name: Some("lab".into()),
            subnets: vec![
                ("10.0.0.0/24".parse().unwrap(), Some(ip("10.0.0.254"))),
                ("fd00::/64".parse().unwrap(), Some(ip("fd00::fe"))),
            ],
            mtu: None,
        };
        let mut book = OwnerBook::create(Identity::generate(), [7; 16], spec).unwrap();
        for (n, name, at) in [(2, Some("web"), 1), (3, Some("db"), 1), (4, None, 2)] {
            let ips = vec![ip(&format!("10.0.0.{n}")), ip(&format!("fd00::{n}"))];
            let name = name.map(str::to_owned);
            book.add_member(MemberSpec { name, ..MemberSpec::new(node(at), ips) }).unwrap();
        }
        Self { book }
    }

    pub fn table(&self, at: NodeId) -> Table {
        Table::build(self.book.roster(), at)
    }

    pub fn edit(&mut self, member: u32, edit: MemberEdit) {
        self.book.edit_member(MemberId(member), edit).unwrap();
    }

    pub fn policy(&mut self, policy: Policy) {
        self.book
            .edit_settings(SettingsEdit { policy: Some(policy), ..Default::default() })
            .unwrap();
    }
}

pub fn ix(table: &Table, member: u32) -> MemberIx {
    table.member_ix(MemberId(member)).unwrap()
}

/// An IP packet around a transport message. Checksums are right.
pub fn packet(from: &str, to: &str, protocol: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = match (ip(from), ip(to)) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let total = (20 + message.len() as u16).to_be_bytes();
            let mut h = vec![0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, protocol, 0, 0];
            h.extend(a.octets());
            h.extend(b.octets());
            let sum = !sum(&h);
            h[10..12].copy_from_slice(&sum.to_be_bytes());
            h
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let length = (message.len() as u16).to_be_bytes();
            let mut h = vec![0x60, 0, 0, 0, length[0], length[1], protocol, 64];
            h.extend(a.octets());
            h.extend(b.octets());
            h
        }
        _ => panic!("two families"),
    };
    packet.extend(message);
    packet
}

pub fn udp(from: &str, to: &str, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(ports.0.to_be_bytes());
    message.extend(ports.1.to_be_bytes());
    message.extend((8 + payload.len() as u16).to_be_bytes());
    message.extend([0, 0]);
    message.extend(payload);
    packet(from, to, 17, &message)
}

/// A TCP segment with these flags (SYN 2, RST 4, ACK 16).
pub fn tcp(from: &str, to: &str, ports: (u16, u16), flags: u8) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend(ports.0.to_be_bytes());
    message.extend(ports.1.to_be_bytes());
    message.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 100, 0, 0, 0, 0]);
    packet(from, to, 6, &message)
}

pub fn ping(from: &str, to: &str) -> Vec<u8> {
    let (kind, protocol) = if ip(from).is_ipv4() { (8, 1) } else { (128, 58) };
    packet(from, to, protocol, &[kind, 0, 0, 0, 0, 7, 0, 1, 1, 2, 3])
}

/// The one's complement sum, slowly: 0xffff over a packet whose checksum is right.
pub fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Checks both checksums of a packet that the switch made.
pub fn assert_sums(packet: &[u8]) {
    let (protocol, at, pseudo) = match packet[0] >> 4 {
        4 => {
            assert_eq!(sum(&packet[..20]), 0xffff, "IP header checksum");
            assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
            (packet[9], 20, packet[12..20].to_vec())
        }
        _ => {
            assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])) + 40, packet.len());
            (packet[6], 40, packet[8..40].to_vec())
        }
    };
    let mut bytes = if protocol == 1 { Vec::new() } else { pseudo };
    if protocol != 1 {
        bytes.extend(((packet.len() - at) as u32).to_be_bytes());
        bytes.extend([0, 0, 0, protocol]);
    }
    bytes.extend(&packet[at..]);
    assert_eq!(sum(&bytes), 0xffff, "transport checksum");
}
