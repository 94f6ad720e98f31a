//! Whether a thread should look again before it sleeps.
//!
//! To sleep and be woken takes longer than a short round trip. When a lone packet passed through
//! an idle thread and its answer came right after the last time, the thread looks for the answer
//! for a moment before it sleeps. Under load, and where answers take longer, it sleeps at once.
//! Looking takes a processor from whoever else could use it, so a thread spends but a small part of
//! its time on that, lets others go first, and stops when there are any.

use std::time::Duration;

/// A thread that slept this long was idle. The pauses of a busy one that shares a processor with many
/// are shorter.
const IDLE: Duration = Duration::from_millis(4);
/// An answer within this time is worth waiting for.
const SOON: Duration = Duration::from_micros(400);
/// At most one part in so many of the time goes into looking.
const SHARE: u32 = 100;
/// So much of that may be saved up.
const SAVED: Duration = Duration::from_millis(10);
/// When letting others go first takes this long, there are some.
const OTHERS: Duration = Duration::from_micros(50);

/// What a thread knows about its last events.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The event in hand came after idleness.
    lone: bool,
    /// After the last lone event, the next one came soon.
    quick: bool,
    /// How long it may look: as of `counted`.
    credit: Duration,
    counted: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { lone: false, quick: false, credit: SAVED, counted: Duration::ZERO }
    }
}

impl Pace {
    /// Waits for events with `poll`, which is told how to wait: `true` to sleep, `false` to look
    /// only; it returns whether there are any. `clock` tells the time.
    pub(crate) fn wait<E>(
        &mut self,
        clock: impl Fn() -> Duration,
        mut poll: impl FnMut(bool) -> Result<bool, E>,
    ) -> Result<(), E> {
        let start = clock();
        let lone = std::mem::take(&mut self.lone);
        if lone && self.quick && self.may_look(start) && self.look(&clock, start, &mut poll)? {
            return Ok(());
        }
        while !poll(true)? {}
        let waited = clock().saturating_sub(start);
        if lone {
            self.quick = waited < SOON;
        }
        self.lone = waited >= IDLE;
        Ok(())
    }

    /// Looks for events for a moment; whether some came.
    fn look<E>(
        &mut self,
        clock: impl Fn() -> Duration,
        start: Duration,
        mut poll: impl FnMut(bool) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let (mut looked, mut came) = (Duration::ZERO, false);
        while !came && looked < SOON {
            came = poll(false)?;
            if !came {
                std::thread::yield_now();
            }
            let before = std::mem::replace(&mut looked, clock().saturating_sub(start));
            if !came && looked - before >= OTHERS {
                self.credit = Duration::ZERO;
                return Ok(false);
            }
        }
        self.credit = self.credit.saturating_sub(looked);
        Ok(came)
    }

    /// Whether there is time to spare for looking.
    fn may_look(&mut self, now: Duration) -> bool {
        let earned = now.saturating_sub(self.counted) / SHARE;
        self.credit = (self.credit + earned).min(SAVED);
        self.counted = now;
        self.credit >= SOON
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Runs one wait in which events come after `after`; returns how often it only looked.
    fn wait(pace: &mut Pace, after: Duration) -> u32 {
        let (now, mut looks) = (Cell::new(Duration::ZERO), 0);
        let poll = |sleep: bool| {
            if sleep {
                now.set(now.get().max(after));
            } else {
                looks += 1;
                now.set(now.get() + Duration::from_micros(10));
            }
            Ok::<_, ()>(now.get() >= after)
        };
        pace.wait(|| now.get(), poll).unwrap();
        looks
    }

    #[test]
    fn it_looks_only_after_a_lone_event_where_answers_come_soon() {
        let (long, soon) = (Duration::from_millis(6), Duration::from_micros(40));
        let mut pace = Pace::default();
        assert_eq!(wait(&mut pace, long), 0);
        assert_eq!(wait(&mut pace, soon), 0, "not known to be quick yet");
        assert_eq!(wait(&mut pace, long), 0, "the event before was not lone");
        assert_eq!(wait(&mut pace, soon), 4, "quick the last time");
        assert_eq!(wait(&mut pace, long), 0, "the event before was not lone");
        let looks = (SOON.as_micros() / 10) as u32;
        assert_eq!(wait(&mut pace, long), looks, "quick the last time, but not now");
        assert_eq!(wait(&mut pace, soon), 0, "slow the last time");
    }

    #[test]
    fn it_stops_looking_when_others_want_the_processor() {
        let (now, mut looks) = (Cell::new(Duration::ZERO), 0);
        let mut pace = Pace { lone: true, quick: true, ..Pace::default() };
        let mut poll = |sleep: bool| {
            looks += u32::from(!sleep);
            now.set(now.get() + OTHERS);
            Ok::<_, ()>(sleep)
        };
        pace.wait(|| now.get(), &mut poll).unwrap();
        (pace.lone, pace.quick) = (true, true);
        pace.wait(|| now.get(), &mut poll).unwrap();
        assert_eq!(looks, 1, "the second time it has nothing to spare");
    }

    #[test]
    fn it_spends_little_of_its_time_on_looking() {
        let (now, looked) = (Cell::new(Duration::ZERO), Cell::new(Duration::ZERO));
        let (mut pace, step) = (Pace::default(), Duration::from_micros(10));
        // Every 5 ms something comes, and its answer 100 µs later: quick, and too often.
        let mut due = Duration::from_millis(5);
        for event in 0..10_000 {
            let poll = |sleep: bool| {
                if sleep {
                    now.set(now.get().max(due));
                } else {
                    looked.set(looked.get() + step);
                    now.set(now.get() + step);
                }
                Ok::<_, ()>(now.get() >= due)
            };
            pace.wait(|| now.get(), poll).unwrap();
            let after = if event % 2 == 0 { 100 } else { 5000 };
            due = now.get() + Duration::from_micros(after);
        }
        let most = now.get() / SHARE + SAVED;
        assert!((most / 2..=most).contains(&looked.get()), "{looked:?} of {most:?}");
    }
}
