//! Prefixes and addresses as people write them, checked.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// Why a prefix or an address is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not an address or CIDR at all.
    #[error("`{0}` is not an IP address or CIDR prefix (such as 192.168.0.0/24)")]
    Syntax(String),
    /// A mask that is not ones followed by zeros.
    #[error("`{0}` is not a network mask: its ones must be contiguous (such as 255.255.255.0)")]
    Mask(String),
    /// A prefix with no room for two hosts, or larger than a network may be.
    #[error("prefix {0} cannot hold a network: use /8 to /30 for IPv4, /32 to /126 for IPv6")]
    Size(IpNet),
    /// A prefix of addresses that no host can have.
    #[error(
        "prefix {0} is not usable: multicast, loopback, link-local and unspecified addresses are no host's"
    )]
    Reserved(IpNet),
    /// An address outside the network's prefixes.
    #[error("address {0} is outside the network {1}")]
    Outside(IpAddr, IpNet),
    /// The address that names the network itself.
    #[error("address {0} is the network address of {1}, not a host's")]
    NetworkAddress(IpAddr, IpNet),
    /// The directed broadcast address.
    #[error("address {0} is the broadcast address of {1}, not a host's")]
    Broadcast(IpAddr, IpNet),
}

/// Reads a network's prefix from `ip` (CIDR, or bare with `mask`; 255.255.255.0 or /64 when no
/// mask is given). Host bits are cleared. A mask beside a CIDR is ignored, as Golem's clients expect.
///
/// # Errors
/// [`AddressError`] for bad syntax, a non-contiguous mask, or a prefix that cannot hold a network.
pub fn parse_prefix(ip: &str, mask: Option<&str>) -> Result<IpNet, AddressError> {
    let ip = ip.trim();
    let prefix = if ip.contains('/') {
        ip.parse::<IpNet>().map_err(|_| AddressError::Syntax(ip.to_owned()))?
    } else {
        let address: IpAddr = ip.parse().map_err(|_| AddressError::Syntax(ip.to_owned()))?;
        let length = match (address, mask.map(str::trim).filter(|m| !m.is_empty())) {
            (_, Some(mask)) => mask_length(address, mask)?,
            (IpAddr::V4(_), None) => 24,
            (IpAddr::V6(_), None) => 64,
        };
        IpNet::new(address, length).map_err(|_| AddressError::Syntax(ip.to_owned()))?
    };
    let prefix = prefix.trunc();
    check_prefix(prefix)?;
    Ok(prefix)
}

/// Checks that `address` can be a host's in `prefix`.
///
/// # Errors
/// [`AddressError`] when it lies outside, or is the network or broadcast address.
pub fn check_host(address: IpAddr, prefix: IpNet) -> Result<(), AddressError> {
    if !prefix.contains(&address) {
        return Err(AddressError::Outside(address, prefix));
    }
    if address == prefix.network() {
        return Err(AddressError::NetworkAddress(address, prefix));
    }
    if address.is_ipv4() && address == prefix.broadcast() {
        return Err(AddressError::Broadcast(address, prefix));
    }
    Ok(())
}

/// Reads a host address, alone or in CIDR form (`192.168.0.2/24`): the address counts.
///
/// # Errors
/// [`AddressError::Syntax`].
pub fn parse_host(text: &str) -> Result<IpAddr, AddressError> {
    let text = text.trim();
    text.parse::<IpAddr>()
        .or_else(|_| text.parse::<IpNet>().map(|net| net.addr()))
        .map_err(|_| AddressError::Syntax(text.to_owned()))
}

/// The first host of a prefix: a network's gateway unless its owner names another.
pub fn first_host(prefix: IpNet) -> IpAddr {
    match prefix.network() {
        IpAddr::V4(a) => IpAddr::V4(Ipv4Addr::from(u32::from(a) + 1)),
        IpAddr::V6(a) => IpAddr::V6((u128::from(a) + 1).into()),
    }
}

fn mask_length(address: IpAddr, mask: &str) -> Result<u8, AddressError> {
    let wrong = || AddressError::Mask(mask.to_owned());
    match (address, mask.parse::<IpAddr>()) {
        (IpAddr::V4(_), Ok(IpAddr::V4(m))) => Ipv4Net::with_netmask(Ipv4Addr::UNSPECIFIED, m)
            .map(|n| n.prefix_len())
            .map_err(|_| wrong()),
        (IpAddr::V6(_), Ok(m @ IpAddr::V6(_))) => ipnet::ip_mask_to_prefix(m).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

fn check_prefix(prefix: IpNet) -> Result<(), AddressError> {
    let length = prefix.prefix_len();
    let fits = match prefix {
        IpNet::V4(_) => (8..=30).contains(&length),
        IpNet::V6(_) => (32..=126).contains(&length),
    };
    if !fits {
        return Err(AddressError::Size(prefix));
    }
    let first = prefix.network();
    let reserved = match first {
        IpAddr::V4(a) => {
            a.is_loopback()
                || a.is_multicast()
                || a.is_link_local()
                || a.octets()[0] == 0
                || a.octets()[0] >= 240
        }
        IpAddr::V6(a) => {
            a.is_loopback() || a.is_multicast() || a.is_unicast_link_local() || a.is_unspecified()
        }
    };
    if reserved { Err(AddressError::Reserved(prefix)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golem_clients_forms_are_read() {
        let cases = [
            ("192.168.0.0", Some("255.255.255.0"), "192.168.0.0/24"),
            ("192.168.0.1/24", None, "192.168.0.0/24"),
            ("10.1.2.3", None, "10.1.2.0/24"),
            ("10.0.0.0/16", Some("255.255.255.0"), "10.0.0.0/16"),
            ("fd00:1::/64", None, "fd00:1::/64"),
        ];
        for (ip, mask, want) in cases {
            assert_eq!(parse_prefix(ip, mask).unwrap().to_string(), want);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (ip, mask) in [
            ("", None),
            ("300.0.0.0/24", None),
            ("10.0.0.0", Some("255.0.255.0")),
            ("10.0.0.0", Some("ffff::")),
            ("10.0.0.0/31", None),
            ("10.0.0.0/0", None),
            ("127.0.0.0/8", None),
            ("224.0.0.0/8", None),
            ("fe80::/64", None),
        ] {
            assert!(parse_prefix(ip, mask).is_err(), "{ip} {mask:?}");
        }
    }

    #[test]
    fn network_and_broadcast_are_no_hosts() {
        let net: IpNet = "192.168.0.0/24".parse().unwrap();
        assert_eq!(first_host(net).to_string(), "192.168.0.1");
        for (ip, ok) in [
            ("192.168.0.1", true),
            ("192.168.0.0", false),
            ("192.168.0.255", false),
            ("192.168.1.1", false),
        ] {
            assert_eq!(check_host(ip.parse().unwrap(), net).is_ok(), ok, "{ip}");
        }
    }
}
