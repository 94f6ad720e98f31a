//! Addresses that QUIC sees. Every connection has a virtual one, so that QUIC never notices which
//! way its packets really take.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A unique local prefix (RFC 4193): these addresses never leave the process.
const PREFIX: [u8; 8] = [0xfd, b'g', b'o', b'l', b'e', b'm', 0, 0];
const PORT: u16 = 1;

/// The address that stands for connection number `id`.
pub(crate) fn address(id: u64) -> SocketAddr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&PREFIX);
    octets[8..].copy_from_slice(&id.to_be_bytes());
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), PORT)
}

/// The number of the connection that an address stands for.
pub(crate) fn id(address: SocketAddr) -> Option<u64> {
    let IpAddr::V6(ip) = address.ip() else { return None };
    let octets = ip.octets();
    let id = octets.strip_prefix(&PREFIX)?;
    Some(u64::from_be_bytes(id.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip() {
        for n in [0, 1, u64::MAX] {
            assert_eq!(id(address(n)), Some(n));
        }
        assert_eq!(id("[::1]:1".parse().unwrap()), None);
        assert_eq!(id("127.0.0.1:1".parse().unwrap()), None);
    }
}
