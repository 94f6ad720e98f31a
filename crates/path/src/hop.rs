//! One way for a datagram to reach a peer.

use std::{fmt, net::SocketAddr};

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
    /// Through a relay over a TLS stream.
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
            Self::Direct(_) => Tier::Direct,
            // A stream to a relay ends in a proxy on this machine.
            Self::Relay { relay, .. } if relay.ip().is_loopback() => Tier::Stream,
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
