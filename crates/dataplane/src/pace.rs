//! Whether a thread should look again before it sleeps.
//!
//! To sleep and be woken takes longer than a short round trip. When a lone packet passed through
//! an idle thread and its answer came right after the last time, the thread looks for the answer
//! for a moment before it sleeps. Under load, and where answers take longer, it sleeps at once.

use std::time::Duration;

/// A thread that slept this long was idle.
const IDLE: Duration = Duration::from_millis(1);
/// An answer within this time is worth waiting for.
const SOON: Duration = Duration::from_micros(400);

/// What a thread knows about its last events.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// The event in hand came after idleness.
    lone: bool,
    /// After the last lone event, the next one came soon.
    quick: bool,
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
        if lone && self.quick {
            while clock().saturating_sub(start) < SOON {
                if poll(false)? {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
        while !poll(true)? {}
        let waited = clock().saturating_sub(start);
        if lone {
            self.quick = waited < SOON;
        }
        self.lone = waited >= IDLE;
        Ok(())
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
        let (long, soon) = (Duration::from_millis(3), Duration::from_micros(40));
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
}
