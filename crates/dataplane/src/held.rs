//! Packets that wait for a lane.

use std::collections::VecDeque;

use gvpn_packet::VnetHdr;

/// Room for the first packets of a conversation, no more: what waits long is stale.
const MAX_BYTES: usize = 32 * 1024;
const MAX_AGE_MS: u64 = 5_000;
const ASK_AGAIN_MS: u64 = 1_000;

/// A packet that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) hdr: VnetHdr,
    pub(crate) bytes: Box<[u8]>,
    since: u64,
}

/// The newest packets for one peer and network, and when a lane was last asked for.
#[derive(Debug, Default)]
pub(crate) struct Held {
    packets: VecDeque<Waiting>,
    bytes: usize,
    asked: Option<u64>,
}

/// What came of holding a packet.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Packets pushed out, the new one included where it is too large.
    pub(crate) dropped: u64,
    /// Whether to ask for a lane.
    pub(crate) ask: bool,
}

impl Held {
    pub(crate) fn hold(&mut self, hdr: VnetHdr, bytes: &[u8], now: u64) -> Outcome {
        let ask = self.asked.is_none_or(|at| now.saturating_sub(at) >= ASK_AGAIN_MS);
        if ask {
            self.asked = Some(now);
        }
        if bytes.len() > MAX_BYTES {
            return Outcome { dropped: 1, ask };
        }
        let mut dropped = 0;
        while self.bytes + bytes.len() > MAX_BYTES
            && let Some(old) = self.packets.pop_front()
        {
            self.bytes -= old.bytes.len();
            dropped += 1;
        }
        self.bytes += bytes.len();
        self.packets.push_back(Waiting { hdr, bytes: bytes.into(), since: now });
        Outcome { dropped, ask }
    }

    /// Takes what waits, in order, and how many had waited too long.
    pub(crate) fn take(&mut self, now: u64) -> (VecDeque<Waiting>, u64) {
        self.bytes = 0;
        self.asked = None;
        let mut packets = std::mem::take(&mut self.packets);
        let before = packets.len();
        packets.retain(|packet| now.saturating_sub(packet.since) <= MAX_AGE_MS);
        let stale = before - packets.len();
        (packets, stale as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_and_a_lane_is_asked_for_once_a_second() {
        let mut held = Held::default();
        let hdr = VnetHdr::default();
        assert_eq!(held.hold(hdr, &[1; 20_000], 10), Outcome { dropped: 0, ask: true });
        assert_eq!(held.hold(hdr, &[2; 20_000], 11), Outcome { dropped: 1, ask: false });
        assert_eq!(held.hold(hdr, &[3; 60_000], 500), Outcome { dropped: 1, ask: false });
        assert_eq!(held.hold(hdr, &[4; 100], 1200), Outcome { dropped: 0, ask: true });
        let (packets, stale) = held.take(5_100);
        assert_eq!((packets.len(), stale), (1, 1));
        assert_eq!(packets[0].bytes[0], 4);
        assert_eq!(held.take(5_100).0.len(), 0);
        assert_eq!(held.hold(hdr, &[5; 100], 5_101), Outcome { dropped: 0, ask: true });
    }
}
