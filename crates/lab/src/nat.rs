//! NAT routers, with nftables.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::{Host, Lab, LabError, Lan};

/// What a NAT does to UDP. TCP is always masqueraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nat {
    /// Forwards without translation.
    None,
    /// One outside port for each inside port; answers from anyone ("full cone"), for this one host
    /// inside.
    FullCone(Ipv4Addr),
    /// One outside port for each inside port; answers come from addresses that were written to
    /// from there, from any port of theirs, for this one host inside.
    AddressRestricted(Ipv4Addr),
    /// One outside port for each inside port; answers come from addresses and ports that were
    /// written to.
    PortRestricted,
    /// As a provider's NAT for many homes should be (RFC 6888): these inside have the outside port
    /// of the same number, get answers from anyone, and reach each other there ("hairpin").
    Hairpin([SocketAddrV4; 2]),
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
        self.host.run("nft", [rules(kind, &self.outside)]).map(drop)
    }
}

fn bare(cidr: &str) -> String {
    cidr.split('/').next().unwrap_or(cidr).to_owned()
}

fn rules(kind: Nat, outside: &str) -> String {
    let outward = match kind {
        Nat::None => String::new(),
        Nat::Symmetric => "oifname eth0 masquerade random,fully-random;".to_owned(),
        Nat::Hairpin(_) => {
            format!("oifname eth0 masquerade; iifname eth1 oifname eth1 snat to {outside};")
        }
        _ => "oifname eth0 masquerade;".to_owned(),
    };
    let inward = match kind {
        Nat::FullCone(host) => format!("iifname eth0 udp dport 1024-65535 dnat to {host};"),
        Nat::AddressRestricted(host) => {
            format!("iifname eth0 ip saddr . udp dport @seen dnat to {host};")
        }
        Nat::Hairpin(hosts) => hosts
            .map(|host| format!("ip daddr {outside} udp dport {} dnat to {host};", host.port()))
            .concat(),
        _ => String::new(),
    };
    let forward = match kind {
        Nat::UdpBlocked => "meta l4proto udp drop;",
        Nat::AddressRestricted(_) => {
            "oifname eth0 meta l4proto udp update @seen { ip daddr . udp sport };"
        }
        _ => "",
    };
    // An unsolicited datagram must not reach the router itself: it would leave a translation entry
    // that takes the port, and an early punch would break the later one.
    format!(
        "flush ruleset
         table ip lab {{
           set seen {{ type ipv4_addr . inet_service; flags dynamic; size 4096; }}
           chain input {{
             type filter hook input priority 0
             iifname eth0 meta l4proto udp drop
           }}
           chain forward {{ type filter hook forward priority 0; {forward} }}
           chain pre {{ type nat hook prerouting priority -100; {inward} }}
           chain post {{ type nat hook postrouting priority 100; {outward} }}
         }}"
    )
}
