//! Explicit congestion notification in the IP header (RFC 3168, section 5).

use crate::{Sum, ipv4_header_checksum};

/// "Congestion experienced".
const CE: u8 = 3;

/// Marks an IP packet, or every segment of a super-packet, as having met congestion. Returns
/// whether it is marked now: a packet whose sender does not understand marks is left as it is.
pub fn mark_congestion(packet: &mut [u8]) -> bool {
    match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 20 => mark_v4(packet),
        Some(6) if packet.len() >= 40 => mark_v6(packet),
        _ => false,
    }
}

/// Whether the sender of an IP packet understands marks.
pub fn understands_marks(packet: &[u8]) -> bool {
    match (packet.first().map(|first| first >> 4), packet.get(1)) {
        (Some(4), Some(second)) => second & CE != 0,
        (Some(6), Some(second)) => (second >> 4) & CE != 0,
        _ => false,
    }
}

fn mark_v4(packet: &mut [u8]) -> bool {
    match packet[1] & CE {
        0 => return false,
        CE => return true,
        _ => {}
    }
    let before = u16::from_be_bytes([packet[0], packet[1]]);
    packet[1] |= CE;
    let after = u16::from_be_bytes([packet[0], packet[1]]);
    // RFC 1624, equation 3: the new checksum is ~(~HC + ~m + m').
    let old = u16::from_be_bytes([packet[10], packet[11]]);
    let new = Sum::default().word(!old).word(!before).word(after).checksum();
    packet[10..12].copy_from_slice(&new.to_be_bytes());
    debug_assert_eq!(new, ipv4_header_checksum(&packet[..usize::from(packet[0] & 15) * 4]));
    true
}

fn mark_v6(packet: &mut [u8]) -> bool {
    // The two lowest bits of the traffic class are bits 4 and 5 of the second byte.
    if (packet[1] >> 4) & CE == 0 {
        return false;
    }
    packet[1] |= CE << 4;
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v4(tos: u8, rest: [u8; 8]) -> Vec<u8> {
        let mut packet = vec![0x45, tos, 0, 20, 0, 1, 0x40, 0, 64, 6, 0, 0];
        packet.extend(rest);
        let sum = ipv4_header_checksum(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    proptest! {
        #[test]
        fn marks_who_understands_and_keeps_the_checksum_right(tos: u8, rest: [u8; 8]) {
            let before = v4(tos, rest);
            let mut packet = before.clone();
            prop_assert_eq!(understands_marks(&packet), tos & 3 != 0);
            prop_assert_eq!(mark_congestion(&mut packet), tos & 3 != 0);
            if tos & 3 == 0 {
                prop_assert_eq!(packet, before);
            } else {
                prop_assert_eq!(packet, v4(tos | 3, rest));
            }
        }

        #[test]
        fn rubbish_is_no_packet(mut bytes in prop::collection::vec(any::<u8>(), 0..19)) {
            understands_marks(&bytes);
            prop_assert!(!mark_congestion(&mut bytes));
        }
    }

    #[test]
    fn ipv6_keeps_its_other_bits() {
        for ecn in 0..4u8 {
            let mut packet = vec![0; 40];
            packet[..4].copy_from_slice(&[0x6a, 0xc5 | ecn << 4, 0xbc, 0xde]);
            packet[1] = 0xc5 & !0x30 | ecn << 4;
            let mut expected = packet.clone();
            if ecn != 0 {
                expected[1] |= 0x30;
            }
            assert_eq!(mark_congestion(&mut packet), ecn != 0);
            assert_eq!(packet, expected);
        }
    }
}
