//! QUIC datagrams in parts, for paths that are narrower than a handshake needs (RFC 9000, section
//! 14: 1200 bytes).
//!
//! A part is `0x07, index, count, 0`, a number that the sender made up for the datagram (4 bytes),
//! and that part of the datagram. Parts are as authentic as the datagram that they make: QUIC
//! checks it. Memory is bounded; who sends too many loses the oldest.

use std::collections::VecDeque;

use bytes::BytesMut;
use gvpn_dataplane::Hop;

/// First byte of a part.
pub(crate) const TYPE_PART: u8 = 0x07;
/// Bytes before the part itself.
pub(crate) const HEADER: usize = 8;

/// At most this many parts make a datagram.
const MAX_PARTS: usize = 8;
/// The largest datagram.
const MAX_DATAGRAM: usize = 4096;
/// Datagrams of which some parts are missing.
const MAX_PENDING: usize = 256;
/// Of them so many from one sender.
const MAX_PENDING_FROM_ONE: usize = 8;

/// The parts of a datagram one after the other, and the size of each but the last; `None` if it
/// cannot be cut so that each takes at most `room` bytes.
pub(crate) fn split(datagram: &[u8], room: usize, number: u32) -> Option<(Vec<u8>, usize)> {
    let room = room.checked_sub(HEADER).filter(|room| *room > 0)?;
    let count = datagram.len().div_ceil(room);
    if !(2..=MAX_PARTS).contains(&count) || datagram.len() > MAX_DATAGRAM {
        return None;
    }
    let part = datagram.len().div_ceil(count);
    let mut out = Vec::with_capacity(datagram.len() + count * HEADER);
    for (index, bytes) in datagram.chunks(part).enumerate() {
        out.extend([TYPE_PART, index as u8, count as u8, 0]);
        out.extend(number.to_le_bytes());
        out.extend(bytes);
    }
    Some((out, part + HEADER))
}

/// Datagrams of which some parts have come.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    from: Hop,
    number: [u8; 4],
    parts: Vec<Option<Box<[u8]>>>,
    missing: usize,
    bytes: usize,
}

impl Parts {
    /// Adds a part; the datagram if it is whole now, and how many bytes its parts took.
    pub(crate) fn add(&mut self, from: Hop, part: &[u8]) -> Option<(BytesMut, usize)> {
        let (header, bytes) = part.split_first_chunk::<HEADER>()?;
        let [TYPE_PART, index, count, 0, number @ ..] = *header else { return None };
        let (index, count) = (usize::from(index), usize::from(count));
        if index >= count || !(2..=MAX_PARTS).contains(&count) || bytes.is_empty() {
            return None;
        }
        let at = self.find(from, number, count);
        let pending = &mut self.pending[at];
        if pending.parts.len() != count || pending.bytes + bytes.len() > MAX_DATAGRAM {
            self.pending.remove(at);
            return None;
        }
        if pending.parts[index].is_some() {
            return None;
        }
        pending.parts[index] = Some(bytes.into());
        pending.bytes += bytes.len();
        pending.missing -= 1;
        if pending.missing > 0 {
            return None;
        }
        let whole = self.pending.remove(at)?;
        let mut datagram = BytesMut::with_capacity(whole.bytes);
        whole.parts.iter().flatten().for_each(|part| datagram.extend_from_slice(part));
        Some((datagram, whole.bytes + count * HEADER))
    }

    fn find(&mut self, from: Hop, number: [u8; 4], count: usize) -> usize {
        let known = |p: &Pending| p.from == from && p.number == number;
        if let Some(at) = self.pending.iter().position(known) {
            return at;
        }
        let of_one = |p: &&Pending| p.from == from;
        if self.pending.iter().filter(of_one).count() >= MAX_PENDING_FROM_ONE {
            let oldest = self.pending.iter().position(|p| p.from == from);
            oldest.map(|at| self.pending.remove(at));
        } else if self.pending.len() >= MAX_PENDING {
            self.pending.pop_front();
        }
        let parts = vec![None; count];
        self.pending.push_back(Pending { from, number, parts, missing: count, bytes: 0 });
        self.pending.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn hop(port: u16) -> Hop {
        Hop::Direct(SocketAddr::new([192, 0, 2, 1].into(), port))
    }

    proptest! {
        #[test]
        fn a_datagram_survives_in_any_order(size in 541usize..4000, room in 540usize..600, number: u32, turn in 0usize..8) {
            let datagram: Vec<u8> = (0..size).map(|i| (i * 7) as u8).collect();
            let Some((bytes, stride)) = split(&datagram, room, number) else {
                prop_assert!(size > (room - HEADER) * MAX_PARTS || size <= room - HEADER);
                return Ok(());
            };
            let mut parts: Vec<&[u8]> = bytes.chunks(stride).collect();
            prop_assert!(parts.iter().all(|part| part.len() <= room));
            let turn = turn % parts.len();
            parts.rotate_left(turn);
            let mut reassembly = Parts::default();
            let (last, first) = parts.split_last().unwrap();
            for part in first {
                prop_assert_eq!(reassembly.add(hop(1), part), None);
                // Twice does no harm, nor does another sender with the same number.
                prop_assert_eq!(reassembly.add(hop(1), part), None);
                prop_assert_eq!(reassembly.add(hop(2), part), None);
            }
            let (whole, taken) = reassembly.add(hop(1), last).unwrap();
            prop_assert_eq!(whole, datagram);
            prop_assert_eq!(taken, bytes.len());
        }

        #[test]
        fn rubbish_takes_bounded_memory(parts in prop::collection::vec((0u16..600, prop::collection::vec(any::<u8>(), 0..40)), 0..600)) {
            let mut reassembly = Parts::default();
            for (port, mut part) in parts {
                if let Some(first) = part.first_mut() {
                    *first = TYPE_PART;
                }
                reassembly.add(hop(port), &part);
                prop_assert!(reassembly.pending.len() <= MAX_PENDING);
            }
        }
    }

    #[test]
    fn one_sender_does_not_push_out_the_others() {
        let mut reassembly = Parts::default();
        let (bytes, stride) = split(&[1; 1200], 540, 9).unwrap();
        assert_eq!(bytes.len().div_ceil(stride), 3);
        let parts: Vec<&[u8]> = bytes.chunks(stride).collect();
        assert_eq!(reassembly.add(hop(1), parts[0]), None);
        for number in 0..1000u32 {
            let (flood, stride) = split(&[2; 1200], 540, number).unwrap();
            reassembly.add(hop(2), &flood[..stride]);
        }
        assert_eq!(reassembly.add(hop(1), parts[1]), None);
        assert!(reassembly.add(hop(1), parts[2]).is_some());
    }
}
