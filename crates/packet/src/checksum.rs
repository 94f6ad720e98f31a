//! The Internet checksum (RFC 1071).

use crate::{IpVersion, Packet};

/// A running ones'-complement sum of 16-bit words in network order.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes; all but the last piece must be of even length.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Four lanes of 32-bit halves cannot overflow 64 bits below 2^32 words, and let the
        // compiler use vector instructions.
        let mut lanes = [0u64; 8];
        let mut blocks = bytes.chunks_exact(32);
        for block in &mut blocks {
            for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
                *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
            }
        }
        let mut sum: u64 = lanes.iter().sum();
        let mut pairs = blocks.remainder().chunks_exact(2);
        for pair in &mut pairs {
            sum += u64::from(u16::from_ne_bytes([pair[0], pair[1]]));
        }
        if let [last] = pairs.remainder() {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        // Ones'-complement sums do not care about byte order until the end (RFC 1071, 2B).
        Self(self.0 + u64::from(fold(sum).to_be()))
    }

    /// Adds one word.
    #[inline]
    #[must_use]
    pub fn word(self, word: u16) -> Self {
        Self(self.0 + u64::from(word))
    }

    /// Takes one word away.
    #[inline]
    #[must_use]
    pub fn without(self, word: u16) -> Self {
        self.word(!word)
    }

    /// The folded sum.
    #[inline]
    pub fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The checksum: the folded sum's complement.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

#[inline]
fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum of an IPv4 header whose checksum field counts as zero.
#[inline]
pub fn ipv4_header_checksum(header: &[u8]) -> u16 {
    match header.split_at_checked(10) {
        Some((front, back)) => {
            Sum::default().bytes(front).bytes(back.get(2..).unwrap_or(&[])).checksum()
        }
        None => 0,
    }
}

/// The sum over the pseudo-header of a transport segment of `len` bytes.
#[inline]
pub fn partial(ip: &[u8], version: IpVersion, protocol: u8, len: usize) -> Sum {
    let addresses = match version {
        IpVersion::V4 => ip.get(12..20),
        IpVersion::V6 => ip.get(8..40),
    };
    Sum::default()
        .bytes(addresses.unwrap_or(&[]))
        .word(u16::from(protocol))
        .word((len >> 16) as u16)
        .word(len as u16)
}

/// The whole checksum of the packet's transport segment, its field counted as zero; `None` for
/// packets that are not whole TCP or UDP.
pub fn transport_checksum(bytes: &[u8], packet: &Packet) -> Option<u16> {
    let (at, offset) = (packet.transport_at, packet.transport.checksum_offset()?);
    let segment = bytes.get(at..packet.len)?;
    let field = segment.get(offset..offset + 2)?;
    let sum = partial(bytes, packet.version, packet.transport.protocol(), segment.len())
        .bytes(segment)
        .without(u16::from_be_bytes([field[0], field[1]]));
    Some(match sum.checksum() {
        // A UDP checksum of zero means "none": all ones stands for it (RFC 768).
        0 if packet.transport == crate::Transport::Udp => 0xffff,
        sum => sum,
    })
}

/// Whether the packet's TCP or UDP checksum is right. A UDP datagram without one is not.
pub fn transport_is_valid(bytes: &[u8], packet: &Packet) -> bool {
    let at = packet.transport_at;
    let Some(offset) = packet.transport.checksum_offset() else { return false };
    let Some(segment) = bytes.get(at..packet.len) else { return false };
    if segment.get(offset..offset + 2).is_none_or(|field| field == [0, 0])
        && packet.transport == crate::Transport::Udp
    {
        return false;
    }
    let protocol = packet.transport.protocol();
    partial(bytes, packet.version, protocol, segment.len()).bytes(segment).folded() == 0xffff
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        sum as u16
    }

    /// Zero has two forms in ones'-complement arithmetic.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a.is_multiple_of(0xffff) && b.is_multiple_of(0xffff))
    }

    #[test]
    fn agrees_with_the_worked_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).folded(), 0xddf2);
    }

    #[test]
    fn a_known_ipv4_header() {
        let header = [
            0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8,
            0, 0xc7,
        ];
        assert_eq!(ipv4_header_checksum(&header), 0xb861);
    }

    #[test]
    fn the_largest_packet_of_ones_does_not_overflow() {
        assert_eq!(Sum::default().bytes(&[0xff; 65_535 * 4]).folded(), 0xffff);
    }

    proptest! {
        #[test]
        fn agrees_with_a_slow_one(bytes in prop::collection::vec(any::<u8>(), 0..4000), cut in any::<prop::sample::Index>()) {
            let cut = cut.index(bytes.len() + 1) & !1;
            let sum = Sum::default().bytes(&bytes[..cut]).bytes(&bytes[cut..]);
            prop_assert!(same(sum.folded(), slow(&bytes)));
            prop_assert!(same(sum.word(7).without(7).folded(), slow(&bytes)));
        }
    }
}
