//! Which hop is used.

use std::time::{Duration, Instant};

use super::{Agent, Event};
use crate::{Hop, Tier, candidate::Candidate};

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

    pub(super) fn owed(&self, now: Instant) -> Option<Duration> {
        self.awaiting.map(|since| now.saturating_duration_since(since))
    }

    /// Looks for a hop if there is none, and for another if the active one does not answer.
    pub(super) fn choose(&mut self, now: Instant) {
        let best = match self.active {
            Some(active) if self.suspect(now) => {
                let since = self.awaiting.unwrap_or(now);
                let alive = |c: &&Candidate| c.answered.is_some_and(|at| at >= since);
                self.candidates.iter().filter(|c| c.hop != active).filter(alive).min_by_key(rank)
            }
            Some(_) => None,
            None => self.candidates.iter().filter(|c| c.heard.is_some()).min_by_key(rank),
        };
        if let Some(hop) = best.map(|c| c.hop) {
            self.switch(now, hop);
        }
    }

    /// A hop has just answered a probe: looks whether it is better than the active one.
    pub(super) fn promote(&mut self, now: Instant, hop: Hop) {
        let known = |hop| self.candidates.iter().find(|c| c.hop == hop);
        let Some(active) = self.active.and_then(known) else { return self.choose(now) };
        if known(hop).is_some_and(|c| better(c, active)) {
            self.switch(now, hop);
        } else {
            self.choose(now);
        }
    }

    fn switch(&mut self, now: Instant, hop: Hop) {
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

fn rank(c: &&Candidate) -> (Tier, Duration) {
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
