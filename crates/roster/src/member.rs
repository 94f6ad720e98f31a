//! One member.

use std::net::{IpAddr, Ipv6Addr};

use gvpn_model::{ActivityId, MemberId, NodeId};
use serde::{Deserialize, Serialize};

use crate::BookError;

/// An address in a network, or several: who has them and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Member {
    /// Its number, for life.
    pub id: MemberId,
    /// The node that it is on.
    pub node: NodeId,
    /// The activity whose payload it is, once known; none for the owner's own.
    pub activity: Option<ActivityId>,
    /// Its addresses.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub ips: Vec<IpAddr>,
    /// Its name, as in `NAME.NETWORK.vpn`.
    pub name: Option<String>,
    /// Groups that policy rules may name.
    pub groups: Vec<String>,
    /// What it may send and receive.
    pub limit: Limit,
    /// Cut off: nothing to it, nothing from it.
    pub quarantined: bool,
    /// Services that it publishes, for SRV queries.
    pub services: Vec<Service>,
}

impl Member {
    /// The member's link-local IPv6 address, which follows from its id: it is the one that its
    /// interface has where the network has IPv6, so that the switch can guard it like the others.
    pub fn link_local(&self) -> Ipv6Addr {
        let id = self.id.0;
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0x6776, 0x706e, (id >> 16) as u16, id as u16)
    }

    /// The label that names the member in DNS: its name, or `member-ID`.
    pub fn dns_label(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("member-{}", self.id))
    }
}

/// A limit on what a member sends. Zero means none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct Limit {
    /// Bits a second.
    pub bits_per_second: u64,
    /// Packets a second.
    pub packets_per_second: u64,
}

/// A published service: `_NAME._tcp.MEMBER.NETWORK.vpn`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Service {
    /// Its name, without the underscore (`http`).
    pub name: String,
    /// Whether over UDP rather than TCP.
    #[serde(default)]
    pub udp: bool,
    /// Its port.
    pub port: u16,
}

/// Checks that `name` can be a label of a DNS name (RFC 1123): letters, digits and inner hyphens,
/// at most 63. Returns it in lower case.
///
/// # Errors
/// [`BookError::Name`].
pub fn check_name(name: &str) -> Result<String, BookError> {
    let name = name.to_ascii_lowercase();
    let bytes = name.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    if bytes.len() <= 63 && bytes.iter().all(inner) && edge(bytes.first()) && edge(bytes.last()) {
        Ok(name)
    } else {
        Err(BookError::Name(name))
    }
}
