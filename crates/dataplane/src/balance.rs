//! What the ports of a thread have sent, so that who was short of packets for a moment makes up for it.
//!
//! A member with one TCP connection has nothing to send again and again, for as long as
//! acknowledgements take; turns alone would give its part to members with many. As in start-time fair
//! queueing, each port has a tag, the bytes that it has sent; who had nothing begins a little behind.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How much a port may make up for, in bytes: what a fast host's member sends in some milliseconds.
const AHEAD: u64 = 1 << 20;

/// A port's tag; only the port's own thread looks.
#[derive(Debug, Default)]
pub(crate) struct Tag(AtomicU64);

/// The largest tag of a thread's ports.
#[derive(Debug, Default)]
pub(crate) struct Balance(u64);

impl Balance {
    /// By how many bytes a port is behind the one that has sent the most.
    pub(crate) fn behind(&self, tag: &Tag) -> u64 {
        self.0 - self.at(tag)
    }

    /// A port has sent so many bytes.
    pub(crate) fn count(&mut self, tag: &Tag, bytes: u64) {
        let at = self.at(tag) + bytes;
        tag.0.store(at, Relaxed);
        self.0 = self.0.max(at);
    }

    fn at(&self, tag: &Tag) -> u64 {
        tag.0.load(Relaxed).clamp(self.0.saturating_sub(AHEAD), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: u64 = 64 * 1024;

    #[test]
    fn who_has_nothing_now_and_then_sends_as_much_as_who_always_has() {
        let (mut balance, greedy, modest) = (Balance::default(), Tag::default(), Tag::default());
        let (mut sent, mut waits) = ([0, 0], 0);
        for round in 0..10_000 {
            // A window of 640 KiB comes back each 12 rounds.
            waits += if round % 12 == 0 { 640 * 1024 } else { 0 };
            balance.count(&greedy, TURN);
            sent[0] += TURN;
            let turn = waits.min(TURN + balance.behind(&modest).min(2 * TURN));
            balance.count(&modest, turn);
            waits -= turn;
            sent[1] += turn;
        }
        // All it had went, which is nearly the half.
        assert!(waits < 640 * 1024 && sent[1] * 100 > sent[0] * 80, "{sent:?} {waits}");
    }

    #[test]
    fn who_was_silent_makes_up_for_a_little_only() {
        let (mut balance, one, other) = (Balance::default(), Tag::default(), Tag::default());
        balance.count(&one, 1 << 30);
        assert_eq!(balance.behind(&other), AHEAD);
        balance.count(&other, AHEAD + 5);
        assert_eq!((balance.behind(&other), balance.behind(&one)), (0, 5));
    }
}
