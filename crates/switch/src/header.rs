//! The parts of IP and transport headers that decide a packet's way. Reads any bytes; never panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const ICMP: u8 = 1;
pub(crate) const IGMP: u8 = 2;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// How many IPv6 extension headers are walked.
const MAX_EXTENSIONS: usize = 8;

/// The addresses of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Addresses {
    V4 { source: u32, destination: u32 },
    V6 { source: u128, destination: u128 },
}

impl Addresses {
    /// The addresses, if these bytes start with a whole IP header.
    #[inline(always)]
    pub(crate) fn of(ip: &[u8]) -> Option<Self> {
        match ip.first()? >> 4 {
            4 => {
                let fixed: &[u8; 20] = ip.first_chunk()?;
                let u32_at = |at: usize| {
                    u32::from_be_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
                };
                (fixed[0] & 15 >= 5)
                    .then(|| Self::V4 { source: u32_at(12), destination: u32_at(16) })
            }
            6 => {
                let fixed: &[u8; 40] = ip.first_chunk()?;
                let source = u128::from_be_bytes(*fixed[8..].first_chunk()?);
                let destination = u128::from_be_bytes(*fixed[24..].first_chunk()?);
                Some(Self::V6 { source, destination })
            }
            _ => None,
        }
    }

    pub(crate) fn source(self) -> IpAddr {
        match self {
            Self::V4 { source, .. } => Ipv4Addr::from(source).into(),
            Self::V6 { source, .. } => Ipv6Addr::from(source).into(),
        }
    }

    #[inline]
    pub(crate) fn is_multicast(self) -> bool {
        match self {
            Self::V4 { destination, .. } => destination >> 28 == 0xe,
            Self::V6 { destination, .. } => destination >> 120 == 0xff,
        }
    }

    pub(crate) fn destination(self) -> IpAddr {
        match self {
            Self::V4 { destination, .. } => Ipv4Addr::from(destination).into(),
            Self::V6 { destination, .. } => Ipv6Addr::from(destination).into(),
        }
    }
}

/// What follows the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Transport {
    /// The protocol number (the last next-header of IPv6).
    pub(crate) protocol: u8,
    /// Where the transport header starts.
    pub(crate) offset: usize,
    /// Source and destination port, where the protocol has them and they are there.
    pub(crate) ports: Option<(u16, u16)>,
    /// TCP's SYN without ACK: the start of a connection.
    pub(crate) opens: bool,
    /// A fragment other than the first: no transport header.
    pub(crate) later_fragment: bool,
    /// Any fragment.
    pub(crate) fragment: bool,
}

impl Transport {
    /// The transport part of a packet; `None` if it is damaged.
    pub(crate) fn of(ip: &[u8]) -> Option<Self> {
        let (protocol, offset, fragment) = match ip.first()? >> 4 {
            4 => {
                let fixed: &[u8; 20] = ip.first_chunk()?;
                let word = u16::from_be_bytes([fixed[6], fixed[7]]);
                (fixed[9], usize::from(fixed[0] & 15) * 4, Fragment::from_word(word & 0x3fff))
            }
            6 => walk_extensions(ip)?,
            _ => return None,
        };
        let later_fragment = fragment.offset != 0;
        let body = ip.get(offset..).filter(|_| !later_fragment);
        let ports = match (protocol, body) {
            (TCP | UDP, Some([a, b, c, d, ..])) => {
                Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
            }
            _ => None,
        };
        let flags = body.filter(|_| protocol == TCP).and_then(|b| b.get(13)).copied();
        Some(Self {
            protocol,
            offset,
            ports,
            opens: flags.is_some_and(|f| f & 0x12 == 0x02),
            later_fragment,
            fragment: later_fragment || fragment.more,
        })
    }
}

#[derive(Default, Clone, Copy)]
struct Fragment {
    offset: u16,
    more: bool,
}

impl Fragment {
    /// From the IPv4 field: more-fragments bit 13, offset below.
    fn from_word(word: u16) -> Self {
        Self { offset: word & 0x1fff, more: word & 0x2000 != 0 }
    }
}

fn walk_extensions(ip: &[u8]) -> Option<(u8, usize, Fragment)> {
    let fixed: &[u8; 40] = ip.first_chunk()?;
    let (mut next, mut offset, mut fragment) = (fixed[6], 40, Fragment::default());
    for _ in 0..MAX_EXTENSIONS {
        let length = match next {
            0 | 43 | 60 | 135 => 8 + usize::from(*ip.get(offset + 1)?) * 8,
            44 => {
                let word = u16::from_be_bytes([*ip.get(offset + 2)?, *ip.get(offset + 3)?]);
                fragment = Fragment { offset: word >> 3, more: word & 1 != 0 };
                8
            }
            51 => 8 + usize::from(*ip.get(offset + 1)?) * 4,
            _ => return Some((next, offset, fragment)),
        };
        next = *ip.get(offset)?;
        offset += length;
        if fragment.offset != 0 {
            return Some((next, offset, fragment));
        }
    }
    None
}
