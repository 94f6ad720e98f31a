//! What can be read from a QUIC packet without its keys (RFC 8999, RFC 9000 section 17).

/// Length of the connection ids that this node gives out.
pub(crate) const CID_LEN: usize = 8;
/// A connection id that this node gave out.
pub(crate) type LocalCid = [u8; CID_LEN];

/// The header of the first packet of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Header<'a> {
    /// A packet of a handshake.
    Long {
        /// Whether it may begin a connection.
        initial: bool,
        /// The receiver's connection id; chosen by the sender in the first packets of a client.
        dst: &'a [u8],
        /// The sender's connection id.
        src: &'a [u8],
    },
    /// A packet of an established connection, to this connection id.
    Short(LocalCid),
}

impl<'a> Header<'a> {
    /// Reads the header; `None` if it is not a QUIC packet.
    pub(crate) fn parse(packet: &'a [u8]) -> Option<Self> {
        let (first, rest) = packet.split_first()?;
        if first & 0x80 == 0 {
            return Some(Self::Short(*rest.first_chunk()?));
        }
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let (dst, rest) = cid(rest)?;
        let (src, _) = cid(rest)?;
        // Version 1; the type of an Initial packet is 0.
        let initial = *version == [0, 0, 0, 1] && first & 0x30 == 0;
        Some(Self::Long { initial, dst, src })
    }
}

fn cid(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    (*length <= 20).then(|| rest.split_at_checked(usize::from(*length)))?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_read_and_rubbish_is_not() {
        let initial = [0xc3, 0, 0, 0, 1, 2, 7, 8, 3, 1, 2, 3, 99];
        let want = Header::Long { initial: true, dst: &[7, 8], src: &[1, 2, 3] };
        assert_eq!(Header::parse(&initial), Some(want));
        for cut in 0..12 {
            assert_eq!(Header::parse(&initial[..cut]), None);
        }
        let handshake = [0xe3, 0, 0, 0, 1, 0, 0];
        let want = Header::Long { initial: false, dst: &[], src: &[] };
        assert_eq!(Header::parse(&handshake), Some(want));
        let short = [0x40, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert_eq!(Header::parse(&short), Some(Header::Short([1, 2, 3, 4, 5, 6, 7, 8])));
        assert_eq!(Header::parse(&short[..8]), None);
        let long_cid = [0xc0, 0, 0, 0, 1, 21];
        assert_eq!(Header::parse(&[&long_cid[..], &[0; 60]].concat()), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_within_its_bounds(packet in prop::collection::vec(any::<u8>(), 0..80)) {
            match Header::parse(&packet) {
                Some(Header::Long { dst, src, .. }) => {
                    prop_assert!(dst.len() <= 20 && src.len() <= 20);
                    prop_assert!(7 + dst.len() + src.len() <= packet.len());
                }
                Some(Header::Short(cid)) => prop_assert_eq!(&packet[1..=CID_LEN], &cid),
                None => {}
            }
        }
    }
}
