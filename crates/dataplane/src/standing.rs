//! Whether a queue stands, a vNIC's or a socket's: it has not been empty for a while.
//!
//! The kernel does not tell how long a packet has waited in a TUN's queue, nor how many wait. But a
//! queue that is never found empty adds delay to every packet, so its senders are told to slow
//! down by marks (ECN) on single packets, as CoDel does (RFC 8289): the first after a [`BURST`], more
//! at every [`INTERVAL`], until the queue is found empty. Not sooner each time, as CoDel has it: where
//! many send, the queue is not empty either when each of them has but a super-packet on its way, and
//! less than that costs throughput.

/// A queue may go so long without being empty: bursts pass unmarked.
const BURST: u64 = 10_000_000;
/// From one mark to the next: CoDel's interval.
const INTERVAL: u64 = 100_000_000;

/// What is known about one queue. Times are nanoseconds of the data plane's clock.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Since when it has not been empty.
    since: Option<u64>,
    /// When the next packet is to be marked.
    next: u64,
}

impl Standing {
    /// The queue was found empty.
    pub(crate) fn emptied(&mut self) {
        *self = Self::default();
    }

    /// The queue was left with something in it.
    pub(crate) fn left(&mut self, now: u64) {
        if self.since.is_none() {
            self.since = Some(now);
            self.next = now + BURST;
        }
    }

    /// Whether it was left with something in it.
    pub(crate) fn stands(&self) -> bool {
        self.since.is_some()
    }

    /// Whether a packet should be marked now.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.since.is_some() && now >= self.next
    }

    /// A packet was marked.
    pub(crate) fn marked(&mut self, now: u64) {
        self.next = now + INTERVAL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many marks a queue gets that stands for so long, looked at each 100 µs.
    fn marks(standing: &mut Standing, from: u64, time: u64) -> u32 {
        let mut count = 0;
        for now in (from..from + time).step_by(100_000) {
            if standing.is_due(now) {
                standing.marked(now);
                count += 1;
            }
            standing.left(now);
        }
        count
    }

    #[test]
    fn bursts_pass_and_standing_queues_are_marked_at_every_interval() {
        let mut standing = Standing::default();
        assert_eq!(marks(&mut standing, 0, BURST), 0);
        assert_eq!(marks(&mut standing, BURST, INTERVAL), 1);
        assert_eq!(marks(&mut standing, BURST + INTERVAL, 5 * INTERVAL), 5);
    }

    #[test]
    fn an_empty_queue_begins_anew() {
        let mut standing = Standing::default();
        marks(&mut standing, 0, 2 * INTERVAL);
        standing.emptied();
        assert!(!standing.is_due(u64::MAX));
        assert_eq!(marks(&mut standing, 2 * INTERVAL, BURST), 0);
    }
}
