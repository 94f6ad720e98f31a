//! Telling a sender that its packet was too large.

use crate::{
    IpVersion, Packet, Sum, ipv4_header_checksum, partial,
    segment::{put, word},
};

/// Every IPv6 link carries packets of this size (RFC 8200).
pub const IPV6_MIN_MTU: usize = 1280;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The ICMPv4 "fragmentation needed" or ICMPv6 "packet too big" message about a packet, as from
/// the packet's destination. `None` where none may be sent: about ICMP errors, fragments other
/// than the first, multicast, and bytes that are no packet.
pub fn too_big(about: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let outline = Packet::parse(about)?;
    let protocol = outline.transport.protocol();
    match outline.version {
        IpVersion::V4 => {
            let later = word(about, 6) & 0x1fff != 0;
            let error = protocol == ICMP && is_error4(about.get(outline.transport_at)?);
            let multicast = about[16] >= 224 || about[12] >= 224 || about[12..16] == [0; 4];
            (!later && !error && !multicast).then(|| too_big4(about, &outline, mtu))
        }
        IpVersion::V6 => {
            let error = protocol == ICMPV6 && *about.get(outline.transport_at)? < 128;
            let multicast = about[8] == 0xff || about[8..24] == [0; 16];
            (!error && !multicast).then(|| too_big6(about, &outline, mtu))
        }
    }
}

fn is_error4(kind: &u8) -> bool {
    !matches!(kind, 0 | 8 | 13 | 14 | 15 | 16 | 17 | 18)
}

fn too_big4(about: &[u8], outline: &Packet, mtu: usize) -> Vec<u8> {
    let quoted = &about[..outline.len.min(outline.transport_at + 8).max(outline.len.min(548))];
    let len = 28 + quoted.len();
    let mut out = vec![0; len];
    out[0] = 0x45;
    put(&mut out, 2, len as u16);
    out[8] = 64;
    out[9] = ICMP;
    out[12..16].copy_from_slice(&about[16..20]);
    out[16..20].copy_from_slice(&about[12..16]);
    let sum = ipv4_header_checksum(&out[..20]);
    put(&mut out, 10, sum);
    out[20] = 3;
    out[21] = 4;
    put(&mut out, 26, mtu.min(usize::from(u16::MAX)) as u16);
    out[28..].copy_from_slice(quoted);
    let sum = Sum::default().bytes(&out[20..]).checksum();
    put(&mut out, 22, sum);
    out
}

fn too_big6(about: &[u8], outline: &Packet, mtu: usize) -> Vec<u8> {
    let quoted = &about[..outline.len.min(IPV6_MIN_MTU - 48)];
    let len = 8 + quoted.len();
    let mut out = vec![0; 40 + len];
    out[0] = 0x60;
    put(&mut out, 4, len as u16);
    out[6] = ICMPV6;
    out[7] = 64;
    out[8..24].copy_from_slice(&about[24..40]);
    out[24..40].copy_from_slice(&about[8..24]);
    if out[8] == 0xff {
        // A multicast address is nobody's source: the sender's own stands in.
        out.copy_within(24..40, 8);
    }
    out[40] = 2;
    out[44..48].copy_from_slice(&(mtu.max(IPV6_MIN_MTU) as u32).to_be_bytes());
    out[48..].copy_from_slice(quoted);
    let sum = partial(&out, IpVersion::V6, ICMPV6, len).bytes(&out[40..]).checksum();
    put(&mut out, 42, sum);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(protocol: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[0] = 0x45;
        put(&mut bytes, 2, len as u16);
        bytes[6] = 0x40;
        bytes[9] = protocol;
        bytes[12..20].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 3]);
        bytes
    }

    #[test]
    fn fragmentation_needed_goes_back_with_a_quote_and_right_checksums() {
        let message = too_big(&v4(17, 1400), 1280).unwrap();
        assert_eq!(message[12..20], [10, 0, 0, 3, 10, 0, 0, 2]);
        assert_eq!((message[20], message[21], word(&message, 26)), (3, 4, 1280));
        assert!(message.len() <= 576);
        assert_eq!(Sum::default().bytes(&message[..20]).folded(), 0xffff);
        assert_eq!(Sum::default().bytes(&message[20..]).folded(), 0xffff);
    }

    #[test]
    fn packet_too_big_goes_back_and_never_below_the_minimum() {
        let mut bytes = vec![0; 1400];
        bytes[0] = 0x60;
        put(&mut bytes, 4, 1360);
        bytes[6] = 17;
        bytes[23] = 2;
        bytes[39] = 3;
        let message = too_big(&bytes, 1000).unwrap();
        assert!(message.len() <= IPV6_MIN_MTU);
        assert_eq!((message[23], message[39], message[40]), (3, 2, 2));
        assert_eq!(message[44..48], 1280u32.to_be_bytes());
        let sum =
            partial(&message, IpVersion::V6, ICMPV6, message.len() - 40).bytes(&message[40..]);
        assert_eq!(sum.folded(), 0xffff);
    }

    #[test]
    fn errors_and_later_fragments_get_no_answer() {
        let mut error = v4(ICMP, 1400);
        error[20] = 3;
        assert_eq!(too_big(&error, 1280), None);
        error[20] = 8;
        assert!(too_big(&error, 1280).is_some());
        let mut fragment = v4(17, 1400);
        fragment[7] = 5;
        assert_eq!(too_big(&fragment, 1280), None);
        assert_eq!(too_big(&[], 1280), None);
    }
}
