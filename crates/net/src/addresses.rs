//! Where this node may be reached.

use std::net::{IpAddr, SocketAddr};

use parking_lot::Mutex;

use crate::{
    MAX_RECORD_ADDRS,
    interfaces::{Exit, Interfaces},
};

/// The most addresses that others observed which are kept.
const MAX_OBSERVED: usize = 4;

/// Where this node may be reached: its own addresses, and those that others see it at.
#[derive(Debug)]
pub(crate) struct Addresses {
    listening: Vec<SocketAddr>,
    /// What to announce instead of what the interfaces have.
    fixed: Option<Vec<SocketAddr>>,
    interfaces: Interfaces,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    own: Vec<SocketAddr>,
    /// The ways out.
    exits: [Option<Exit>; 2],
    /// Newest first.
    observed: Vec<SocketAddr>,
}

impl Addresses {
    /// Those of the network namespace of the present thread.
    pub(crate) fn new(listening: Vec<SocketAddr>, fixed: Option<Vec<SocketAddr>>) -> Self {
        let interfaces = Interfaces::here();
        let this = Self { listening, fixed, interfaces, state: Mutex::default() };
        this.refresh();
        this
    }

    /// What the kernel says about the interfaces.
    pub(crate) fn interfaces(&self) -> &Interfaces {
        &self.interfaces
    }

    /// Looks at the interfaces again; says whether this node is reached, or leaves, another way.
    pub(crate) fn refresh(&self) -> bool {
        let mut own = self.fixed.clone().unwrap_or_else(|| self.own());
        own.sort();
        let exits = self.interfaces.exits();
        let mut state = self.state.lock();
        let changed = state.own != own || state.exits != exits;
        if changed {
            // What was observed belonged to the former addresses.
            state.observed.clear();
        }
        (state.own, state.exits) = (own, exits);
        changed
    }

    /// Forgets what others observed: it may not be so any more.
    pub(crate) fn forget_observed(&self) {
        self.state.lock().observed.clear();
    }

    fn own(&self) -> Vec<SocketAddr> {
        let interfaces = self.interfaces.addresses();
        let mut own = Vec::new();
        for listening in &self.listening {
            if listening.ip().is_unspecified() {
                let same = |ip: &&IpAddr| ip.is_ipv4() == listening.is_ipv4();
                let found = interfaces.iter().filter(same);
                own.extend(found.map(|ip| SocketAddr::new(*ip, listening.port())));
            } else {
                own.push(*listening);
            }
        }
        own
    }

    /// Another node sees this one at `addr`; says whether that is news.
    pub(crate) fn observe(&self, addr: SocketAddr) -> bool {
        let mut state = self.state.lock();
        if state.own.contains(&addr) || state.observed.contains(&addr) {
            return false;
        }
        state.observed.insert(0, addr);
        state.observed.truncate(MAX_OBSERVED);
        true
    }

    /// All of them, own ones first.
    pub(crate) fn all(&self) -> Vec<SocketAddr> {
        let state = self.state.lock();
        let mut all: Vec<_> = state.own.iter().chain(&state.observed).copied().collect();
        all.truncate(MAX_RECORD_ADDRS);
        all
    }

    /// Those that others observed, newest first.
    pub(crate) fn observed(&self) -> Vec<SocketAddr> {
        self.state.lock().observed.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_found_and_observed_ones_kept() {
        let addresses = Addresses::new(vec!["127.0.0.1:7".parse().unwrap()], None);
        assert_eq!(addresses.all(), ["127.0.0.1:7".parse().unwrap()]);
        let seen: SocketAddr = "192.0.2.1:9".parse().unwrap();
        assert!(addresses.observe(seen));
        assert!(!addresses.observe(seen));
        assert_eq!(addresses.all().len(), 2);
        for port in 10..20 {
            addresses.observe(SocketAddr::new(seen.ip(), port));
        }
        assert_eq!(addresses.observed().len(), MAX_OBSERVED);
        assert_eq!(addresses.observed()[0].port(), 19);
        assert!(!addresses.refresh());
    }
}
