//! Which hop is used.

use std::time::{Duration, Instant};

use super::{Agent, Event};
use crate::candidate::Candidate;

/// A hop of the same tier must beat the active one's round trip by this factor and this much.
const CLEARLY_BETTER: f32 = 0.75;
const CLEARLY: Duration = Duration::from_millis(5);

impl Agent {
    /// Whether the active hop owes an answer for a while.
    pub(super) fn quiet(&self, now: Instant) -> bool {
        self.owed(now).is_some_and(|owed| owed >= self.timing.quiet)
    }

    /// Whether the active hop owes an answer for so long that any other is better.
    pub(super) fn suspect(&self, now: Instant) -> bool {
        self.owed(now).is_some_and(|owed| owed >= self.timing.suspect)
    }

    fn owed(&self, now: Instant) -> Option<Duration> {
        self.awaiting.map(|since| now.saturating_duration_since(since))
    }

    /// Looks whether another hop should be used.
    pub(super) fn choose(&mut self, now: Instant) {
        let Some(active) =
            self.active.and_then(|hop| self.candidates.iter().find(|c| c.hop == hop))
        else {
            let first = self.candidates.iter().filter(|c| c.heard.is_some());
            if let Some(hop) = first.min_by_key(|c| rank(c)).map(|c| c.hop) {
                self.switch(now, hop);
            }
            return;
        };
        let best = if self.suspect(now) {
            let since = self.awaiting.unwrap_or(now);
            self.candidates
                .iter()
                .filter(|c| c.hop != active.hop && c.answered.is_some_and(|at| at >= since))
                .min_by_key(|c| rank(c))
        } else {
            let window = self.timing.suspect * 2;
            self.candidates
                .iter()
                .filter(|c| c.answered.is_some() && c.alive(now, window) && better(c, active))
                .min_by_key(|c| rank(c))
        };
        if let Some(hop) = best.map(|c| c.hop) {
            self.switch(now, hop);
        }
    }

    fn switch(&mut self, now: Instant, hop: crate::Hop) {
        self.active = Some(hop);
        self.awaiting = None;
        self.distress = None;
        let timing = self.timing.clone();
        for candidate in &mut self.candidates {
            // The others are measured at leisure from now on.
            if candidate.hop != hop && candidate.alive(now, timing.suspect) {
                candidate.interval = timing.standby;
            }
        }
        self.tell_route();
    }

    /// Tells the route if it is not the one last told.
    pub(super) fn tell_route(&mut self) {
        let Some(active) =
            self.active.and_then(|hop| self.candidates.iter().find(|c| c.hop == hop))
        else {
            return;
        };
        let route = (active.hop, active.mtu.mtu());
        if self.told != Some(route) {
            self.told = Some(route);
            self.events.push_back(Event::Route { hop: route.0, mtu: route.1 });
        }
    }
}

fn rank(c: &Candidate) -> (crate::Tier, Duration) {
    (c.hop.tier(), c.rtt.unwrap_or(Duration::MAX))
}

fn better(c: &Candidate, active: &Candidate) -> bool {
    if c.hop.tier() != active.hop.tier() {
        return c.hop.tier() < active.hop.tier();
    }
    match (c.rtt, active.rtt) {
        (Some(new), Some(old)) => new < old.mul_f32(CLEARLY_BETTER) && new + CLEARLY < old,
        _ => false,
    }
}
