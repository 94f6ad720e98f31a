//! Where the headers of an IP packet are.

/// The version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The transport protocol, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// Another protocol by its number, or a fragment, whatever it carries.
    Other(u8),
}

impl Transport {
    /// Its number.
    #[inline]
    pub fn protocol(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
            Self::Other(number) => number,
        }
    }

    /// Where its checksum is, counted from its header's start.
    #[inline]
    pub fn checksum_offset(self) -> Option<usize> {
        match self {
            Self::Tcp => Some(16),
            Self::Udp => Some(6),
            Self::Other(_) => None,
        }
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// The checked outline of an IP packet: all offsets lie within its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// IP version.
    pub version: IpVersion,
    /// What it carries; TCP and UDP only where their whole header is there.
    pub transport: Transport,
    /// Where the transport header begins.
    pub transport_at: usize,
    /// Where the payload begins, or the transport header where it is not known.
    pub payload_at: usize,
    /// Length of the packet by its IP header.
    pub len: usize,
}

impl Packet {
    /// Outlines a packet; `None` unless the bytes hold a whole IPv4 or IPv6 packet. Bytes after
    /// the packet are left out of `len`.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => Self::parse4(bytes),
            6 => Self::parse6(bytes),
            _ => None,
        }
    }

    #[inline]
    fn parse4(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<20>()?;
        let header_len = usize::from(header[0] & 0x0f) * 4;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header_len < 20 || len < header_len || len > bytes.len() {
            return None;
        }
        // A fragment other than the only one carries no transport segment of its own.
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
        Some(Self::with_transport(&bytes[..len], IpVersion::V4, header[9], header_len, fragment))
    }

    #[inline]
    fn parse6(bytes: &[u8]) -> Option<Self> {
        let header = bytes.first_chunk::<40>()?;
        let len = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        if len > bytes.len() {
            return None;
        }
        let bytes = &bytes[..len];
        let (mut next, mut at, mut fragment) = (header[6], 40, false);
        while let Some((kind, length)) = extension(next, bytes.get(at..)?) {
            fragment |= next == 44;
            next = kind;
            at += length;
            if at > len {
                return None;
            }
        }
        Some(Self::with_transport(bytes, IpVersion::V6, next, at, fragment))
    }

    #[inline]
    fn with_transport(
        bytes: &[u8],
        version: IpVersion,
        protocol: u8,
        at: usize,
        fragment: bool,
    ) -> Self {
        let segment = &bytes[at..];
        let (transport, header_len) = match protocol {
            TCP if !fragment && segment.len() >= 20 => {
                let header_len = usize::from(segment[12] >> 4) * 4;
                if header_len < 20 || header_len > segment.len() {
                    (Transport::Other(TCP), 0)
                } else {
                    (Transport::Tcp, header_len)
                }
            }
            UDP if !fragment && segment.len() >= 8 => (Transport::Udp, 8),
            other => (Transport::Other(other), 0),
        };
        Self { version, transport, transport_at: at, payload_at: at + header_len, len: bytes.len() }
    }
}

/// The next header and the length of an IPv6 extension header, if `next` is one.
#[inline]
fn extension(next: u8, bytes: &[u8]) -> Option<(u8, usize)> {
    let length = match next {
        // Hop-by-hop, routing, destination options.
        0 | 43 | 60 => 8 + usize::from(*bytes.get(1)?) * 8,
        // Fragment.
        44 => 8,
        _ => return None,
    };
    Some((*bytes.first()?, length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_outlined_within_their_bounds(mut bytes in prop::collection::vec(any::<u8>(), 0..200), v6 in any::<bool>(), small in any::<bool>()) {
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x40 | (*first & 0x0f) };
            }
            if small && bytes.len() > 44 {
                let len = (bytes.len() - if v6 { 40 } else { 0 }) as u16;
                let at = if v6 { 4 } else { 2 };
                bytes[at..at + 2].copy_from_slice(&len.to_be_bytes());
                bytes[if v6 { 6 } else { 9 }] %= 64;
            }
            if let Some(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.transport_at <= packet.payload_at);
                prop_assert!(packet.payload_at <= packet.len);
                prop_assert!(packet.len <= bytes.len());
            }
        }
    }

    #[test]
    fn fragments_have_no_transport() {
        let mut bytes = [0u8; 40];
        bytes[..10].copy_from_slice(&[0x45, 0, 0, 40, 0, 0, 0x20, 0, 64, 6]);
        assert_eq!(Packet::parse(&bytes).unwrap().transport, Transport::Other(6));
        bytes[6] = 0x40;
        bytes[32] = 0x50;
        assert_eq!(Packet::parse(&bytes).unwrap().transport, Transport::Tcp);
    }

    #[test]
    fn extension_headers_are_walked() {
        let mut bytes = [0u8; 40 + 8 + 8 + 8];
        bytes[0] = 0x60;
        bytes[5] = 24;
        bytes[40] = 60;
        bytes[48] = 17;
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.transport, packet.transport_at), (Transport::Udp, 56));
        bytes[41] = 255;
        assert_eq!(Packet::parse(&bytes), None);
    }
}
