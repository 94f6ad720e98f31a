//! Addresses that nobody has to choose.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gvpn_model::NodeId;
use ipnet::{IpNet, Ipv6Net};
use sha2::{Digest as _, Sha256};

/// A unique local IPv6 prefix (RFC 4193): `fd`, a 40-bit global id from `seed`, subnet 0, /64.
///
/// `seed` should hold at least 40 bits of randomness.
pub fn generate_ula(seed: &[u8]) -> IpNet {
    let digest = Sha256::new().chain_update(b"gvpn ula v1").chain_update(seed).finalize();
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&digest[..5]);
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::from(octets), 64))
}

/// The address in `prefix` that follows from a node and a name: the same on every run. `attempt`
/// tells further candidates apart when one is taken. It may be no host's address: check it.
pub fn derived_address(prefix: IpNet, node: NodeId, name: &str, attempt: u32) -> IpAddr {
    let digest = Sha256::new()
        .chain_update(b"gvpn address v1")
        .chain_update(node.as_bytes())
        .chain_update(attempt.to_le_bytes())
        .chain_update(name)
        .finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    with_host(prefix, u128::from_le_bytes(bytes))
}

/// The address in `prefix` with these host bits; those that do not fit are cut off.
pub(crate) fn with_host(prefix: IpNet, host: u128) -> IpAddr {
    match prefix {
        IpNet::V4(net) => {
            let mask = u32::from(net.hostmask());
            IpAddr::V4(Ipv4Addr::from(u32::from(net.network()) | (host as u32 & mask)))
        }
        IpNet::V6(net) => {
            let mask = u128::from(net.hostmask());
            IpAddr::V6(Ipv6Addr::from(u128::from(net.network()) | (host & mask)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_prefixes_are_unique_local_and_differ() {
        let (a, b) = (generate_ula(b"one"), generate_ula(b"two"));
        assert_ne!(a, b);
        for prefix in [a, b] {
            assert_eq!(prefix.prefix_len(), 64);
            assert!("fd00::/8".parse::<IpNet>().unwrap().contains(&prefix.network()));
            assert_eq!(prefix.trunc(), prefix);
        }
    }

    #[test]
    fn derived_addresses_stay_and_lie_inside() {
        let node = NodeId::from_bytes([7; 20]);
        for text in ["10.0.0.0/24", "fd12:3456:789a::/64", "10.9.8.0/30"] {
            let prefix: IpNet = text.parse().unwrap();
            let address = derived_address(prefix, node, "web", 0);
            assert!(prefix.contains(&address));
            assert_eq!(address, derived_address(prefix, node, "web", 0));
        }
        let wide: IpNet = "fd12::/64".parse().unwrap();
        assert_ne!(derived_address(wide, node, "web", 0), derived_address(wide, node, "db", 0));
        assert_ne!(derived_address(wide, node, "web", 0), derived_address(wide, node, "web", 1));
    }
}
