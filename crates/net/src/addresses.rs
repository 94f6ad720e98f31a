//! Where this node may be reached.

use std::net::{IpAddr, SocketAddr};

use parking_lot::Mutex;

use crate::MAX_RECORD_ADDRS;

/// The most addresses that others observed which are kept.
const MAX_OBSERVED: usize = 4;

/// Where this node may be reached: its own addresses, and those that others see it at.
#[derive(Debug)]
pub(crate) struct Addresses {
    listening: Vec<SocketAddr>,
    /// What to announce instead of what the interfaces have.
    fixed: Option<Vec<SocketAddr>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    own: Vec<SocketAddr>,
    /// Newest first.
    observed: Vec<SocketAddr>,
}

impl Addresses {
    pub(crate) fn new(listening: Vec<SocketAddr>, fixed: Option<Vec<SocketAddr>>) -> Self {
        let this = Self { listening, fixed, state: Mutex::default() };
        this.refresh();
        this
    }

    /// Looks at the interfaces again; says whether anything changed.
    pub(crate) fn refresh(&self) -> bool {
        let mut own = self.fixed.clone().unwrap_or_else(|| self.own());
        own.sort();
        let mut state = self.state.lock();
        let changed = state.own != own;
        if changed {
            // What was observed belonged to the former addresses.
            state.observed.clear();
        }
        state.own = own;
        changed
    }

    fn own(&self) -> Vec<SocketAddr> {
        let interfaces = interface_ips();
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

/// The addresses of all interfaces that others may reach.
fn interface_ips() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let ips = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        let v6 = || address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
        v4.or_else(v6)
    });
    ips.filter(|ip| reachable(*ip)).collect()
}

fn reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        // Link-local addresses mean nothing without the interface.
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_and_observed_ones_kept() {
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
