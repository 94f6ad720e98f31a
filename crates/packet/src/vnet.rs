//! `struct virtio_net_hdr`, the ten bytes before each packet on a TUN opened with `IFF_VNET_HDR`.

/// Length of the header.
pub const VNET_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

/// How a super-packet is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP datagrams.
    Udp,
}

/// What is known about a packet beside its bytes. Fields are of native byte order on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHdr {
    /// Bit 0: the transport checksum holds the pseudo-header's sum only and is to be completed.
    pub flags: u8,
    /// The kind of super-packet, zero for none.
    pub gso_type: u8,
    /// Length of all headers; a hint.
    pub hdr_len: u16,
    /// Payload bytes of each packet but the last.
    pub gso_size: u16,
    /// Where the checksummed bytes begin.
    pub csum_start: u16,
    /// Where the checksum is, counted from there.
    pub csum_offset: u16,
}

impl VnetHdr {
    /// Reads the header.
    #[inline]
    pub fn read(bytes: &[u8; VNET_LEN]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: word(2),
            gso_size: word(4),
            csum_start: word(6),
            csum_offset: word(8),
        }
    }

    /// The header's bytes.
    #[inline]
    pub fn to_bytes(self) -> [u8; VNET_LEN] {
        let [a, b] = self.hdr_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }

    /// A packet whose transport checksum is to be completed over the bytes from `start`.
    #[inline]
    pub fn needs_checksum(start: u16, offset: u16) -> Self {
        Self { flags: NEEDS_CSUM, csum_start: start, csum_offset: offset, ..Self::default() }
    }

    /// Makes it a super-packet of `kind` with `size` payload bytes a packet.
    #[inline]
    #[must_use]
    pub fn with_gso(self, kind: Gso, size: u16, hdr_len: u16, ecn: bool) -> Self {
        let gso_type = match kind {
            Gso::Tcp4 => GSO_TCPV4,
            Gso::Tcp6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
        };
        let ecn = if ecn && kind != Gso::Udp { GSO_ECN } else { 0 };
        Self { gso_type: gso_type | ecn, gso_size: size, hdr_len, ..self }
    }

    /// Whether the transport checksum is to be completed.
    #[inline]
    pub fn is_partial(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// The kind of super-packet: `Ok(None)` for a plain packet, `Err` with the type for a kind
    /// that is not known here.
    ///
    /// # Errors
    /// The unknown type.
    #[inline]
    pub fn gso(&self) -> Result<Option<Gso>, u8> {
        match self.gso_type & !GSO_ECN {
            GSO_NONE => Ok(None),
            GSO_TCPV4 => Ok(Some(Gso::Tcp4)),
            GSO_TCPV6 => Ok(Some(Gso::Tcp6)),
            GSO_UDP_L4 => Ok(Some(Gso::Udp)),
            other => Err(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip() {
        let hdr = VnetHdr::needs_checksum(20, 16).with_gso(Gso::Tcp4, 1348, 52, true);
        assert_eq!(VnetHdr::read(&hdr.to_bytes()), hdr);
        assert_eq!(hdr.to_bytes()[..2], [1, 0x81]);
        assert_eq!(hdr.gso(), Ok(Some(Gso::Tcp4)));
        assert!(hdr.is_partial());
        assert_eq!(VnetHdr::default().gso(), Ok(None));
        assert_eq!(VnetHdr { gso_type: 3, ..VnetHdr::default() }.gso(), Err(3));
    }
}
