//! One way for a datagram to reach a peer.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

/// A unique local prefix (RFC 4193) that never leaves the process.
const CARRIERS: [u8; 8] = [0xfd, b'g', b'o', b'l', b'e', b'm', 0, 1];
/// The same for carriers that are UDP sockets of their own.
const SOCKETS: [u8; 8] = [0xfd, b'g', b'o', b'l', b'e', b'm', 0, 2];

/// The address that stands for carrier number `id`: datagrams sent there do not leave by a UDP
/// socket but by whatever carries them instead.
pub fn carrier_addr(id: u64) -> SocketAddr {
    internal(CARRIERS, id)
}

/// The address that stands for carrier number `id` if that is a UDP socket which was opened to reach one
/// peer: a direct way, and no worse than another.
pub fn socket_addr(id: u64) -> SocketAddr {
    internal(SOCKETS, id)
}

/// Whether an address stands for a UDP socket that was opened to reach one peer.
pub fn is_socket(addr: SocketAddr) -> bool {
    matches!(addr.ip(), IpAddr::V6(ip) if ip.octets().starts_with(&SOCKETS))
}

fn internal(prefix: [u8; 8], id: u64) -> SocketAddr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&prefix);
    octets[8..].copy_from_slice(&id.to_be_bytes());
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), 1)
}

/// The number of the carrier that an address stands for.
pub fn carrier_id(addr: SocketAddr) -> Option<u64> {
    let IpAddr::V6(ip) = addr.ip() else { return None };
    let octets = ip.octets();
    let id = octets.strip_prefix(&CARRIERS).or_else(|| octets.strip_prefix(&SOCKETS))?;
    id.try_into().ok().map(u64::from_be_bytes)
}

/// Where a datagram for a peer is sent, or where one of its datagrams came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hop {
    /// Straight to the peer's address.
    Direct(SocketAddr),
    /// Through a relay, which knows the pair by the index of a session.
    Relay {
        /// The relay's address.
        relay: SocketAddr,
        /// The relay's number for this pair of nodes.
        session: u32,
    },
}

/// How desirable a kind of hop is; smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// No third party in between.
    Direct,
    /// Through a relay over UDP.
    Relay,
    /// Carried by something else than UDP, such as a TLS stream to a relay.
    Stream,
}

impl Hop {
    /// The address of the datagram on the wire.
    pub fn wire_addr(&self) -> SocketAddr {
        match *self {
            Self::Direct(addr) | Self::Relay { relay: addr, .. } => addr,
        }
    }

    /// Bytes put before each datagram on this hop.
    pub fn header_len(&self) -> usize {
        match self {
            Self::Direct(_) => 0,
            Self::Relay { .. } => 8,
        }
    }

    /// How desirable this kind of hop is.
    pub fn tier(&self) -> Tier {
        match self {
            Self::Direct(addr) if is_socket(*addr) => Tier::Direct,
            _ if carrier_id(self.wire_addr()).is_some() => Tier::Stream,
            Self::Direct(_) => Tier::Direct,
            Self::Relay { .. } => Tier::Relay,
        }
    }

    /// Whether a relay is in between.
    pub fn is_relayed(&self) -> bool {
        matches!(self, Self::Relay { .. })
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(addr) => write!(f, "direct {addr}"),
            Self::Relay { relay, session } => write!(f, "relay {relay} session {session}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_is_the_last_choice() {
        for id in [0, 7, u64::MAX] {
            let carrier = carrier_addr(id);
            assert_eq!(carrier_id(carrier), Some(id));
            assert_eq!(Hop::Direct(carrier).tier(), Tier::Stream);
            assert_eq!(Hop::Relay { relay: carrier, session: 1 }.tier(), Tier::Stream);
        }
        for id in [0, 7, u64::MAX] {
            let socket = socket_addr(id);
            assert!(is_socket(socket) && !is_socket(carrier_addr(id)));
            assert_eq!((carrier_id(socket), Hop::Direct(socket).tier()), (Some(id), Tier::Direct));
        }
        for addr in ["127.0.0.1:1", "[::1]:1", "[fd67:6f6c:656d::1]:1"] {
            let addr = addr.parse().unwrap();
            assert_eq!(carrier_id(addr), None);
            assert_eq!(Hop::Direct(addr).tier(), Tier::Direct);
            assert_eq!(Hop::Relay { relay: addr, session: 1 }.tier(), Tier::Relay);
        }
    }
}
