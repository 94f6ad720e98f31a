//! Packets larger than the path: sent as several messages, put together again at the other end.
//!
//! A fragment's plaintext is `0x03, index, count, 0` and a part of the packet. A packet's
//! fragments have consecutive counters, so that counter less index names the packet.

use std::collections::VecDeque;

/// First byte of a fragment's plaintext.
pub(crate) const FRAGMENT: u8 = 0x03;
/// Bytes before the part.
pub(crate) const FRAGMENT_HEADER: usize = 4;
/// At most this many parts.
pub(crate) const MAX_PARTS: usize = 64;

/// The largest packet that is sent in parts.
pub(crate) const MAX_PACKET: usize = 16 * 1024;
const MAX_PENDING: usize = 16;

/// The header of part `index` of `count`.
pub(crate) fn header(index: usize, count: usize) -> [u8; FRAGMENT_HEADER] {
    [FRAGMENT, index as u8, count as u8, 0]
}

/// Packets of which some parts have come.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    pending: VecDeque<Pending>,
}

#[derive(Debug)]
struct Pending {
    first: u64,
    parts: Vec<Option<Box<[u8]>>>,
    missing: usize,
    bytes: usize,
}

/// What came of a part.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// More are to come; this many other packets were given up for it.
    Waiting(u64),
    /// The packet is whole.
    Whole(Vec<u8>),
    /// It fits nothing.
    Refused,
}

impl Reassembly {
    /// Adds the part that came with `counter`.
    pub(crate) fn add(&mut self, counter: u64, plaintext: &[u8]) -> Outcome {
        let Some((&[_, index, count, _], part)) = plaintext.split_first_chunk::<FRAGMENT_HEADER>()
        else {
            return Outcome::Refused;
        };
        let (index, count) = (usize::from(index), usize::from(count));
        if index >= count || !(2..=MAX_PARTS).contains(&count) || part.is_empty() {
            return Outcome::Refused;
        }
        let Some(first) = counter.checked_sub(index as u64) else { return Outcome::Refused };
        let mut given_up = 0;
        let at = match self.pending.iter().position(|pending| pending.first == first) {
            Some(at) => at,
            None => {
                if self.pending.len() == MAX_PENDING {
                    self.pending.pop_front();
                    given_up = 1;
                }
                let parts = vec![None; count];
                self.pending.push_back(Pending { first, parts, missing: count, bytes: 0 });
                self.pending.len() - 1
            }
        };
        let pending = &mut self.pending[at];
        let fits = pending.parts.len() == count
            && pending.parts[index].is_none()
            && pending.bytes + part.len() <= MAX_PACKET;
        if !fits {
            self.pending.remove(at);
            return Outcome::Refused;
        }
        pending.parts[index] = Some(part.into());
        pending.bytes += part.len();
        pending.missing -= 1;
        if pending.missing > 0 {
            return Outcome::Waiting(given_up);
        }
        let whole = pending.parts.iter().flatten().flat_map(|part| part.iter().copied()).collect();
        self.pending.remove(at);
        Outcome::Whole(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(index: usize, count: usize, bytes: &[u8]) -> Vec<u8> {
        [&header(index, count)[..], bytes].concat()
    }

    #[test]
    fn parts_come_together_in_any_order() {
        let mut reassembly = Reassembly::default();
        assert_eq!(reassembly.add(12, &part(2, 3, b"c")), Outcome::Waiting(0));
        assert_eq!(reassembly.add(20, &part(0, 2, b"x")), Outcome::Waiting(0));
        assert_eq!(reassembly.add(10, &part(0, 3, b"a")), Outcome::Waiting(0));
        assert_eq!(reassembly.add(11, &part(1, 3, b"b")), Outcome::Whole(b"abc".to_vec()));
        assert_eq!(reassembly.add(21, &part(1, 2, b"y")), Outcome::Whole(b"xy".to_vec()));
        assert!(reassembly.pending.is_empty());
    }

    #[test]
    fn nonsense_is_refused_and_memory_is_bounded() {
        let mut reassembly = Reassembly::default();
        for bad in [
            &[3u8, 0][..],
            &part(2, 2, b"x"),
            &part(0, 1, b"x"),
            &part(0, 65, b"x"),
            &part(0, 2, b""),
        ] {
            assert_eq!(reassembly.add(9, bad), Outcome::Refused);
        }
        assert_eq!(reassembly.add(0, &part(1, 2, b"x")), Outcome::Refused);
        for first in 0..100 {
            reassembly.add(first * 10, &part(0, 2, &[0; 1000]));
        }
        assert_eq!(reassembly.pending.len(), MAX_PENDING);
        assert_eq!(reassembly.add(991, &part(1, 3, b"x")), Outcome::Refused);
        assert_eq!(reassembly.add(970, &part(0, 2, b"x")), Outcome::Refused);
    }
}
