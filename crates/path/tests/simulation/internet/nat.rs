//! NATs, by the two properties of RFC 4787: mapping and filtering.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use super::random::Random;

/// What a NAT does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping, address- and port-dependent filtering.
    PortRestricted,
    /// Address- and port-dependent mapping and filtering, with random ports.
    Symmetric,
    /// Passes nothing.
    Blocked,
}

pub(crate) const KINDS: [Kind; 4] =
    [Kind::FullCone, Kind::AddressRestricted, Kind::PortRestricted, Kind::Symmetric];

/// A mapping that is not used for this long is forgotten.
const LIFETIME: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Mapping {
    inside: SocketAddr,
    /// Whom the inside has written to.
    contacts: HashSet<SocketAddr>,
    used: Instant,
}

#[derive(Debug)]
pub(crate) struct Nat {
    kind: Kind,
    ip: Ipv4Addr,
    ports: HashMap<u16, Mapping>,
    next_port: u16,
}

impl Nat {
    pub(crate) fn new(kind: Kind, ip: Ipv4Addr) -> Self {
        Self { kind, ip, ports: HashMap::new(), next_port: 40_000 }
    }

    pub(crate) fn ip(&self) -> IpAddr {
        self.ip.into()
    }

    /// Forgets all mappings, as after a restart of the router.
    pub(crate) fn rebind(&mut self) {
        self.ports.clear();
        self.next_port += 100;
    }

    /// The source address that a datagram gets on its way out.
    pub(crate) fn outward(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
        random: &mut Random,
    ) -> Option<SocketAddr> {
        if self.kind == Kind::Blocked {
            return None;
        }
        self.ports.retain(|_, m| now - m.used < LIFETIME);
        let symmetric = self.kind == Kind::Symmetric;
        let same = |m: &Mapping| m.inside == from && (!symmetric || m.contacts.contains(&to));
        let found = self.ports.iter_mut().map(|(p, m)| (*p, m)).find(|(_, m)| same(m));
        let port = match found {
            Some((port, mapping)) => {
                mapping.contacts.insert(to);
                mapping.used = now;
                port
            }
            None => {
                let port = if symmetric {
                    loop {
                        let port = 20_000 + random.below(40_000) as u16;
                        if !self.ports.contains_key(&port) {
                            break port;
                        }
                    }
                } else {
                    self.next_port += 1;
                    self.next_port
                };
                let contacts = HashSet::from([to]);
                self.ports.insert(port, Mapping { inside: from, contacts, used: now });
                port
            }
        };
        Some(SocketAddr::new(self.ip.into(), port))
    }

    /// Where a datagram from outside goes, if it may come in.
    pub(crate) fn inward(
        &mut self,
        now: Instant,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Option<SocketAddr> {
        let mapping = self.ports.get_mut(&to.port())?;
        let admitted = match self.kind {
            Kind::FullCone => true,
            Kind::AddressRestricted => mapping.contacts.iter().any(|c| c.ip() == from.ip()),
            Kind::PortRestricted | Kind::Symmetric => mapping.contacts.contains(&from),
            Kind::Blocked => false,
        };
        if !admitted || now - mapping.used > LIFETIME {
            return None;
        }
        mapping.used = now;
        Some(mapping.inside)
    }
}
