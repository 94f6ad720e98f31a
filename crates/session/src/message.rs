//! The cleartext header of a data message.

/// First byte of a data message. QUIC sets bit 0x40, this does not.
pub const TYPE_DATA: u8 = 0x04;
/// Bytes before the ciphertext.
pub const HEADER_LEN: usize = 16;
/// Bytes of the authentication tag after the ciphertext.
pub const TAG_LEN: usize = 16;
/// What sealing adds to a packet.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;

/// The fields of a data message's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHeader {
    /// The index that the receiver gave its lane.
    pub index: u32,
    /// The message's number within the lane: its nonce.
    pub counter: u64,
}

impl DataHeader {
    /// Reads the header of a whole datagram; `None` if it is not a data message.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let header = datagram.first_chunk::<HEADER_LEN>()?;
        if datagram.len() < OVERHEAD || header[..4] != [TYPE_DATA, 0, 0, 0] {
            return None;
        }
        let (head, counter) = header.split_last_chunk::<8>()?;
        let index = head.last_chunk::<4>()?;
        Some(Self { index: u32::from_le_bytes(*index), counter: u64::from_le_bytes(*counter) })
    }
}

/// Writes the header into the first [`HEADER_LEN`] bytes of a datagram.
#[inline]
pub fn write_header(out: &mut [u8; HEADER_LEN], index: u32, counter: u64) {
    out[..4].copy_from_slice(&[TYPE_DATA, 0, 0, 0]);
    out[4..8].copy_from_slice(&index.to_le_bytes());
    out[8..].copy_from_slice(&counter.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_round_trips_and_short_or_foreign_datagrams_are_not_ours() {
        let mut datagram = [0u8; OVERHEAD];
        write_header(datagram.first_chunk_mut().unwrap(), 0xdead_beef, 7 << 40);
        let want = DataHeader { index: 0xdead_beef, counter: 7 << 40 };
        assert_eq!(DataHeader::parse(&datagram), Some(want));
        assert_eq!(DataHeader::parse(&datagram[..OVERHEAD - 1]), None);
        datagram[1] = 1;
        assert_eq!(DataHeader::parse(&datagram), None);
        datagram[..2].copy_from_slice(&[0x40, 0]);
        assert_eq!(DataHeader::parse(&datagram), None);
        assert_eq!(DataHeader::parse(&[]), None);
    }
}
