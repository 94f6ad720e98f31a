//! Which relays this node names in its record, its home first.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{Action, Home, MAX_RELAYS, Request, relay::Relay};

/// Another relay becomes home if its round trip is less than three quarters of the home's, and so
/// much shorter.
const CLEARLY: Duration = Duration::from_millis(5);

impl Home {
    /// The relays that this node was told to use and that are connected, its home first, then by
    /// round trip.
    pub fn named(&self) -> Vec<SocketAddr> {
        let mut named: Vec<_> =
            self.at().map(|(rtt, addr)| (self.home != Some(addr), rtt, addr)).collect();
        named.sort();
        named.into_iter().map(|(.., addr)| addr).take(MAX_RELAYS).collect()
    }

    /// The relay that is this node's home.
    pub fn home(&self) -> Option<SocketAddr> {
        self.home
    }

    /// This node is reached at other addresses: all relays are told.
    pub fn publish(&mut self, _now: Instant) {
        let all: Vec<_> =
            self.relays.iter().filter_map(Relay::connection).map(|c| c.call).collect();
        all.into_iter().for_each(|call| self.register(call));
    }

    /// Chooses the home among the relays at hand.
    pub(crate) fn choose(&mut self, now: Instant) {
        let Some(nearest) = self.at().min() else { return };
        let home = match self.home.and_then(|home| self.relays.iter().find(|r| r.addr == home)) {
            Some(Relay { lost: Some(lost), addr, .. }) if self.rtt(*addr).is_none() => {
                // It may be back in a moment.
                let gone = now.saturating_duration_since(*lost) >= self.timing.gone;
                if gone { nearest.1 } else { *addr }
            }
            Some(Relay { addr, .. }) => match (*addr, self.rtt(*addr)) {
                (addr, Some(rtt)) if !self.is_surely_nearer(now, nearest, (rtt, addr)) => addr,
                _ => nearest.1,
            },
            None => nearest.1,
        };
        if self.home.replace(home) != Some(home) {
            self.nearer = None;
            self.publish_by(now + self.timing.settle);
        }
    }

    /// Whether another relay is clearly nearer than the home: one that has just come, or one that is
    /// so all the time while the home is measured, for the answers that came late by chance are in its
    /// average for a while.
    fn is_surely_nearer(
        &mut self,
        now: Instant,
        (other_rtt, other): (Duration, SocketAddr),
        (home_rtt, home): (Duration, SocketAddr),
    ) -> bool {
        if other_rtt >= home_rtt * 3 / 4 || other_rtt + CLEARLY >= home_rtt {
            self.nearer = None;
            return false;
        }
        if self.connection(other).is_some_and(|connection| now < connection.measured) {
            return true;
        }
        let since = *self.nearer.get_or_insert(now);
        let timing = self.timing.clone();
        let Some(home) = self.connection(home) else { return true };
        if since < home.measured {
            return home.measured <= now;
        }
        if home.measured + timing.measure_again <= now {
            home.measure(now, &timing);
        }
        false
    }

    pub(crate) fn publish_by(&mut self, at: Instant) {
        self.publish_at = Some(self.publish_at.map_or(at, |known| known.min(at)));
    }

    /// Tells relays of changes, if it is time for that.
    pub(crate) fn publish_changes(&mut self, now: Instant) {
        self.choose(now);
        if self.publish_at.is_none_or(|at| at > now) {
            return;
        }
        self.publish_at = None;
        let named = self.named();
        let outdated = |relay: &Relay| {
            let connection = relay.connection()?;
            let told = &connection.told;
            let same = told.len() == named.len() && named.iter().all(|addr| told.contains(addr));
            (!same || told.first() != named.first()).then_some(connection.call)
        };
        let calls: Vec<u64> = self.relays.iter().filter_map(outdated).collect();
        calls.into_iter().for_each(|call| self.register(call));
    }

    /// Has a relay take this node's record of now.
    pub(crate) fn register(&mut self, call: u64) {
        let relays = self.named();
        let Some(relay) = self.relays.iter_mut().find(|r| r.call() == Some(call)) else { return };
        let addr = relay.addr;
        if let Some(connection) = relay.connection_mut() {
            connection.told.clone_from(&relays);
            let request = Request::Register { relays };
            self.actions.push_back(Action::Send { relay: addr, call, request });
        }
    }

    /// Relays that may be home.
    fn at(&self) -> impl Iterator<Item = (Duration, SocketAddr)> + '_ {
        let configured = self.relays.iter().filter(|relay| relay.configured);
        configured.filter_map(|relay| Some((relay.connection()?.rtt, relay.addr)))
    }

    fn rtt(&self, addr: SocketAddr) -> Option<Duration> {
        let relay = self.relays.iter().find(|relay| relay.addr == addr)?;
        relay.connection().map(|connection| connection.rtt)
    }
}
