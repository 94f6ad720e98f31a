//! What kind of NAT this node is behind, judged by where others see it.

use std::{collections::HashMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

/// The most observers that are remembered.
const MAX_OBSERVERS: usize = 32;

/// What a NAT makes of this node's address (RFC 4787, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NatKind {
    /// Nobody has told yet.
    #[default]
    Unknown,
    /// Others see this node at an address of its own.
    None,
    /// There is one, and only one observer, so that nothing more can be said.
    Present,
    /// Every destination sees the same address and port: direct paths can be made to most peers.
    EndpointIndependent,
    /// Each destination sees another port ("symmetric"): direct paths can be made to peers that
    /// have no such NAT and are not strict about whom they hear.
    AddressDependent,
}

impl NatKind {
    /// In a few words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Unknown => "not known yet: no relay or peer has told where it sees this node",
            Self::None => "none: others see this node at an address of its own",
            Self::Present => "there is one; its kind shows once a second relay or peer is reached",
            Self::EndpointIndependent => {
                "endpoint-independent: every destination sees the same address and port"
            }
            Self::AddressDependent => {
                "address-dependent (symmetric): each destination sees another port"
            }
        }
    }
}

/// Where others see this node: by observer.
#[derive(Debug, Default)]
pub(crate) struct Observations {
    seen: HashMap<SocketAddr, SocketAddr>,
}

impl Observations {
    /// Whether the observer sees this node somewhere else than before.
    pub(crate) fn add(&mut self, by: SocketAddr, seen: SocketAddr) -> bool {
        if self.seen.len() >= MAX_OBSERVERS && !self.seen.contains_key(&by) {
            self.seen.clear();
        }
        self.seen.insert(by, seen) != Some(seen)
    }

    /// Where an observer sees this node.
    pub(crate) fn by(&self, by: SocketAddr) -> Option<SocketAddr> {
        self.seen.get(&by).copied()
    }

    pub(crate) fn clear(&mut self) {
        self.seen.clear();
    }

    /// The NAT in front of a node with these addresses of its own; that of IPv4 if there is IPv4.
    pub(crate) fn kind(&self, own: &[SocketAddr]) -> NatKind {
        let of = |four: bool| {
            let family = self.seen.values().filter(|seen| seen.is_ipv4() == four);
            judge(family.copied().collect(), own)
        };
        match of(true) {
            NatKind::Unknown => of(false),
            kind => kind,
        }
    }
}

/// `seen` has one address for each observer.
fn judge(seen: Vec<SocketAddr>, own: &[SocketAddr]) -> NatKind {
    // Whoever is on this side of the NAT sees the node's own address and tells nothing about it.
    let is_own = |addr: &SocketAddr| own.contains(addr);
    let outside: Vec<_> = seen.iter().filter(|addr| !is_own(addr)).collect();
    match outside.as_slice() {
        [] if seen.is_empty() => NatKind::Unknown,
        [] => NatKind::None,
        [_] => NatKind::Present,
        [first, rest @ ..] if rest.iter().all(|addr| addr == first) => NatKind::EndpointIndependent,
        _ => NatKind::AddressDependent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_observers_tell_the_kind() {
        let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
        let own = [addr("192.168.1.2:7")];
        let (one, two, lan) = (addr("192.0.2.1:1"), addr("192.0.2.2:1"), addr("192.168.1.3:1"));
        let kind = |seen: &[(SocketAddr, &str)]| {
            let mut observations = Observations::default();
            for (by, at) in seen {
                observations.add(*by, addr(at));
            }
            observations.kind(&own)
        };
        assert_eq!(kind(&[]), NatKind::Unknown);
        assert_eq!(kind(&[(lan, "192.168.1.2:7")]), NatKind::None);
        assert_eq!(kind(&[(one, "203.0.113.1:9")]), NatKind::Present);
        assert_eq!(
            kind(&[(one, "203.0.113.1:9"), (lan, "192.168.1.2:7"), (two, "203.0.113.1:9")]),
            NatKind::EndpointIndependent
        );
        assert_eq!(
            kind(&[(one, "203.0.113.1:9"), (two, "203.0.113.1:10")]),
            NatKind::AddressDependent
        );
    }
}
