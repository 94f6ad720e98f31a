//! The replay window (RFC 6479): which counters have been seen.

/// How far behind the newest counter a message may still arrive.
pub const WINDOW: u64 = 16_384 - 64;

const WORDS: usize = 256;

/// Why a counter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Seen before.
    #[error("this message was received before")]
    Duplicate,
    /// Too far behind the newest to know.
    #[error("this message is older than the replay window")]
    TooOld,
}

/// A sliding window of seen counters: a ring of bitmap words indexed by counter, cleared as it
/// moves on.
#[derive(Debug, Clone)]
pub struct ReplayWindow {
    next: u64,
    words: Box<[u64; WORDS]>,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { next: 0, words: Box::new([0; WORDS]) }
    }
}

impl ReplayWindow {
    /// Whether `counter` may still be accepted: asked before the message is opened, so that a
    /// replay costs no cryptography.
    ///
    /// # Errors
    /// [`ReplayError`] if it was seen before or lies behind the window.
    #[inline]
    pub fn check(&self, counter: u64) -> Result<(), ReplayError> {
        if counter >= self.next {
            return Ok(());
        }
        if self.next - counter > WINDOW {
            return Err(ReplayError::TooOld);
        }
        if self.words[word_of(counter)] & bit_of(counter) != 0 {
            return Err(ReplayError::Duplicate);
        }
        Ok(())
    }

    /// Takes note of an authentic message's counter.
    ///
    /// # Errors
    /// [`ReplayError`] if it was seen before or lies behind the window.
    #[inline]
    pub fn accept(&mut self, counter: u64) -> Result<(), ReplayError> {
        self.check(counter)?;
        if counter >= self.next {
            self.advance(counter);
        }
        self.words[word_of(counter)] |= bit_of(counter);
        Ok(())
    }

    /// One more than the highest counter accepted so far.
    pub fn next(&self) -> u64 {
        self.next
    }

    #[inline]
    fn advance(&mut self, counter: u64) {
        // `next - 1` is the newest counter; an empty window has cleared words throughout.
        let newest_word = self.next.wrapping_sub(1) / 64;
        let from = if self.next == 0 { 0 } else { newest_word + 1 };
        let to = counter / 64;
        if to >= from {
            for word in from..=to.min(from + WORDS as u64 - 1) {
                self.words[(word % WORDS as u64) as usize] = 0;
            }
        }
        self.next = counter + 1;
    }
}

#[inline]
fn word_of(counter: u64) -> usize {
    (counter / 64 % WORDS as u64) as usize
}

#[inline]
fn bit_of(counter: u64) -> u64 {
    1 << (counter % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_counter_is_accepted_once() {
        let mut window = ReplayWindow::default();
        for counter in [0, 1, 5, 3, 64, 63, 8191, 20_000, 19_999] {
            assert_eq!(window.accept(counter), Ok(()), "{counter}");
            assert_eq!(window.check(counter), Err(ReplayError::Duplicate));
            assert_eq!(window.accept(counter), Err(ReplayError::Duplicate));
        }
        assert_eq!(window.accept(2), Err(ReplayError::TooOld));
        assert_eq!(window.accept(u64::MAX - 1), Ok(()));
        assert_eq!(window.accept(20_001), Err(ReplayError::TooOld));
        assert_eq!(window.accept(u64::MAX - WINDOW), Ok(()));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec((any::<bool>(), 0u64..40_000), 1..600)) {
            let mut window = ReplayWindow::default();
            let mut seen = BTreeSet::new();
            let mut newest: Option<u64> = None;
            for (forward, offset) in steps {
                let base = newest.unwrap_or(0);
                let counter = if forward { base + offset } else { base.saturating_sub(offset) };
                let want = match newest {
                    Some(n) if counter <= n && n + 1 - counter > WINDOW => Err(ReplayError::TooOld),
                    _ if seen.contains(&counter) => Err(ReplayError::Duplicate),
                    _ => Ok(()),
                };
                prop_assert_eq!(window.accept(counter), want);
                if want.is_ok() {
                    seen.insert(counter);
                    newest = Some(newest.map_or(counter, |n| n.max(counter)));
                }
            }
        }
    }
}
