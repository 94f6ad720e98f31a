//! Packetization-layer path MTU discovery (RFC 8899) on one hop.
//!
//! Sizes are of the UDP payload. The search goes up from what is known to work with padded
//! probes; a size counts as too large after [`TRIES`] losses. What is in use is confirmed from
//! time to time, so that a black hole is noticed without any help from routers.

use std::time::Instant;

use crate::{Hop, Timing};

/// QUIC needs this much, so that every path that carried a handshake in whole datagrams carries it.
pub const QUIC_MTU: u16 = 1200;
/// The UDP payload of the smallest IPv4 datagram that every host must accept (576 bytes).
pub const MIN_MTU: u16 = 548;
/// Losses until a size is taken as too large.
const TRIES: u8 = 3;
/// The search ends when the bounds are this close.
const GRAIN: u16 = 8;

#[derive(Debug, Clone)]
pub(crate) struct MtuSearch {
    /// Known, or at first assumed, to work.
    works: u16,
    /// Known not to work.
    fails: u16,
    /// Sizes to try before halving the interval, best guess last.
    guesses: Vec<u16>,
    trying: Option<Trial>,
    /// Whether a probe has shown that `works` does.
    confirmed: bool,
    /// When to look again.
    next: Option<Instant>,
    /// When to try larger sizes again.
    raise: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    size: u16,
    losses: u8,
    in_flight: bool,
}

impl MtuSearch {
    pub(crate) fn new(hop: &Hop) -> Self {
        let overhead = if hop.wire_addr().is_ipv4() { 28 } else { 48 };
        Self {
            works: QUIC_MTU,
            fails: 9000 - overhead + 1,
            guesses: [9000, 1280, 1400, 1420, 1492, 1500].map(|mtu| mtu - overhead).to_vec(),
            trying: None,
            confirmed: false,
            next: None,
            raise: None,
        }
    }

    /// Full-size datagrams of a handshake may not pass: the search begins far below, unless it has
    /// shown already that they do.
    pub(crate) fn narrow(&mut self) {
        if !self.confirmed && self.works > MIN_MTU {
            self.works = MIN_MTU;
            self.trying = None;
            self.guesses.push(QUIC_MTU);
        }
    }

    /// The largest UDP payload to use.
    pub(crate) fn mtu(&self) -> u16 {
        self.works
    }

    /// Whether what the path carries is not known yet.
    pub(crate) fn is_searching(&self) -> bool {
        self.next.is_none()
    }

    /// The size to probe now, if any. Called only while payload flows.
    pub(crate) fn poll_probe(&mut self, now: Instant, hop: &Hop) -> Option<u16> {
        if self.raise.is_some_and(|raise| now >= raise) {
            self.restart(hop);
        }
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        if let Some(trial) = &mut self.trying {
            if trial.in_flight {
                return None;
            }
            trial.in_flight = true;
            return Some(trial.size);
        }
        let size = if self.confirmed { self.choose() } else { None }.unwrap_or(self.works);
        self.trying = Some(Trial { size, losses: 0, in_flight: true });
        Some(size)
    }

    /// A padded probe of this size came back.
    pub(crate) fn acked(&mut self, now: Instant, size: u16, timing: &Timing) {
        self.works = self.works.max(size);
        self.fails = self.fails.max(self.works + 1);
        self.confirmed |= size >= self.works;
        if self.trying.is_some_and(|t| t.size <= size) {
            self.trying = None;
        }
        self.schedule(now, timing);
    }

    /// A padded probe of this size did not come back, though the path works.
    pub(crate) fn lost(&mut self, now: Instant, size: u16, timing: &Timing) {
        let Some(trial) = self.trying.as_mut().filter(|t| t.size == size) else { return };
        trial.in_flight = false;
        trial.losses += 1;
        if trial.losses >= TRIES {
            self.too_large(now, size, timing);
        }
    }

    /// A padded probe was lost together with others: it says nothing about its size.
    pub(crate) fn undecided(&mut self, size: u16) {
        if let Some(trial) = self.trying.as_mut().filter(|t| t.size == size) {
            trial.in_flight = false;
        }
    }

    /// Datagrams of this size do not go through.
    pub(crate) fn too_large(&mut self, now: Instant, size: u16, timing: &Timing) {
        self.trying = None;
        self.fails = self.fails.min(size.max(MIN_MTU + 1));
        if self.works >= self.fails {
            // What worked no longer does: fall back to what must work, then search again.
            self.works = if self.fails > QUIC_MTU { QUIC_MTU } else { MIN_MTU };
            self.confirmed = false;
            let works = self.works;
            self.guesses = [1252, 1372, 1452].into_iter().filter(|g| *g > works).collect();
        }
        self.schedule(now, timing);
    }

    /// Forgets what failed: the path may have changed.
    pub(crate) fn restart(&mut self, hop: &Hop) {
        let works = self.works;
        *self = Self { works, ..Self::new(hop) };
        if works < QUIC_MTU {
            self.guesses.push(QUIC_MTU);
        }
    }

    fn schedule(&mut self, now: Instant, timing: &Timing) {
        let searching = !self.confirmed
            || self.fails - self.works > GRAIN
            || self.guesses.iter().any(|g| self.open(*g));
        self.next = (!searching).then(|| now + timing.confirm_mtu);
        if searching {
            self.raise = None;
        } else if self.raise.is_none() {
            self.raise = Some(now + timing.raise_mtu);
        }
    }

    fn choose(&mut self) -> Option<u16> {
        while let Some(guess) = self.guesses.pop() {
            if self.open(guess) {
                return Some(guess);
            }
        }
        let gap = self.fails - self.works;
        (gap > GRAIN).then(|| self.works + gap / 2)
    }

    fn open(&self, size: u16) -> bool {
        size > self.works && size < self.fails
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Runs the search on a path that carries `real` until it settles; returns result and probes.
    fn settle(search: &mut MtuSearch, real: u16) -> (u16, usize) {
        let timing = Timing::default();
        let mut now = Instant::now();
        let mut probes = 0;
        while let Some(size) = search.poll_probe(now, &v4()) {
            now += Duration::from_millis(10);
            probes += 1;
            if size <= real {
                search.acked(now, size, &timing);
            } else {
                search.lost(now, size, &timing);
            }
            assert!(probes < 100, "the search ends");
        }
        (search.mtu(), probes)
    }

    fn v4() -> Hop {
        Hop::Direct("192.0.2.1:1".parse().unwrap())
    }

    #[test]
    fn finds_what_the_path_carries() {
        for (underlay, most_probes) in
            [(1280, 40), (1400, 40), (1492, 40), (1500, 40), (4000, 60), (9000, 10)]
        {
            let (mtu, probes) = settle(&mut MtuSearch::new(&v4()), underlay - 28);
            assert!(mtu <= underlay - 28 && mtu + GRAIN > underlay - 28, "{underlay}: {mtu}");
            assert!(probes <= most_probes, "{underlay}: {probes} probes");
        }
    }

    #[test]
    fn a_path_below_the_base_is_found_out() {
        let mut search = MtuSearch::new(&v4());
        let (mtu, _) = settle(&mut search, 548);
        assert_eq!(mtu, 548);
        let mut search = MtuSearch::new(&v4());
        let (mtu, _) = settle(&mut search, 972);
        assert!(mtu <= 972 && mtu + GRAIN > 972, "{mtu}");
    }

    #[test]
    fn a_black_hole_lowers_and_a_restart_raises() {
        let timing = Timing::default();
        let mut search = MtuSearch::new(&v4());
        assert_eq!(settle(&mut search, 1472).0, 1472);
        let now = Instant::now() + timing.confirm_mtu * 2;
        assert_eq!(search.poll_probe(now, &v4()), Some(1472), "what is in use is confirmed");
        search.lost(now, 1472, &timing);
        for _ in 0..2 {
            assert_eq!(search.poll_probe(now, &v4()), Some(1472));
            search.lost(now, 1472, &timing);
        }
        assert_eq!(search.mtu(), 1200);
        let (mtu, _) = settle(&mut search, 1372);
        assert!(mtu <= 1372 && mtu + GRAIN > 1372, "{mtu}");
        search.restart(&v4());
        assert_eq!(settle(&mut search, 1472).0, 1472);
    }

    #[test]
    fn a_path_that_seemed_narrow_is_found_wide_soon() {
        for real in [548, 1000, 1252, 1472] {
            let mut search = MtuSearch::new(&v4());
            search.narrow();
            assert_eq!(search.mtu(), MIN_MTU);
            let (mtu, _) = settle(&mut search, real);
            assert!(mtu <= real && mtu + GRAIN > real, "{real}: {mtu}");
        }
        let mut search = MtuSearch::new(&v4());
        settle(&mut search, 1472);
        search.narrow();
        assert_eq!(search.mtu(), 1472);
    }
}
