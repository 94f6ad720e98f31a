//! Packets that wait because their sender is over its limit.
//!
//! A bounded queue, managed by CoDel (RFC 8289): a sender that adapts (TCP) is told early enough that
//! packets do not wait long, one that does not finds the queue full. Sans-IO, and nothing is
//! allocated after the start.
//!
//! What of RFC 8289 is not met: it is one queue for all flows of a member, which are its own affair.

use std::collections::VecDeque;

use gvpn_packet::understands_marks;

/// How long packets may wait for good: 10 ms. Twice what section 4.3 has: a wake-up takes a few.
const TARGET: u64 = 10_000_000;
/// How long it may take until a sender has adapted (section 4.2): 100 ms.
const INTERVAL: u64 = 100_000_000;
/// How long marks alone are tried: 1 s. At a low rate a window that began well takes so long to go.
const PATIENCE: u64 = 1_000_000_000;
/// A sender that asks for marks and does not heed them may have packets wait so long: 200 ms. Some
/// (BBR) keep a few packets in flight whatever they are told, and a lost one costs more than it helps.
const DEAF: u64 = 200_000_000;
/// The most packets or super-packets that wait.
const MOST: usize = 2048;

/// Packets, each with something beside it, in the order in which they came.
#[derive(Debug)]
pub struct Shaper<T> {
    waiting: VecDeque<Waiting<T>>,
    bytes: VecDeque<u8>,
    room: usize,
    codel: Codel,
    /// Of the packets that went lately, those whose senders understand marks: 0 to 255.
    understand: u8,
}

#[derive(Debug)]
struct Waiting<T> {
    beside: T,
    len: usize,
    since: u64,
    understands: bool,
}

/// What came of [`Shaper::pop`].
#[derive(Debug, PartialEq, Eq)]
pub enum Popped<T> {
    /// The next packet, and how long it is.
    Packet(T, usize),
    /// The next packet, by which its sender is to be told to slow down by a mark (ECN).
    Mark(T, usize),
    /// A packet that must go: its sender does not understand marks, or does not heed them.
    Dropped(T, usize),
    /// Nothing waits.
    Empty,
}

/// When senders are told, and since when.
#[derive(Debug, Default)]
struct Codel {
    /// When packets will have waited too long for a whole interval.
    first_above: Option<u64>,
    /// Since when senders are told; `None` while packets do not wait long.
    telling: Option<u64>,
    next: u64,
    /// When a sender that does not heed marks may lose a packet.
    next_loss: u64,
    count: u64,
    last_count: u64,
}

impl<T> Shaper<T> {
    /// A queue for this many bytes.
    pub fn new(room: usize) -> Self {
        Self {
            waiting: VecDeque::with_capacity(MOST),
            bytes: VecDeque::with_capacity(room),
            room,
            codel: Codel::default(),
            understand: 0,
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The next packet's length, and when it was added.
    pub fn first(&self) -> Option<(usize, u64)> {
        self.waiting.front().map(|first| (first.len, first.since))
    }

    /// Adds a packet at time `now` (nanoseconds); false if there is no room for it. A packet always
    /// finds room in an empty queue.
    pub fn push(&mut self, beside: T, packet: &[u8], now: u64) -> bool {
        let full = self.bytes.len() + packet.len() > self.room || self.waiting.len() == MOST;
        if full && !self.is_empty() {
            return false;
        }
        self.bytes.extend(packet);
        let understands = understands_marks(packet);
        self.waiting.push_back(Waiting { beside, len: packet.len(), since: now, understands });
        true
    }

    /// Takes the first packet, whose own time on the line begins `now`; its bytes are put into `out`,
    /// which must have room for any that was added: what is longer is cut off.
    pub fn pop(&mut self, now: u64, out: &mut [u8]) -> Popped<T> {
        let Some(first) = self.waiting.pop_front() else {
            self.codel.calm();
            return Popped::Empty;
        };
        let rest = self.bytes.len() - first.len;
        let waited = now.saturating_sub(first.since);
        // Less than one more packet like this one is no queue.
        let due = self.codel.is_due(waited, rest <= first.len, now);
        let len = first.len.min(out.len());
        let (a, b) = self.bytes.as_slices();
        let cut = a.len().min(len);
        out[..cut].copy_from_slice(&a[..cut]);
        out[cut..len].copy_from_slice(&b[..len - cut]);
        self.bytes.drain(..first.len);
        let spared = !first.understands && self.understand > 127;
        self.understand -= self.understand / 8;
        self.understand += if first.understands { 31 } else { 0 };
        let (beside, understands) = (first.beside, first.understands);
        match due {
            _ if understands && waited > DEAF && self.codel.loses(now) => {
                Popped::Dropped(beside, len)
            }
            // What TCP sends again, and its beginnings and mere acknowledgements, cannot be marked, and
            // are the last thing to lose.
            false => Popped::Packet(beside, len),
            true if spared => Popped::Packet(beside, len),
            true => {
                self.codel.told(now);
                if understands { Popped::Mark(beside, len) } else { Popped::Dropped(beside, len) }
            }
        }
    }
}

impl Codel {
    /// Nothing waits, or not for long.
    fn calm(&mut self) {
        (self.telling, self.first_above) = (None, None);
    }

    /// Whether the sender of a packet that waited so long is to be told (RFC 8289, section 5).
    fn is_due(&mut self, waited: u64, last: bool, now: u64) -> bool {
        if waited < TARGET || last {
            self.calm();
            return false;
        }
        let above = now >= *self.first_above.get_or_insert(now + INTERVAL);
        above && (self.telling.is_none() || now >= self.next)
    }

    /// A sender is told now. One that was told not long ago is told as often as it took then.
    fn told(&mut self, now: u64) {
        if self.telling.is_some() {
            self.count += 1;
            self.next += self.pause();
            return;
        }
        let steps = self.count - self.last_count;
        let lately = now.saturating_sub(self.next) < 16 * INTERVAL;
        self.count = if steps > 1 && lately { steps } else { 1 };
        self.last_count = self.count;
        self.next = now + self.pause();
        (self.telling, self.next_loss) = (Some(now), now + PATIENCE);
    }

    /// Whether senders have been told for so long that they do not seem to hear, and have not lost a
    /// packet just now.
    fn loses(&mut self, now: u64) -> bool {
        let unheard = self.telling.is_some() && now >= self.next_loss;
        if unheard {
            self.next_loss = now + INTERVAL;
        }
        unheard
    }

    fn pause(&self) -> u64 {
        (INTERVAL as f64 / (self.count as f64).sqrt()) as u64
    }
}
