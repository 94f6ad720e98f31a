//! One way to the peer, as far as it is known.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{Hop, Timing, mtu::MtuSearch};

/// Where a candidate is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Given by a person or a test.
    Given,
    /// The peer's signed record.
    Record,
    /// Told by the peer through the session.
    Told,
    /// Something came from there.
    Heard,
    /// A relay set it up.
    Relay,
}

/// A probe on its way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InFlight {
    pub(crate) token: u64,
    pub(crate) sent: Instant,
    /// The size of the UDP payload, if it is a probe for the MTU.
    pub(crate) mtu: Option<u16>,
}

#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) hop: Hop,
    pub(crate) source: Source,
    pub(crate) added: Instant,
    /// When something authentic last came this way.
    pub(crate) heard: Option<Instant>,
    /// When a probe of ours was last answered this way.
    pub(crate) answered: Option<Instant>,
    pub(crate) rtt: Option<Duration>,
    pub(crate) in_flight: VecDeque<InFlight>,
    /// Time until the next probe; doubles with each.
    pub(crate) interval: Duration,
    pub(crate) next_probe: Option<Instant>,
    /// Probes lost since the last sign of life.
    pub(crate) losses: u32,
    pub(crate) mtu: MtuSearch,
}

impl Candidate {
    pub(crate) fn new(hop: Hop, source: Source, now: Instant, timing: &Timing) -> Self {
        Self {
            hop,
            source,
            added: now,
            heard: None,
            answered: None,
            rtt: None,
            in_flight: VecDeque::new(),
            interval: timing.first_probe,
            next_probe: None,
            losses: 0,
            mtu: MtuSearch::new(&hop),
        }
    }

    /// Probes again soon, and often at first.
    pub(crate) fn hurry(&mut self, now: Instant, timing: &Timing) {
        self.interval = timing.first_probe;
        self.next_probe = Some(now);
    }

    pub(crate) fn sign_of_life(&mut self, now: Instant) {
        self.heard = Some(now);
        self.losses = 0;
    }

    /// Takes note of an answered probe; `None` if no such probe is on its way.
    pub(crate) fn take(&mut self, token: u64) -> Option<InFlight> {
        let at = self.in_flight.iter().position(|p| p.token == token)?;
        self.in_flight.remove(at)
    }

    pub(crate) fn measured(&mut self, now: Instant, rtt: Duration) {
        self.answered = Some(now);
        self.sign_of_life(now);
        self.rtt = Some(match self.rtt {
            Some(old) => old.mul_f32(0.75) + rtt.mul_f32(0.25),
            None => rtt,
        });
    }

    /// How long to wait for the answer to a probe.
    pub(crate) fn patience(&self, timing: &Timing) -> Duration {
        let by_rtt = self.rtt.map_or(Duration::ZERO, |rtt| rtt * 3);
        by_rtt.max(timing.lost).min(Duration::from_secs(3))
    }

    /// Whether the hop has shown within `window` that it works.
    pub(crate) fn alive(&self, now: Instant, window: Duration) -> bool {
        self.heard.is_some_and(|heard| now.saturating_duration_since(heard) <= window)
    }
}
