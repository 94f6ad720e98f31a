//! A roster as one member's payload sees it.

use std::net::IpAddr;

use gvpn_exeunit::NetworkConfig;
use gvpn_roster::{Member, Roster};
use gvpn_vnic::{Interface, Route};
use ipnet::IpNet;

/// What the payload of `member` is to see of its network.
pub(crate) fn network_config(roster: &Roster, member: &Member) -> NetworkConfig {
    let settings = &roster.settings;
    let gateways: Vec<_> = settings.subnets.iter().map(|s| s.gateway).collect();
    NetworkConfig {
        network: roster.network,
        member: member.id,
        addresses: roster.nic_addresses(member),
        routes: foreign_routes(roster, member),
        mtu: settings.mtu,
        hosts: hosts(roster),
        dns: if settings.policy.dns { gateways.clone() } else { Vec::new() },
        search: vec![format!("{}.vpn", roster.dns_label())],
        gateways,
    }
}

/// The interface of `member` in a namespace of this node.
pub(crate) fn interface(roster: &Roster, member: &Member, name: &str) -> Interface {
    Interface {
        name: name.to_owned(),
        addresses: roster.nic_addresses(member),
        routes: foreign_routes(roster, member).into_iter().map(Route::on_link).collect(),
        mtu: roster.settings.mtu,
    }
}

/// Destinations outside the prefixes that somebody else forwards to.
fn foreign_routes(roster: &Roster, member: &Member) -> Vec<IpNet> {
    let others = roster.settings.routes.iter().filter(|route| route.via != member.id);
    others.map(|route| route.destination).collect()
}

fn hosts(roster: &Roster) -> Vec<(String, IpAddr)> {
    let domain = roster.dns_label();
    let mut lines = Vec::new();
    for member in &roster.members {
        let Some(name) = &member.name else { continue };
        for ip in &member.ips {
            lines.push((name.clone(), *ip));
            lines.push((format!("{name}.{domain}.vpn"), *ip));
        }
    }
    for (name, ips) in &roster.settings.hosts {
        lines.extend(ips.iter().map(|ip| (name.clone(), *ip)));
    }
    lines
}
