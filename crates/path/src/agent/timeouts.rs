//! What an agent does by itself as time passes.

use std::time::{Duration, Instant};

use super::{Agent, Event};
use crate::{Hop, candidate::Candidate};

/// A measurement that was begun is finished even if the peer is no longer in use: candidates are
/// probed until their interval has grown to this many times the first.
const BEGUN: u32 = 16;
/// How often the driver is asked to look at the traffic while the peer is in use.
const LOOK: Duration = Duration::from_millis(100);

impl Agent {
    /// When [`handle_timeout`](Self::handle_timeout) wants to be called; `None` while nothing is
    /// to be done, which is so whenever the peer is not in use.
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        if !self.session {
            return None;
        }
        let in_use = self.in_use(now);
        let measuring = self.flows(now) || (self.suspect(now) && self.engaged(now));
        let probes = self.candidates.iter().flat_map(|c| {
            let due = c.next_probe.filter(|_| measuring || self.begun(c));
            let lost = c.in_flight.front().map(|p| p.sent + c.patience(&self.timing));
            due.into_iter().chain(lost)
        });
        let watching = in_use || measuring || (self.awaiting.is_some() && self.engaged(now));
        let look = watching.then(|| self.look.unwrap_or(now));
        probes.chain(look).chain(self.guess_timeout()).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if !self.session {
            return;
        }
        self.look = Some(now + LOOK);
        self.collect_losses(now);
        if self.engaged(now) {
            self.watch_active(now);
        } else {
            self.awaiting = None;
            self.distress = None;
        }
        self.probe_mtu(now);
        self.probe_candidates(now);
        self.choose(now);
        self.guess(now);
        self.tell_route();
    }

    /// The peer is used again after a pause.
    pub(super) fn resume(&mut self, now: Instant) {
        for candidate in &mut self.candidates {
            candidate.next_probe.get_or_insert(now + self.timing.first_probe);
        }
    }

    fn begun(&self, c: &Candidate) -> bool {
        c.interval < self.timing.first_probe * BEGUN
    }

    fn collect_losses(&mut self, now: Instant) {
        for candidate in &mut self.candidates {
            let patience = candidate.patience(&self.timing);
            while let Some(probe) = candidate.in_flight.front().copied() {
                if now.saturating_duration_since(probe.sent) < patience {
                    break;
                }
                candidate.in_flight.pop_front();
                candidate.losses = candidate.losses.saturating_add(1);
                let Some(size) = probe.mtu else { continue };
                // Only a path that works tells a size that is too large from a path that is gone.
                if candidate.heard.is_some_and(|heard| heard > probe.sent) {
                    candidate.mtu.lost(now, size, &self.timing);
                } else {
                    candidate.mtu.undecided(size);
                }
            }
        }
    }

    /// Asks the active hop for a sign of life when it is quiet, and looks elsewhere when it
    /// stays so.
    fn watch_active(&mut self, now: Instant) {
        let Some(hop) = self.active else { return };
        if !self.quiet(now) {
            return;
        }
        let asking =
            self.find(hop).is_some_and(|c| c.in_flight.back().is_some_and(|p| p.mtu.is_none()));
        if !asking {
            self.send_probe(now, hop, None);
        }
        let known = self.candidates.iter().find(|c| c.hop == hop);
        let patience = known.map_or(self.timing.lost, |c| c.patience(&self.timing));
        if self.distress.is_none() && self.owed(now) >= Some(self.timing.quiet + patience) {
            self.distress = Some((now, 0));
            self.hurry_all(now);
        }
        if self.suspect(now) {
            self.raise_distress(now);
        }
    }

    fn raise_distress(&mut self, now: Instant) {
        let Some((last, times)) = self.distress else { return };
        let wait = if times == 0 {
            Duration::ZERO
        } else {
            (self.timing.suspect * times).min(self.timing.despair * 4)
        };
        if now.saturating_duration_since(last) >= wait {
            self.distress = Some((now, times.saturating_add(1)));
            self.events.push_back(Event::Distress);
        }
    }

    fn probe_mtu(&mut self, now: Instant) {
        let Some(hop) = self.active else { return };
        if self.quiet(now) {
            return;
        }
        let (flows, searching) = (self.flows(now), self.sent_within(now, self.timing.searching));
        let size = self.find(hop).and_then(|c| {
            c.heard?;
            let wanted = flows || (searching && c.mtu.is_searching());
            wanted.then(|| c.mtu.poll_probe(now, &hop)).flatten()
        });
        if let Some(size) = size {
            // A second probe, without padding, tells a large one's loss from the path's.
            self.send_probe(now, hop, Some(size));
            self.send_probe(now, hop, None);
        }
    }

    fn probe_candidates(&mut self, now: Instant) {
        let measuring = self.flows(now) || self.suspect(now);
        let due: Vec<Hop> = self
            .candidates
            .iter()
            .filter(|c| c.next_probe.is_some_and(|at| at <= now))
            .filter(|c| measuring || self.begun(c))
            .map(|c| c.hop)
            .collect();
        for hop in due {
            self.send_probe(now, hop, None);
            let longest = self.longest_interval(now, hop);
            let Some(candidate) = self.find(hop) else { continue };
            candidate.next_probe = Some(now + candidate.interval);
            candidate.interval = (candidate.interval * 2).min(longest);
        }
        if !measuring && !self.in_use(now) {
            for candidate in &mut self.candidates {
                if candidate.interval >= self.timing.first_probe * BEGUN {
                    candidate.next_probe = None;
                }
            }
        }
    }

    fn longest_interval(&self, now: Instant, hop: Hop) -> Duration {
        let better = self.active.is_none_or(|active| hop.tier() < active.tier());
        if self.suspect(now) {
            self.timing.despair
        } else if better {
            self.timing.upgrade
        } else {
            self.timing.standby
        }
    }
}
