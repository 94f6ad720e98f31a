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
            Some(active) if self.suspect(now) => self.other_than(active, now),
            Some(_) => None,
            None => self.candidates.iter().filter(|c| c.heard.is_some()).min_by_key(rank),
        };
        if let Some(hop) = best.map(|c| c.hop) {
            self.switch(now, hop);
        }
    }

    /// The best of the others that answered since the active hop has owed an answer. If there is none, one
    /// on which the peer is heard now: where it sends to answers it, though those answers may be lost here.
    fn other_than(&self, active: Hop, now: Instant) -> Option<&Candidate> {
        let since = self.awaiting.unwrap_or(now);
        let answered = |c: &&Candidate| c.answered.is_some_and(|at| at >= since);
        let heard = |c: &&Candidate| c.heard.is_some_and(|at| at >= since + self.timing.suspect);
        let others = || self.candidates.iter().filter(|c| c.hop != active);
        let best = others().filter(answered).min_by_key(rank);
        best.or_else(|| others().filter(heard).min_by_key(rank))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Source, Timing};

    #[test]
    fn where_the_peer_is_heard_is_used_when_nothing_answers_and_not_before() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let direct = Hop::Direct("192.0.2.1:1".parse().unwrap());
        let relay = Hop::Relay { relay: "192.0.2.2:1".parse().unwrap(), session: 1 };
        let mut agent = Agent::new(Timing::default(), 1);
        agent.add_candidate(at(0), relay, Source::Relay);
        agent.handle_heard(at(0), direct);
        agent.session_up(at(0));
        agent.handle_sent(at(10));
        for ms in [500, 800] {
            agent.handle_heard(at(ms), relay);
            agent.handle_timeout(at(ms));
            assert_eq!(agent.active(), Some(direct), "after {ms} ms");
        }
        // What was heard before says nothing of now.
        agent.handle_timeout(at(950));
        assert_eq!(agent.active(), Some(direct));
        agent.handle_heard(at(960), relay);
        assert_eq!(agent.active(), Some(relay));
    }
}
