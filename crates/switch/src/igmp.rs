//! IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810): what a listener reports, and the query
//! that makes it report. Source lists are not kept: a listener to some sources of a group gets all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    checksum,
    header::{ICMPV6, IGMP, Transport},
};

/// The most group records of one report that are read.
const MAX_RECORDS: usize = 128;
/// The link-local address from which the switch asks.
pub(crate) const SWITCH_LINK_LOCAL: Ipv6Addr =
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0x6776, 0x706e, 0xffff, 0xffff);

/// One change that a listener reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Membership {
    Join(IpAddr),
    Leave(IpAddr),
}

/// Whether this is IGMP or MLD: it ends at the switch.
pub(crate) fn is_membership(ip: &[u8], transport: &Transport) -> bool {
    match transport.protocol {
        IGMP => ip[0] >> 4 == 4,
        ICMPV6 => matches!(ip.get(transport.offset), Some(130..=132 | 143)),
        _ => false,
    }
}

/// The changes that a packet reports; nothing for queries and for what cannot be read.
pub(crate) fn read(ip: &[u8]) -> Vec<Membership> {
    let Some(transport) = Transport::of(ip).filter(|t| !t.fragment) else { return Vec::new() };
    let Some(message) = ip.get(transport.offset..) else { return Vec::new() };
    let v6 = transport.protocol == ICMPV6;
    let mut found = match (v6, message.first()) {
        (false, Some(0x12 | 0x16)) => {
            group(message, 4, v6).map(Membership::Join).into_iter().collect()
        }
        (false, Some(0x17)) => group(message, 4, v6).map(Membership::Leave).into_iter().collect(),
        (true, Some(131)) => group(message, 8, v6).map(Membership::Join).into_iter().collect(),
        (true, Some(132)) => group(message, 8, v6).map(Membership::Leave).into_iter().collect(),
        (false, Some(0x22)) | (true, Some(143)) => records(message, v6),
        _ => Vec::new(),
    };
    found.retain(|m| matches!(m, Membership::Join(g) | Membership::Leave(g) if is_of_interest(*g)));
    found
}

/// A general query from `source`, which every listener answers with its groups.
pub(crate) fn query(source: IpAddr) -> Vec<u8> {
    match source {
        IpAddr::V4(source) => query_v4(source),
        IpAddr::V6(_) => query_v6(),
    }
}

/// Groups whose listeners matter. The all-hosts groups have every member; solicited-node groups
/// serve address resolution, which the switch answers itself; node-local groups never travel.
fn is_of_interest(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(a) => a.is_multicast() && a != Ipv4Addr::new(224, 0, 0, 1),
        IpAddr::V6(a) => {
            let s = a.segments();
            let scope = s[0] & 15;
            let solicited_node = s[..6] == [0xff02, 0, 0, 0, 0, 1] && s[6] >> 8 == 0xff;
            let all_hosts = s[1..7] == [0; 6] && matches!(s[7], 1 | 2) && scope <= 2;
            a.is_multicast() && scope > 1 && !solicited_node && !all_hosts
        }
    }
}

fn group(message: &[u8], at: usize, v6: bool) -> Option<IpAddr> {
    let bytes = message.get(at..)?;
    if v6 {
        bytes.first_chunk::<16>().map(|b| IpAddr::from(*b))
    } else {
        bytes.first_chunk::<4>().map(|b| IpAddr::from(*b))
    }
}

/// Version 3 of IGMP and version 2 of MLD share the shape of their reports.
fn records(message: &[u8], v6: bool) -> Vec<Membership> {
    let mut found = Vec::new();
    let count = message.get(6..8).map_or(0, |b| usize::from(u16::from_be_bytes([b[0], b[1]])));
    let length = if v6 { 16 } else { 4 };
    let mut at = 8;
    for _ in 0..count.min(MAX_RECORDS) {
        let Some(&[kind, auxiliary, s0, s1]) = message.get(at..).and_then(|b| b.first_chunk())
        else {
            break;
        };
        let sources = usize::from(u16::from_be_bytes([s0, s1]));
        let Some(group) = group(message, at + 4, v6) else { break };
        match kind {
            // To "include nobody" is to leave.
            1 | 3 if sources == 0 => found.push(Membership::Leave(group)),
            1..=5 => found.push(Membership::Join(group)),
            _ => {}
        }
        at += 4 + length * (1 + sources) + usize::from(auxiliary) * 4;
    }
    found
}

/// IGMPv3 general query: answer within 1 s, asked every 125 s.
fn query_v4(source: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0x46, 0xc0, 0, 36, 0, 0, 0x40, 0, 1, IGMP, 0, 0];
    packet.extend(source.octets());
    packet.extend([224, 0, 0, 1]);
    packet.extend([0x94, 4, 0, 0]); // router alert
    let sum = checksum::of(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut message = [0x11, 10, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0];
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet.extend(message);
    packet
}

/// MLDv2 general query: answer within 1 s, asked every 125 s.
fn query_v6() -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut packet = vec![0x60, 0, 0, 0, 0, 36, 0, 1];
    packet.extend(SWITCH_LINK_LOCAL.octets());
    packet.extend(all_nodes.octets());
    packet.extend([ICMPV6, 0, 5, 2, 0, 0, 1, 0]); // hop-by-hop: router alert, padding
    let mut message = vec![130, 0, 0, 0, 0x03, 0xe8, 0, 0];
    message.extend([0; 16]);
    message.extend([2, 125, 0, 0]);
    let sum = checksum::transport(SWITCH_LINK_LOCAL.into(), all_nodes.into(), ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet.extend(message);
    packet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x46, 0, 0, 0, 0, 0, 0, 0, 1, IGMP, 0, 0, 10, 0, 0, 2, 224, 0, 0, 22];
        packet.extend([0x94, 4, 0, 0]);
        packet.extend(message);
        packet
    }

    fn v6(message: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 36, 0, 1];
        packet.extend([0; 32]);
        packet.extend([ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
        packet.extend(message);
        packet
    }

    #[test]
    fn reports_of_every_version_are_read() {
        let mdns: IpAddr = "224.0.0.251".parse().unwrap();
        let join = vec![Membership::Join(mdns)];
        assert_eq!(read(&v4(&[0x16, 0, 0, 0, 224, 0, 0, 251])), join);
        assert_eq!(read(&v4(&[0x12, 0, 0, 0, 224, 0, 0, 251])), join);
        assert_eq!(read(&v4(&[0x17, 0, 0, 0, 224, 0, 0, 251])), vec![Membership::Leave(mdns)]);
        let v3 = [0x22, 0, 0, 0, 0, 0, 0, 2, 4, 0, 0, 0, 224, 0, 0, 251, 3, 0, 0, 0, 239, 1, 1, 1];
        let other: IpAddr = "239.1.1.1".parse().unwrap();
        assert_eq!(read(&v4(&v3)), vec![Membership::Join(mdns), Membership::Leave(other)]);
        let group: Ipv6Addr = "ff02::fb".parse().unwrap();
        let mut mld1 = vec![131, 0, 0, 0, 0, 0, 0, 0];
        mld1.extend(group.octets());
        assert_eq!(read(&v6(&mld1)), vec![Membership::Join(group.into())]);
        let mut mld2 = vec![143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0];
        mld2.extend(group.octets());
        assert_eq!(read(&v6(&mld2)), vec![Membership::Join(group.into())]);
        // A source filter counts as the whole group.
        let sources = [0x22, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 239, 1, 1, 1, 10, 0, 0, 3];
        assert_eq!(read(&v4(&sources)), vec![Membership::Join(other)]);
    }

    #[test]
    fn groups_of_the_plumbing_are_passed_over() {
        assert!(read(&v4(&[0x16, 0, 0, 0, 224, 0, 0, 1])).is_empty());
        assert!(read(&v4(&[0x16, 0, 0, 0, 10, 0, 0, 1])).is_empty());
        for text in ["ff02::1", "ff02::2", "ff02::1:ff00:1", "ff01::fb", "fe80::1"] {
            let mut message = vec![131, 0, 0, 0, 0, 0, 0, 0];
            message.extend(text.parse::<Ipv6Addr>().unwrap().octets());
            assert!(read(&v6(&message)).is_empty(), "{text}");
        }
    }

    #[test]
    fn queries_have_right_checksums() {
        let packet = query("10.0.0.1".parse().unwrap());
        assert_eq!(checksum::of(&packet[..24]), 0);
        assert_eq!(checksum::of(&packet[24..]), 0);
        let packet = query("fd00::1".parse().unwrap());
        let to: Ipv6Addr = "ff02::1".parse().unwrap();
        let message = &packet[48..];
        assert_eq!(checksum::transport(SWITCH_LINK_LOCAL.into(), to.into(), ICMPV6, message), 0);
        assert!(is_membership(&packet, &Transport::of(&packet).unwrap()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), six in any::<bool>()) {
            read(&bytes);
            let packet = if six { v6(&bytes) } else { v4(&bytes) };
            prop_assert!(read(&packet).len() <= MAX_RECORDS);
        }
    }
}
