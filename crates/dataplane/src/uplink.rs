//! What this node's members may send to other nodes, all together, shared evenly among them.
//!
//! A provider whose own line is slower than its members can send says how fast it is, and packets
//! then wait here, where each member has a queue of its own, and not in a router, where many flows get more
//! than one. Whose turn it is follows start-time fair queueing (Goyal, Vin, Cheng, 1996): each
//! port has a tag, the bytes that it has sent; the smallest tag is next; who had nothing to send
//! begins where the others are, or a little before.
//!
//! Each thread has a line of its ports. Threads tell each other the smallest tag of their lines, and
//! none runs far ahead of the others.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use gvpn_switch::{Bucket, Rate};

/// How far ahead of its rate the line may be, in nanoseconds: threads wake up late.
const BURST: u64 = 10_000_000;
/// How much more than a port of another thread, in bytes, a port may have sent, and how much a port
/// that had nothing to send may catch up: so many bytes, or what the line carries in 4 ms.
const AHEAD: u64 = 16 * 1024;
/// When a thread whose turn it is not looks again.
const AGAIN: u64 = 1_000_000;
/// The longest that one packet should take: 2 ms, as parts of a second.
const COARSE: u64 = 500;
/// What a packet gets around it on its way: IPv4, UDP, seal.
const AROUND: u64 = 20 + 8 + 32;

/// The line out of this node, as all threads see it.
#[derive(Debug)]
pub(crate) struct Uplink {
    bits_per_second: AtomicU64,
    bucket: Bucket,
    /// The largest tag that had its turn.
    reached: AtomicU64,
    /// The smallest tag that waits with each thread.
    waiting: Box<[AtomicU64]>,
}

impl Uplink {
    pub(crate) fn new(threads: usize) -> Self {
        Self {
            bits_per_second: AtomicU64::new(0),
            bucket: Bucket::default(),
            reached: AtomicU64::new(0),
            waiting: (0..threads).map(|_| AtomicU64::new(u64::MAX)).collect(),
        }
    }

    /// Sets how fast the line is; zero if that is not known.
    pub(crate) fn set(&self, bits_per_second: u64) {
        self.bits_per_second.store(bits_per_second, Relaxed);
    }

    /// The line, if it is known how fast it is.
    #[inline]
    pub(crate) fn known(&self) -> Option<&Self> {
        (self.bits_per_second.load(Relaxed) > 0).then_some(self)
    }

    /// Whether a packet that goes out must wait, for the line or for others.
    pub(crate) fn must_wait(&self, now: u64) -> bool {
        self.ready_at() > now || self.waiting.iter().any(|tag| tag.load(Relaxed) != u64::MAX)
    }

    /// Whether a super-packet of so many bytes is to be cut first.
    pub(crate) fn cuts(&self, bytes: usize) -> bool {
        bytes as u64 * 8 * COARSE > self.bits_per_second.load(Relaxed)
    }

    /// How many bytes of one port may wait: a tenth of a second's worth, within reason.
    pub(crate) fn room(&self) -> usize {
        (self.bits_per_second.load(Relaxed) / 80).clamp(128 << 10, 4 << 20) as usize
    }

    fn rate(&self) -> Rate {
        Rate { per_second: self.bits_per_second.load(Relaxed), burst: BURST }
    }

    fn ahead(&self) -> u64 {
        AHEAD.max(self.bits_per_second.load(Relaxed) / 8 / 250)
    }

    fn ready_at(&self) -> u64 {
        self.bucket.ready_at(self.rate())
    }
}

/// The ports of one thread that wait for the line.
#[derive(Debug, Default)]
pub(crate) struct Line {
    thread: usize,
    ports: BTreeSet<(u64, u64)>,
    tags: HashMap<u64, u64>,
}

impl Line {
    pub(crate) fn of_thread(thread: usize) -> Self {
        Self { thread, ..Self::default() }
    }

    /// A port has something to send.
    pub(crate) fn join(&mut self, uplink: Option<&Uplink>, port: u64) {
        let tag = uplink.map_or(0, |uplink| self.tag(uplink, port));
        self.ports.insert((tag, port));
    }

    /// Takes the port whose turn it is, if it may send now. Without `uplink` everybody may.
    pub(crate) fn next(&mut self, uplink: Option<&Uplink>, now: u64) -> Option<u64> {
        let Some(uplink) = uplink else { return Some(self.ports.pop_first()?.1) };
        let first = self.ports.first().map(|(tag, _)| *tag);
        if let Some(mine) = uplink.waiting.get(self.thread) {
            mine.store(first.unwrap_or(u64::MAX), Relaxed);
        }
        if uplink.ready_at() > now || self.is_ahead(uplink, first?) {
            return None;
        }
        Some(self.ports.pop_first()?.1)
    }

    /// When to ask for the [`next`](Self::next) one; `None` if nobody waits.
    pub(crate) fn due(&self, uplink: Option<&Uplink>, now: impl Fn() -> u64) -> Option<u64> {
        let (tag, _) = self.ports.first()?;
        let Some(uplink) = uplink else { return Some(now()) };
        let ready = uplink.ready_at();
        Some(if self.is_ahead(uplink, *tag) { ready.max(now() + AGAIN) } else { ready })
    }

    /// A port sends packets of so many bytes.
    pub(crate) fn charge(
        &mut self,
        uplink: &Uplink,
        port: u64,
        (bytes, packets): (u64, u64),
        now: u64,
    ) {
        let bytes = bytes + packets * AROUND;
        uplink.bucket.charge(uplink.rate(), bytes.saturating_mul(8), now);
        let tag = self.tag(uplink, port);
        uplink.reached.fetch_max(tag, Relaxed);
        self.tags.insert(port, tag + bytes);
    }

    /// A port is gone.
    pub(crate) fn forget(&mut self, port: u64) {
        self.tags.remove(&port);
        self.ports.retain(|(_, other)| *other != port);
    }

    fn tag(&self, uplink: &Uplink, port: u64) -> u64 {
        let least = uplink.reached.load(Relaxed).saturating_sub(uplink.ahead());
        self.tags.get(&port).map_or(least, |tag| least.max(*tag))
    }

    fn is_ahead(&self, uplink: &Uplink, tag: u64) -> bool {
        let others = uplink.waiting.iter().enumerate().filter(|(thread, _)| *thread != self.thread);
        let least = others.map(|(_, tag)| tag.load(Relaxed)).min();
        least.is_some_and(|least| tag > least.saturating_add(uplink.ahead()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const MBIT: u64 = 1_000_000;

    /// Ports with always something to send, by thread; what each sends in so many milliseconds.
    /// `sizes` are the packets of each port.
    fn run(
        uplink: &Uplink,
        lines: &mut [Line],
        sizes: &[(usize, u64, u64)],
        millis: u64,
    ) -> Vec<u64> {
        let mut sent = vec![0; sizes.len()];
        for (thread, port, _) in sizes {
            lines[*thread].join(Some(uplink), *port);
        }
        let mut due = vec![0; lines.len()];
        for now in (0..millis * MS).step_by(MS as usize / 4) {
            for (thread, line) in lines.iter_mut().enumerate() {
                if due[thread] > now {
                    continue;
                }
                while let Some(port) = line.next(Some(uplink), now) {
                    let at = sizes.iter().position(|(_, p, _)| *p == port).unwrap();
                    line.charge(uplink, port, (sizes[at].2, 1), now);
                    sent[at] += sizes[at].2 + AROUND;
                    line.join(Some(uplink), port);
                }
                // A thread sleeps whole milliseconds.
                let next = line.due(Some(uplink), || now);
                due[thread] = next.map_or(u64::MAX, |next| next.div_ceil(MS) * MS);
            }
        }
        for line in lines {
            line.ports.clear();
            line.next(Some(uplink), 0);
        }
        sent
    }

    fn lines(threads: usize) -> Vec<Line> {
        (0..threads).map(Line::of_thread).collect()
    }

    #[test]
    fn ports_send_the_same_whatever_their_packets_and_threads() {
        for mbit in [1, 20, 300] {
            for spread in [[0, 0, 0], [0, 0, 1], [0, 1, 2]] {
                let uplink = Uplink::new(3);
                uplink.set(mbit * MBIT);
                let sizes = [(spread[0], 1, 1340), (spread[1], 2, 200), (spread[2], 3, 60_000)];
                let sent = run(&uplink, &mut lines(3), &sizes, 4000);
                let all = 4 * mbit * MBIT / 8;
                let total: u64 = sent.iter().sum();
                assert!(
                    total.abs_diff(all) < all / 20 + 128 * 1024,
                    "{mbit} {spread:?}: {sent:?} of {all}"
                );
                for bytes in &sent {
                    let room = all / 60 + 128 * 1024;
                    assert!(bytes.abs_diff(all / 3) < room, "{mbit} {spread:?}: {sent:?} of {all}");
                }
            }
        }
    }

    #[test]
    fn who_was_silent_gets_no_more_than_the_others_later() {
        let uplink = Uplink::new(1);
        uplink.set(80 * MBIT);
        let mut lines = lines(1);
        run(&uplink, &mut lines, &[(0, 1, 1340)], 5000);
        let sent = run(&uplink, &mut lines, &[(0, 1, 1340), (0, 2, 1340)], 500);
        assert!(sent[0].abs_diff(sent[1]) < 128 * 1024, "{sent:?}");
    }

    #[test]
    fn without_a_known_speed_nobody_waits() {
        let uplink = Uplink::new(1);
        assert!(uplink.known().is_none());
        let mut line = Line::default();
        line.join(None, 7);
        assert_eq!(line.due(None, || 5), Some(5));
        assert_eq!(line.next(None, 5), Some(7));
        assert_eq!(line.next(None, 5), None);
    }

    #[test]
    fn a_port_that_is_gone_holds_nobody_up() {
        let uplink = Uplink::new(2);
        uplink.set(MBIT);
        let mut lines = lines(2);
        lines[0].join(Some(&uplink), 1);
        lines[0].next(Some(&uplink), 0);
        lines[0].join(Some(&uplink), 1);
        assert!(!uplink.must_wait(0) || uplink.ready_at() == 0);
        lines[0].forget(1);
        assert_eq!(lines[0].next(Some(&uplink), 0), None);
        assert!(!uplink.must_wait(0));
        lines[1].join(Some(&uplink), 2);
        assert_eq!(lines[1].next(Some(&uplink), 0), Some(2));
    }
}
