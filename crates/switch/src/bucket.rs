//! Token buckets without locks, in virtual time.

use std::sync::atomic::{AtomicU64, Ordering};

const SECOND: u64 = 1_000_000_000;

/// A bucket that many threads may take from. It keeps the time at which it will be full again
/// (the generic cell rate algorithm); where the rate changes, start with a new one.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

/// How fast a bucket fills, and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units a second.
    pub per_second: u64,
    /// How far ahead of the rate a sender may be, in nanoseconds.
    pub burst: u64,
}

impl Bucket {
    /// Takes `units` at time `now` (nanoseconds); false when the sender is too far ahead. What is
    /// taken may exceed the burst once: a super-packet larger than the burst still passes, and
    /// what follows waits for it.
    pub fn take(&self, rate: Rate, units: u64, now: u64) -> bool {
        if rate.per_second == 0 {
            return true;
        }
        let cost = rate.cost(units);
        let mut full_at = self.0.load(Ordering::Relaxed);
        loop {
            let start = full_at.max(now);
            if start - now > rate.burst {
                return false;
            }
            let next = start.saturating_add(cost);
            let swap =
                self.0.compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed);
            match swap {
                Ok(_) => return true,
                Err(seen) => full_at = seen,
            }
        }
    }

    /// From when on [`take`](Self::take) succeeds, in nanoseconds; zero where there is no limit.
    pub fn ready_at(&self, rate: Rate) -> u64 {
        match rate.per_second {
            0 => 0,
            _ => self.0.load(Ordering::Relaxed).saturating_sub(rate.burst),
        }
    }

    /// Takes `units` however far ahead the sender is.
    pub fn charge(&self, rate: Rate, units: u64, now: u64) {
        if rate.per_second > 0 {
            let cost = rate.cost(units);
            let next = |full_at: u64| Some(full_at.max(now).saturating_add(cost));
            let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        }
    }
}

impl Rate {
    /// How long `units` take, in nanoseconds; nothing where there is no limit.
    pub fn cost(self, units: u64) -> u64 {
        if self.per_second == 0 {
            return 0;
        }
        match units.checked_mul(SECOND) {
            Some(product) => product / self.per_second,
            None => units / self.per_second * SECOND,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_rate_holds_over_any_pattern(
            rate in 1000u64..10_000_000,
            steps in prop::collection::vec((0u64..5_000_000, 1u64..5000), 1..300),
        ) {
            let bucket = Bucket::default();
            let rate = Rate { per_second: rate, burst: SECOND / 10 };
            let (mut now, mut passed) = (SECOND, 0);
            for (wait, units) in steps {
                now += wait;
                if bucket.take(rate, units, now) {
                    passed += units;
                }
            }
            let time = now - SECOND + rate.burst;
            let most = (u128::from(rate.per_second) * u128::from(time) / u128::from(SECOND)) as u64;
            prop_assert!(passed <= most + 5000 + 300, "{passed} of at most {most}");
        }
    }

    #[test]
    fn it_says_when_it_is_ready() {
        let (bucket, rate) = (Bucket::default(), Rate { per_second: 1000, burst: SECOND / 20 });
        let now = SECOND;
        assert_eq!(bucket.ready_at(rate), 0);
        bucket.charge(rate, 500, now);
        assert_eq!(bucket.ready_at(rate), now + SECOND / 2 - SECOND / 20);
        assert!(!bucket.take(rate, 1, bucket.ready_at(rate) - 1));
        assert!(bucket.take(rate, 1, bucket.ready_at(rate)));
    }

    #[test]
    fn no_rate_is_no_limit_and_a_slow_sender_is_never_refused() {
        let bucket = Bucket::default();
        let none = Rate { per_second: 0, burst: 0 };
        assert!((0..100_000).all(|_| bucket.take(none, 1 << 20, 5)));
        let rate = Rate { per_second: 1000, burst: SECOND / 100 };
        assert!((0..10_000).all(|n| bucket.take(rate, 1, n * SECOND / 1000)));
    }
}
