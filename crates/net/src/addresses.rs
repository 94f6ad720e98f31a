//! Where this node may be reached.

use std::net::{IpAddr, SocketAddr};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    MAX_RECORD_ADDRS,
    filtering::Filtering,
    interfaces::{Exit, Interfaces},
    mapping::PortMapping,
    nat::{NatKind, Observations},
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
    moved: Notify,
    /// What the NAT lets in may have changed.
    filtering_doubted: Notify,
}

#[derive(Debug, Default)]
struct State {
    own: Vec<SocketAddr>,
    /// The ways out.
    exits: [Option<Exit>; 2],
    /// A port of the router's that leads here.
    mapping: PortMapping,
    observations: Observations,
    /// Newest first.
    observed: Vec<SocketAddr>,
    filtering: Filtering,
}

impl Addresses {
    /// Those of the network namespace of the present thread.
    pub(crate) fn new(listening: Vec<SocketAddr>, fixed: Option<Vec<SocketAddr>>) -> Self {
        let interfaces = Interfaces::here();
        let (state, moved, filtering_doubted) = (Mutex::default(), Notify::new(), Notify::new());
        let this = Self { listening, fixed, interfaces, state, moved, filtering_doubted };
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
        (state.own, state.exits) = (own, exits);
        changed
    }

    /// This node moved: what others observed may not be so any more.
    pub(crate) fn displaced(&self) {
        let mut state = self.state.lock();
        state.observed.clear();
        state.observations.clear();
        state.filtering = Filtering::Unknown;
        drop(state);
        self.filtering_doubted.notify_one();
        self.moved.notify_one();
    }

    /// Returns when this node has moved. For one waiter.
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }

    /// The router towards the IPv4 Internet, and this node's address on its side.
    pub(crate) fn gateway(&self) -> Option<(IpAddr, IpAddr)> {
        let state = self.state.lock();
        let exit = state.exits[0].as_ref()?;
        exit.via.zip(exit.from)
    }

    /// The port that is listened on in the family of `ip`.
    pub(crate) fn port(&self, ip: IpAddr) -> Option<u16> {
        let same = |addr: &&SocketAddr| addr.is_ipv4() == ip.is_ipv4();
        self.listening.iter().find(same).map(SocketAddr::port)
    }

    /// What the router says about a port; says whether that is news to others.
    pub(crate) fn map(&self, mapping: PortMapping) -> bool {
        let mut state = self.state.lock();
        // While the router is asked again, what it said last still holds.
        if mapping == PortMapping::Asking && matches!(state.mapping, PortMapping::Mapped { .. }) {
            return false;
        }
        let news = state.mapping != mapping;
        state.mapping = mapping;
        news
    }

    /// What the router said about a port.
    pub(crate) fn mapping(&self) -> PortMapping {
        self.state.lock().mapping.clone()
    }

    /// The NAT that this node is behind, as far as known.
    pub(crate) fn nat(&self) -> NatKind {
        let state = self.state.lock();
        state.observations.kind(&state.own)
    }

    /// What gets in from outside, as far as known.
    pub(crate) fn filtering(&self) -> Filtering {
        self.state.lock().filtering
    }

    /// What gets in is this.
    pub(crate) fn filters(&self, filtering: Filtering) {
        self.state.lock().filtering = filtering;
    }

    /// A relay came, or sees this node elsewhere: what gets in may have changed, or show now.
    pub(crate) fn doubt_filtering(&self) {
        self.filtering_doubted.notify_one();
    }

    /// Returns when what gets in is to be found out. For one waiter.
    pub(crate) async fn filtering_in_doubt(&self) {
        self.filtering_doubted.notified().await;
    }

    /// Where an observer sees this node.
    pub(crate) fn seen_by(&self, by: SocketAddr) -> Option<SocketAddr> {
        self.state.lock().observations.by(by)
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

    /// The node at `by` sees this one at `addr`; says whether that is a new address.
    pub(crate) fn observe(&self, by: SocketAddr, addr: SocketAddr) -> bool {
        let mut state = self.state.lock();
        // Who says the same again tells nothing new, even if others crowded it out.
        let changed = state.observations.add(by, addr);
        if !changed || state.own.contains(&addr) || state.observed.contains(&addr) {
            return false;
        }
        state.observed.insert(0, addr);
        state.observed.truncate(MAX_OBSERVED);
        true
    }

    /// All of them, own ones first.
    pub(crate) fn all(&self) -> Vec<SocketAddr> {
        let state = self.state.lock();
        let mapped = match &state.mapping {
            PortMapping::Mapped { addr, .. } => Some(addr),
            _ => None,
        };
        let mut all: Vec<SocketAddr> = state.own.clone();
        for addr in mapped.into_iter().chain(&state.observed) {
            if !all.contains(addr) {
                all.push(*addr);
            }
        }
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
        let by = "192.0.2.7:7".parse().unwrap();
        assert!(addresses.observe(by, seen));
        assert!(!addresses.observe(by, seen));
        assert_eq!(addresses.all().len(), 2);
        for port in 10..20 {
            addresses.observe(by, SocketAddr::new(seen.ip(), port));
        }
        assert_eq!(addresses.observed().len(), MAX_OBSERVED);
        assert_eq!(addresses.observed()[0].port(), 19);
        // More observers than are kept, each of which sees another address: a symmetric NAT.
        let observers = |i: u8| (SocketAddr::new([192, 0, 2, i].into(), 7), 100 + u16::from(i));
        let observe = |(by, port)| addresses.observe(by, SocketAddr::new(seen.ip(), port));
        assert!((10..18).map(observers).all(observe));
        assert!(!(10..18).map(observers).any(observe), "what they say again is no news");
        assert!(!addresses.refresh());
    }
}
