//! What happens to frames on a long line, decided from a seed and without a clock.

use std::time::{Duration, Instant};

/// A frame that overtakes another does so by at most this.
const HELD_BACK: Duration = Duration::from_millis(5);
/// A line without frames for this long remembers nothing.
const MEMORY: Duration = Duration::from_millis(10);
/// Ethernet's header.
const ETHERNET: usize = 14;
/// Behind the headers of Ethernet, IP (either) and UDP.
const BEHIND_HEADERS: usize = ETHERNET + 40 + 8;

/// What a [`Line`](crate::Line) does to the frames in each direction. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Weather {
    /// How long a frame takes.
    pub delay: Duration,
    /// How much longer at most; the order is kept.
    pub jitter: Duration,
    /// The share of frames that are lost: from 0 to 1.
    pub loss: f64,
    /// How many are lost in a row, on average (Gilbert's model); below 1 each is lost or not by
    /// itself. After 10 ms without a frame nothing is left of a burst.
    pub burst: f64,
    /// The share that later ones overtake, by up to 5 ms.
    pub reorder: f64,
    /// The share that arrives twice.
    pub duplicate: f64,
    /// The share that arrives changed: half of these with one bit flipped, half with two 16-bit
    /// words of the payload exchanged, which no checksum of TCP or UDP shows.
    pub corrupt: f64,
    /// Larger IP packets are lost without a word.
    pub mtu: Option<usize>,
}

/// What befell a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was lost by chance.
    Lost,
    /// It was lost for its size.
    TooLarge,
    /// It comes.
    Arrives {
        /// When.
        at: Instant,
        /// When it comes once more.
        again: Option<Instant>,
        /// Others overtake it.
        late: bool,
        /// It is not what was sent.
        changed: bool,
    },
}

/// One direction of a line: what happens to each frame, for tests in virtual time too.
#[derive(Debug)]
pub struct Direction {
    random: Random,
    /// A burst of losses is on.
    bad: bool,
    /// When the latest frame was sent.
    sent: Option<Instant>,
    /// When the latest frame that keeps the order arrives.
    last: Option<Instant>,
}

impl Direction {
    /// The same seed makes the same things happen.
    pub fn new(seed: u64) -> Self {
        Self { random: Random(seed), bad: false, sent: None, last: None }
    }

    /// What becomes of a frame sent now; it may be changed.
    pub fn send(&mut self, now: Instant, weather: &Weather, frame: &mut [u8]) -> Fate {
        if weather.mtu.is_some_and(|mtu| frame.len() > mtu + ETHERNET) {
            return Fate::TooLarge;
        }
        if self.lost(now, weather) {
            return Fate::Lost;
        }
        let changed = self.random.chance(weather.corrupt) && self.change(frame);
        let due = now + weather.delay + self.random.within(weather.jitter);
        let again = self.random.chance(weather.duplicate).then(|| due + HELD_BACK / 10);
        let late = self.random.chance(weather.reorder);
        if late {
            let at = due + self.random.within(HELD_BACK);
            return Fate::Arrives { at, again, late, changed };
        }
        let at = self.last.map_or(due, |last| due.max(last));
        self.last = Some(at);
        Fate::Arrives { at, again, late, changed }
    }

    fn lost(&mut self, now: Instant, weather: &Weather) -> bool {
        if weather.burst <= 1.0 || weather.loss >= 1.0 {
            return self.random.chance(weather.loss);
        }
        let before = self.sent.replace(now);
        if before.is_none_or(|before| now.saturating_duration_since(before) > MEMORY) {
            self.bad = self.random.chance(weather.loss);
            return self.bad;
        }
        let end = 1.0 / weather.burst;
        let change = if self.bad { end } else { end * weather.loss / (1.0 - weather.loss) };
        self.bad ^= self.random.chance(change);
        self.bad
    }

    fn change(&mut self, frame: &mut [u8]) -> bool {
        let words = frame.len().saturating_sub(BEHIND_HEADERS) / 2;
        if words > 1 && self.random.chance(0.5) {
            let word = |i: usize| BEHIND_HEADERS + 2 * i;
            let (a, b) = (word(self.random.below(words)), word(self.random.below(words)));
            if frame[a..a + 2] != frame[b..b + 2] {
                frame.swap(a, b);
                frame.swap(a + 1, b + 1);
                return true;
            }
        }
        let Some(bytes) = frame.get_mut(ETHERNET..).filter(|bytes| !bytes.is_empty()) else {
            return false;
        };
        bytes[self.random.below(bytes.len())] ^= 1 << self.random.below(8);
        true
    }
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1, without 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.share() < share
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn within(&mut self, length: Duration) -> Duration {
        if length.is_zero() { length } else { length.mul_f64(self.share()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: usize = 100_000;

    fn fates(weather: &Weather, seed: u64) -> Vec<Fate> {
        let mut direction = Direction::new(seed);
        let start = Instant::now();
        let at = |i: usize| start + Duration::from_micros(10) * i as u32;
        (0..FRAMES).map(|i| direction.send(at(i), weather, &mut [i as u8; 100])).collect()
    }

    fn share(fates: &[Fate], of: impl Fn(&Fate) -> bool) -> f64 {
        fates.iter().filter(|fate| of(fate)).count() as f64 / fates.len() as f64
    }

    #[test]
    fn as_much_is_lost_as_was_asked_for_and_in_bursts_as_long() {
        for (loss, burst) in [(0.2, 1.0), (0.25, 8.0), (0.01, 3.0)] {
            let fates = fates(&Weather { loss, burst, ..Weather::default() }, 7);
            let lost = share(&fates, |fate| *fate == Fate::Lost);
            assert!((lost - loss).abs() < 0.2 * loss, "{lost} instead of {loss}");
            let runs = fates.chunk_by(|a, b| (*a == Fate::Lost) == (*b == Fate::Lost));
            let bursts: Vec<usize> = runs.filter(|r| r[0] == Fate::Lost).map(<[_]>::len).collect();
            let mean = bursts.iter().sum::<usize>() as f64 / bursts.len() as f64;
            let want = burst.max(1.0 / (1.0 - loss));
            assert!((mean - want).abs() < 0.2 * want, "{mean} instead of {want}");
        }
    }

    #[test]
    fn the_rest_befalls_the_share_that_was_asked_for() {
        let (reorder, duplicate, corrupt) = (0.1, 0.05, 0.02);
        let weather = Weather { reorder, duplicate, corrupt, ..Weather::default() };
        let fates = fates(&weather, 1);
        let late = |f: &Fate| matches!(f, Fate::Arrives { late: true, .. });
        let twice = |f: &Fate| matches!(f, Fate::Arrives { again: Some(_), .. });
        let changed = |f: &Fate| matches!(f, Fate::Arrives { changed: true, .. });
        for (got, want) in [
            (share(&fates, late), reorder),
            (share(&fates, twice), duplicate),
            (share(&fates, changed), corrupt),
        ] {
            assert!((got - want).abs() < 0.2 * want, "{got} instead of {want}");
        }
    }

    #[test]
    fn jitter_keeps_the_order_and_a_seed_says_all() {
        let (delay, jitter) = (Duration::from_millis(20), Duration::from_millis(9));
        let weather = Weather { delay, jitter, ..Weather::default() };
        let first = fates(&weather, 3);
        let times = first.iter().map(|fate| match fate {
            Fate::Arrives { at, .. } => *at,
            other => panic!("{other:?}"),
        });
        assert!(times.is_sorted());
        let weather = Weather { loss: 0.1, burst: 4.0, ..Weather::default() };
        let lost =
            |seed| fates(&weather, seed).iter().map(|f| *f == Fate::Lost).collect::<Vec<_>>();
        assert_eq!(lost(5), lost(5));
        assert_ne!(lost(5), lost(6));
    }

    #[test]
    fn what_is_too_large_is_lost_and_what_is_changed_differs() {
        let mut direction = Direction::new(1);
        let weather = Weather { mtu: Some(86), corrupt: 1.0, ..Weather::default() };
        let now = Instant::now();
        assert_eq!(direction.send(now, &weather, &mut [0; 101]), Fate::TooLarge);
        for _ in 0..100 {
            let before: [u8; 100] = std::array::from_fn(|i| i as u8);
            let mut frame = before;
            let fate = direction.send(now, &weather, &mut frame);
            assert!(matches!(fate, Fate::Arrives { changed: true, .. }));
            assert_ne!(frame, before);
            assert_eq!(frame[..ETHERNET], before[..ETHERNET]);
        }
    }
}
