//! Whether a queue stands, a vNIC's or a socket's: it has not been empty for a while.
//!
//! The kernel does not tell how long a packet has waited in a TUN's queue, nor how many wait. But a
//! queue that is never found empty adds delay to every packet, so its senders are told to slow
//! down by marks (ECN) on single packets, following CoDel (RFC 8289): the first after an
//! [`INTERVAL`], the next ones sooner each time, until the queue is found empty.

/// A queue may go so long without being empty: bursts pass unmarked.
const INTERVAL: u64 = 10_000_000;

/// What is known about one queue. Times are nanoseconds of the data plane's clock.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Since when it has not been empty.
    since: Option<u64>,
    /// When the next packet is to be marked.
    next: u64,
    marks: u32,
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
            self.next = now + INTERVAL;
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
        self.marks += 1;
        self.next = now + (INTERVAL as f64 / f64::from(self.marks + 1).sqrt()) as u64;
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
    fn bursts_pass_and_standing_queues_are_marked_ever_more_often() {
        let mut standing = Standing::default();
        assert_eq!(marks(&mut standing, 0, INTERVAL), 0);
        let first = marks(&mut standing, INTERVAL, 5 * INTERVAL);
        let second = marks(&mut standing, 6 * INTERVAL, 5 * INTERVAL);
        assert!(first >= 5 && second > first, "{first} {second}");
    }

    #[test]
    fn an_empty_queue_begins_anew() {
        let mut standing = Standing::default();
        marks(&mut standing, 0, 10 * INTERVAL);
        standing.emptied();
        assert!(!standing.is_due(u64::MAX));
        assert_eq!(marks(&mut standing, 10 * INTERVAL, INTERVAL), 0);
    }
}
