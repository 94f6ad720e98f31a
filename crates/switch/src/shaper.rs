//! Packets that wait because their sender is over its limit.
//!
//! A bounded queue, managed by CoDel (RFC 8289): a sender that adapts (TCP) is told early enough that
//! packets do not wait long, one that does not finds the queue full. Sans-IO, and nothing is
//! allocated after the start.
//!
//! What of RFC 8289 is not met: it is one queue for all flows of a member, which are its own affair.

use std::collections::VecDeque;

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
}

#[derive(Debug)]
struct Waiting<T> {
    beside: T,
    len: usize,
    since: u64,
}

/// What came of [`Shaper::pop`].
#[derive(Debug, PartialEq, Eq)]
pub enum Popped<T> {
    /// The next packet, and how long it is.
    Packet(T, usize),
    /// The next packet, by which its sender is to be told to slow down: mark it (ECN), or drop it
    /// and take another one.
    Late(T, usize),
    /// A packet that must go, marked or not: marks have not helped for long.
    Dropped(T, usize),
    /// Nothing waits.
    Empty,
}

#[derive(Debug, Default)]
struct Codel {
    /// When packets will have waited too long for a whole interval.
    first_above: Option<u64>,
    /// Since when senders are told; `None` while packets do not wait long.
    telling: Option<u64>,
    next_drop: u64,
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

    /// Adds a packet at time `now` (nanoseconds); false if there is no room for it. A packet always
    /// finds room in an empty queue.
    pub fn push(&mut self, beside: T, packet: &[u8], now: u64) -> bool {
        let full = self.bytes.len() + packet.len() > self.room || self.waiting.len() == MOST;
        if full && !self.is_empty() {
            return false;
        }
        self.bytes.extend(packet);
        self.waiting.push_back(Waiting { beside, len: packet.len(), since: now });
        true
    }

    /// Takes the first packet; its bytes are put into `out`, which must have room for any that was
    /// added: what is longer is cut off.
    pub fn pop(&mut self, now: u64, out: &mut [u8]) -> Popped<T> {
        let Some(first) = self.waiting.pop_front() else {
            self.codel.telling = None;
            self.codel.first_above = None;
            return Popped::Empty;
        };
        let rest = self.bytes.len() - first.len;
        let waited = now.saturating_sub(first.since);
        // Less than one more packet like this one is no queue.
        let late = self.codel.tells(waited, rest <= first.len, now);
        let len = first.len.min(out.len());
        let (a, b) = self.bytes.as_slices();
        let cut = a.len().min(len);
        out[..cut].copy_from_slice(&a[..cut]);
        out[cut..len].copy_from_slice(&b[..len - cut]);
        self.bytes.drain(..first.len);
        match late {
            false => Popped::Packet(first.beside, len),
            true if waited > DEAF && self.codel.unheard(now) => Popped::Dropped(first.beside, len),
            true => Popped::Late(first.beside, len),
        }
    }
}

impl Codel {
    /// Whether the sender of a packet that waited so long is to be told (RFC 8289, section 5).
    fn tells(&mut self, waited: u64, last: bool, now: u64) -> bool {
        let too_long = self.too_long(waited, last, now);
        if !too_long {
            self.telling = None;
            return false;
        }
        if self.telling.is_none() {
            self.telling = Some(now);
            self.enter(now);
            return true;
        }
        let due = now >= self.next_drop;
        if due {
            self.count += 1;
            self.next_drop += self.pause();
        }
        due
    }

    /// Whether senders have been told for so long that they do not seem to hear.
    fn unheard(&self, now: u64) -> bool {
        self.telling.is_some_and(|since| now - since > PATIENCE)
    }

    fn too_long(&mut self, waited: u64, last: bool, now: u64) -> bool {
        if waited < TARGET || last {
            self.first_above = None;
            return false;
        }
        let at = *self.first_above.get_or_insert(now + INTERVAL);
        now >= at
    }

    /// A sender that was told not long ago is told as often as it took then.
    fn enter(&mut self, now: u64) {
        let steps = self.count - self.last_count;
        let lately = now.saturating_sub(self.next_drop) < 16 * INTERVAL;
        self.count = if steps > 1 && lately { steps } else { 1 };
        self.last_count = self.count;
        self.next_drop = now + self.pause();
    }

    fn pause(&self) -> u64 {
        (INTERVAL as f64 / (self.count as f64).sqrt()) as u64
    }
}
