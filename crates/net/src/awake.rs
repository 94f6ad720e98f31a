//! Notices that the machine has slept.
//!
//! While a machine is suspended CLOCK_BOOTTIME goes on and CLOCK_MONOTONIC, by which all timers
//! here run, stands still (clock_gettime(2)): peers have waited for longer than this node knows.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A shorter sleep than this is not worth a word.
const SLEPT: Duration = Duration::from_secs(1);

/// Compares two clocks.
#[derive(Debug, Default)]
pub(crate) struct Awake {
    /// How far the one clock was ahead of the other when they were last compared.
    ahead: Option<Duration>,
}

impl Awake {
    /// How long the machine has slept since the last question, if it did.
    pub(crate) fn slept(&mut self) -> Option<Duration> {
        let read = |id| clock_gettime(id).map(Duration::from).ok();
        self.compare(read(ClockId::CLOCK_BOOTTIME)?, read(ClockId::CLOCK_MONOTONIC)?)
    }

    fn compare(&mut self, boot: Duration, monotonic: Duration) -> Option<Duration> {
        let ahead = boot.saturating_sub(monotonic);
        let before = self.ahead.replace(ahead)?;
        ahead.checked_sub(before).filter(|slept| *slept >= SLEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_told_once() {
        let s = Duration::from_secs;
        let mut awake = Awake::default();
        assert_eq!(awake.compare(s(100), s(90)), None);
        assert_eq!(awake.compare(s(101), s(91)), None);
        assert_eq!(awake.compare(s(701), s(92)), Some(s(599)));
        assert_eq!(awake.compare(s(702), s(93)), None);
        assert!(Awake::default().slept().is_none());
    }
}
