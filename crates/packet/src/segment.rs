//! Cutting a super-packet into packets.

use std::ops::Range;

use crate::{Gso, IpVersion, Packet, Sum, Transport, VnetHdr, ipv4_header_checksum, partial};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// The longest headers that a super-packet may have: IPv6 with some extension headers and TCP
/// with all its options.
const MAX_HEADERS: usize = 192;

/// Why a super-packet cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// Not an IP packet, or cut short.
    #[error("not a whole IP packet")]
    NotIp,
    /// A super-packet of a kind that is not known here.
    #[error("super-packets of type {0} are not known")]
    Kind(u8),
    /// Its headers do not fit its kind.
    #[error("the headers do not fit the kind of super-packet")]
    Mismatch,
    /// No room for payload in a packet.
    #[error("no payload fits into a packet")]
    NoRoom,
}

/// A super-packet as the packets that it stands for. The headers of each are written out on
/// demand; payload stays where it is.
#[derive(Debug, Clone, Copy)]
pub struct Segments<'a> {
    bytes: &'a [u8],
    outline: Packet,
    size: usize,
    count: usize,
    ipv4_sum: Sum,
    transport_sum: Sum,
}

impl<'a> Segments<'a> {
    /// Looks at a super-packet, `Ok(None)` if it is a plain packet. `max_len` limits the length of
    /// each packet, headers included: a TCP super-packet is then cut finer than was asked for.
    ///
    /// # Errors
    /// [`SegmentError`] if the bytes are not what the header says.
    #[inline]
    pub fn new(
        hdr: &VnetHdr,
        bytes: &'a [u8],
        max_len: usize,
    ) -> Result<Option<Self>, SegmentError> {
        let Some(kind) = hdr.gso().map_err(SegmentError::Kind)? else { return Ok(None) };
        let outline = Packet::parse(bytes).ok_or(SegmentError::NotIp)?;
        let fits = match kind {
            Gso::Tcp4 => (IpVersion::V4, Transport::Tcp) == (outline.version, outline.transport),
            Gso::Tcp6 => (IpVersion::V6, Transport::Tcp) == (outline.version, outline.transport),
            Gso::Udp => outline.transport == Transport::Udp,
        };
        if !fits || outline.len != bytes.len() || outline.payload_at > MAX_HEADERS {
            return Err(SegmentError::Mismatch);
        }
        Self::cut(bytes, outline, usize::from(hdr.gso_size), max_len).map(Some)
    }

    /// Cuts a plain TCP packet into several of at most `max_len` bytes.
    ///
    /// # Errors
    /// [`SegmentError`] if it is not TCP, or there is no room for payload, or it carries a flag
    /// that only a whole packet can carry.
    pub fn of_tcp(bytes: &'a [u8], outline: Packet, max_len: usize) -> Result<Self, SegmentError> {
        if outline.transport != Transport::Tcp
            || outline.len != bytes.len()
            || outline.payload_at > MAX_HEADERS
            || bytes[outline.transport_at + 13] & 0x26 != 0
        {
            return Err(SegmentError::Mismatch);
        }
        Self::cut(bytes, outline, usize::MAX, max_len)
    }

    fn cut(
        bytes: &'a [u8],
        outline: Packet,
        size: usize,
        max_len: usize,
    ) -> Result<Self, SegmentError> {
        let room = match outline.transport {
            Transport::Tcp => max_len.saturating_sub(outline.payload_at),
            _ => usize::MAX,
        };
        let payload = bytes.len() - outline.payload_at;
        let size = size.min(room).min(payload.max(1));
        if size == 0 {
            return Err(SegmentError::NoRoom);
        }
        let header = &bytes[..outline.transport_at];
        let ipv4_sum = match outline.version {
            IpVersion::V4 => Sum::default()
                .word(!ipv4_header_checksum(header))
                .without(word(header, 2))
                .without(word(header, 4)),
            IpVersion::V6 => Sum::default(),
        };
        let transport_sum = partial(bytes, outline.version, outline.transport.protocol(), 0);
        Ok(Self {
            bytes,
            outline,
            size,
            count: payload.div_ceil(size).max(1),
            ipv4_sum,
            transport_sum,
        })
    }

    /// How many packets there are; at least one.
    #[inline]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Length of the headers of each packet.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.outline.payload_at
    }

    /// Length of each packet but the last.
    #[inline]
    pub fn packet_len(&self) -> usize {
        self.outline.payload_at + self.size
    }

    /// The outline of the super-packet.
    #[inline]
    pub fn outline(&self) -> &Packet {
        &self.outline
    }

    /// Where packet `index`'s payload is in the super-packet's bytes.
    #[inline]
    pub fn payload(&self, index: usize) -> Range<usize> {
        let start = (self.outline.payload_at + index * self.size).min(self.bytes.len());
        start..(start + self.size).min(self.bytes.len())
    }

    /// Writes the headers of packet `index`. The transport checksum is the sum over the
    /// pseudo-header only, for the receiver's kernel (or [`finish`](Self::finish)) to complete.
    ///
    /// # Panics
    /// If `out` is not [`header_len`](Self::header_len) long.
    #[inline]
    pub fn write_header(&self, index: usize, out: &mut [u8]) {
        let at = self.outline.transport_at;
        out.copy_from_slice(&self.bytes[..self.outline.payload_at]);
        let payload = self.payload(index);
        let len = self.outline.payload_at + payload.len();
        match self.outline.version {
            IpVersion::V4 => {
                let id = word(self.bytes, 4).wrapping_add(index as u16);
                put(out, 2, len as u16);
                put(out, 4, id);
                put(out, 10, self.ipv4_sum.word(len as u16).word(id).checksum());
            }
            IpVersion::V6 => put(out, 4, (len - 40) as u16),
        }
        let segment = len - at;
        let sum = self.transport_sum.word((segment >> 16) as u16).word(segment as u16).folded();
        match self.outline.transport {
            Transport::Tcp => {
                let start = (index * self.size) as u32;
                let sequence = sequence(self.bytes, at).wrapping_add(start);
                out[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
                if index + 1 < self.count {
                    out[at + 13] &= !(FIN | PSH);
                }
                if index > 0 {
                    out[at + 13] &= !CWR;
                }
                put(out, at + 16, sum);
            }
            _ => {
                put(out, at + 4, segment as u16);
                put(out, at + 6, sum);
            }
        }
    }

    /// Writes packet `index` whole, checksum completed, and returns its length.
    ///
    /// # Panics
    /// If `out` is shorter than the packet.
    pub fn write_packet(&self, index: usize, out: &mut [u8]) -> usize {
        let payload = self.payload(index);
        let (header, rest) = out.split_at_mut(self.header_len());
        self.write_header(index, header);
        rest[..payload.len()].copy_from_slice(&self.bytes[payload.clone()]);
        let len = self.header_len() + payload.len();
        self.finish(&mut out[..len]);
        len
    }

    /// Completes the checksum of a packet that was written by [`write_header`](Self::write_header).
    pub fn finish(&self, packet: &mut [u8]) {
        let outline = Packet { len: packet.len(), ..self.outline };
        complete(packet, &outline);
    }
}

/// Completes the checksum that a packet's header says is partial. What lies outside the packet is
/// left alone.
pub fn complete_checksum(packet: &mut [u8], hdr: &VnetHdr) {
    let (start, offset) = (usize::from(hdr.csum_start), usize::from(hdr.csum_offset));
    if start + offset + 2 > packet.len() {
        return;
    }
    let sum = match Sum::default().bytes(&packet[start..]).checksum() {
        // Only UDP reads a checksum of zero as "none" (RFC 768).
        0 if offset == 6 => 0xffff,
        sum => sum,
    };
    put(packet, start + offset, sum);
}

/// Replaces a TCP or UDP packet's checksum by the right one.
pub(crate) fn complete(packet: &mut [u8], outline: &Packet) {
    if let (Some(sum), Some(offset)) =
        (crate::transport_checksum(packet, outline), outline.transport.checksum_offset())
    {
        put(packet, outline.transport_at + offset, sum);
    }
}

#[inline]
pub(crate) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub(crate) fn put(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

#[inline]
pub(crate) fn sequence(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], bytes[at + 7]])
}
