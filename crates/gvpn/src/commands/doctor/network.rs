//! Checks of the way into the network.

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_net::{Filtering, NatKind, Net, NetConfig, PortMapping, RelayState};
use tokio::net::TcpStream;

use super::Check;

/// How long relays and the router are waited for.
const PATIENCE: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(50);
/// How long a TCP connection may take that tells a relay that is down from UDP that is blocked.
const TCP: Duration = Duration::from_secs(2);
/// Where relays take TLS.
const TLS_PORT: u16 = 443;

/// UDP, relays, NAT and port mapping, tried by a node that exists for this only. Relays are given
/// by name and address.
pub(super) async fn checks(mut config: NetConfig, relays: Vec<(String, SocketAddr)>) -> Vec<Check> {
    config.relays = relays.iter().map(|(_, addr)| *addr).collect();
    if relays.iter().any(|(_, addr)| addr.is_ipv6()) {
        config.listen.push(SocketAddr::from(([0; 16], 0)));
    }
    config.workers = 1;
    let net = match Net::bind(config).await {
        Ok(net) => net,
        Err(error) => {
            let advice = "look at the limits of this user and at the machine's security modules";
            return vec![Check::fail("udp", error.to_string(), advice)];
        }
    };
    settle(&net).await;
    let mut checks = vec![addresses(&net)];
    checks.extend(udp(&net, &relays).await);
    checks.push(nat(&net));
    checks.push(mapping(&net));
    net.shutdown().await;
    checks
}

/// Waits until all that can be known is.
async fn settle(net: &Net) {
    let start = Instant::now();
    let open = || {
        let relays = net.relay_states();
        // Where UDP works, relays find out what gets in: two of them all of it.
        let able = relays.iter().filter(|relay| relay.rtt.is_some() && !relay.stream);
        let able: HashSet<_> = able.map(|relay| relay.addr.ip()).collect();
        let knocking = match net.filtering() {
            Filtering::Unknown => !able.is_empty(),
            Filtering::PortIndependent => able.len() > 1,
            _ => false,
        };
        // And two of one family tell what the NAT does with ports.
        let told = |four: bool| {
            let by_udp = |relay: &&RelayState| relay.rtt.is_some() && !relay.stream;
            let family = |relay: &&RelayState| relay.addr.is_ipv4() == four;
            relays.iter().filter(by_udp).filter(family).count()
        };
        let judging = told(true).max(told(false)) > 1
            && matches!(net.nat(), NatKind::Unknown | NatKind::Present);
        relays.iter().any(|relay| relay.rtt.is_none())
            || knocking
            || judging
            || net.port_mapping() == PortMapping::Asking
    };
    while open() && start.elapsed() < PATIENCE {
        tokio::time::sleep(LOOK).await;
    }
}

fn addresses(net: &Net) -> Check {
    let observed = net.observed_addrs();
    let own: Vec<String> = net
        .addrs()
        .iter()
        .filter(|addr| !observed.contains(addr))
        .map(|addr| addr.ip().to_string())
        .collect();
    if own.is_empty() {
        let advice = "connect this machine to a network";
        return Check::fail("addresses", "no interface has an address", advice);
    }
    let seen = match observed.first() {
        Some(addr) => format!("; others see {addr}"),
        None => String::new(),
    };
    Check::ok("addresses", own.join(", ") + &seen)
}

async fn udp(net: &Net, relays: &[(String, SocketAddr)]) -> Vec<Check> {
    let states = net.relay_states();
    if states.is_empty() {
        let advice = "name relays in config.toml ([net] relays) or with --relay: without one, nodes \
                      find each other only by addresses that are given to them";
        return vec![Check::warn("relays", "none is configured", advice)];
    }
    let mut checks = Vec::new();
    let works = states.iter().any(|relay| relay.rtt.is_some());
    let by_udp = states.iter().any(|relay| relay.rtt.is_some() && !relay.stream);
    let mut by_tcp = false;
    for RelayState { addr, rtt, stream, reason, .. } in &states {
        let name = relays
            .iter()
            .find(|(_, a)| a == addr)
            .map_or_else(String::new, |(name, _)| name.clone());
        let shown = if name == addr.to_string() { name } else { format!("{name} ({addr})") };
        match rtt {
            Some(rtt) => {
                let ms = rtt.as_secs_f64() * 1000.0;
                let how = if *stream { " by its TLS stream" } else { "" };
                checks.push(Check::ok("relay", format!("{shown} answers in {ms:.1} ms{how}")));
            }
            None => {
                let reason = reason.as_deref().unwrap_or_default();
                let tcp = !works && tcp_answers(*addr).await;
                by_tcp |= tcp;
                let advice = if tcp {
                    "its machine answers TCP: UDP is blocked on the way"
                } else if works {
                    "others answer: it may be down; nodes use the others meanwhile"
                } else {
                    "see whether it is up, and whether the name and port are right"
                };
                let check = if works { Check::warn } else { Check::fail };
                checks.push(check("relay", format!("{shown}: {reason}"), advice.to_owned()));
            }
        }
    }
    checks.insert(
        0,
        match (by_udp, works || by_tcp) {
            (true, _) => Check::ok("udp", "UDP datagrams pass, both ways"),
            (false, true) if works => Check::warn(
                "udp",
                "a firewall blocks UDP; relays are reached by TLS, and every path is relayed",
                "have the firewall allow outgoing UDP and its answers: paths become direct and fast",
            ),
            (false, true) => Check::fail(
                "udp",
                "TCP passes and UDP does not: a firewall blocks UDP",
                "have the firewall allow outgoing UDP and its answers",
            ),
            (false, false) => Check::fail(
                "udp",
                "no relay answers, neither by UDP nor by TCP",
                "look at this machine's connection and at the relays' names",
            ),
        },
    );
    checks
}

async fn tcp_answers(addr: SocketAddr) -> bool {
    for port in [TLS_PORT, addr.port()] {
        let at = SocketAddr::new(addr.ip(), port);
        match tokio::time::timeout(TCP, TcpStream::connect(at)).await {
            Ok(Ok(_)) => return true,
            // Somebody said no: packets pass.
            Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => return true,
            _ => {}
        }
    }
    false
}

fn nat(net: &Net) -> Check {
    const NAME: &str = "nat";
    let kind = net.nat();
    let found = format!("{}; {}", kind.describe(), net.filtering().describe());
    match kind {
        NatKind::AddressDependent => Check::warn(
            NAME,
            found,
            "peers behind strict NATs are reached through a relay; turn on port mapping (UPnP, \
             PCP) in the router, or forward a UDP port and name it in [net] listen",
        ),
        NatKind::Unknown => Check::warn(NAME, found, "name a relay that answers"),
        _ => Check::ok(NAME, found),
    }
}

fn mapping(net: &Net) -> Check {
    const NAME: &str = "port mapping";
    match net.port_mapping() {
        PortMapping::Mapped { addr, protocol } => {
            Check::ok(NAME, format!("the router forwards {addr} ({protocol})"))
        }
        PortMapping::Off => Check::ok(NAME, "off"),
        PortMapping::None { reason } if reason.ends_with("none is needed") => {
            Check::ok(NAME, reason)
        }
        PortMapping::None { reason } if net.nat() == NatKind::AddressDependent => Check::warn(
            NAME,
            reason,
            "turn on UPnP, NAT-PMP or PCP in the router: behind this NAT it makes direct paths \
             possible",
        ),
        PortMapping::None { reason } => Check::ok(NAME, format!("none: {reason}")),
        _ => Check::ok(NAME, "the router did not answer in time"),
    }
}
