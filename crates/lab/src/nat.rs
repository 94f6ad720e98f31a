//! NAT routers, with nftables.

use std::net::Ipv4Addr;

use crate::{Host, Lab, LabError, Lan};

/// What a NAT does to UDP. TCP is always masqueraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Forwards without translation.
    None,
    /// One outside port for each inside port; answers from anyone ("full cone"), for this one host
    /// inside.
    FullCone(Ipv4Addr),
    /// One outside port for each inside port; answers come from addresses and ports that were
    /// written to.
    PortRestricted,
    /// A random outside port for each destination.
    Symmetric,
    /// UDP does not pass at all.
    UdpBlocked,
}

/// A router with a LAN behind it.
#[derive(Debug, Clone)]
pub struct Router {
    /// The router itself: `eth0` outside, `eth1` inside.
    pub host: Host,
    /// The LAN behind it.
    pub lan: Lan,
    outside: String,
}

impl Router {
    pub(crate) fn new(
        lab: &Lab,
        kind: Nat,
        wan: &Lan,
        outside: &str,
        inside: &str,
    ) -> Result<Self, LabError> {
        let host = lab.host("router")?;
        let lan = lab.lan()?;
        host.join(wan, &[outside])?;
        host.join(&lan, &[inside])?;
        host.run("sh", ["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])?;
        let router = Self { host, lan, outside: bare(outside) };
        router.set(kind)?;
        Ok(router)
    }

    /// Its address outside.
    pub fn outside(&self) -> &str {
        &self.outside
    }

    /// Changes what the NAT does. Translations that exist are forgotten with the rules.
    ///
    /// # Errors
    /// [`LabError::Command`].
    pub fn set(&self, kind: Nat) -> Result<(), LabError> {
        self.host.run("nft", [rules(kind)]).map(drop)
    }
}

fn bare(cidr: &str) -> String {
    cidr.split('/').next().unwrap_or(cidr).to_owned()
}

fn rules(kind: Nat) -> String {
    let masquerade = match kind {
        Nat::None => "",
        Nat::Symmetric => "oifname eth0 masquerade random,fully-random;",
        Nat::FullCone(_) | Nat::PortRestricted | Nat::UdpBlocked => "oifname eth0 masquerade;",
    };
    let inward = match kind {
        Nat::FullCone(host) => format!("iifname eth0 udp dport 1024-65535 dnat to {host};"),
        _ => String::new(),
    };
    let forward = if kind == Nat::UdpBlocked { "meta l4proto udp drop;" } else { "" };
    // An unsolicited datagram must not reach the router itself: it would leave a translation entry
    // that takes the port, and an early punch would break the later one.
    format!(
        "flush ruleset
         table ip lab {{
           chain input {{
             type filter hook input priority 0
             iifname eth0 meta l4proto udp drop
           }}
           chain forward {{ type filter hook forward priority 0; {forward} }}
           chain pre {{ type nat hook prerouting priority -100; {inward} }}
           chain post {{ type nat hook postrouting priority 100; {masquerade} }}
         }}"
    )
}
