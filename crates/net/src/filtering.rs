//! What comes in through the NAT or firewall in front of this node, found out with relays' help.
//!
//! As RFC 5780, section 4.4, has it: a fresh socket writes to one relay, which tells where it sees
//! that socket; then this relay sends it a datagram from another port, and another relay one from
//! another address. The node's own socket is of no use here: it has written to all of them, and to
//! peers.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use gvpn_dataplane::{CONTROL_KNOCK, mirror, read_control_message};
use serde::{Deserialize, Serialize};
use tokio::{
    net::UdpSocket,
    time::{Instant, sleep, timeout_at},
};

use crate::shared::Shared;

/// Relays come one after the other.
const SETTLE: Duration = Duration::from_millis(50);
/// How often everything is asked, as any of it may be lost, and how long each time may take.
const TIMES: u32 = 3;
const PATIENCE: Duration = Duration::from_millis(500);
/// When it is tried anew as long as it could not be found out; the last of them over and over.
const AGAIN: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(30)];

/// What comes in through a NAT or firewall (RFC 4787, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Filtering {
    /// No relay has tried yet.
    #[default]
    Unknown,
    /// UDP does not come in at all: relays are reached by streams only.
    Blocked,
    /// What comes from any address gets in.
    EndpointIndependent,
    /// What comes from an address that was written to gets in, from whatever port there.
    AddressDependent,
    /// Only what comes from an address and port that was written to gets in.
    AddressAndPortDependent,
    /// What comes from another port of an address that was written to gets in, if not more: there is
    /// but one relay that can try.
    PortIndependent,
}

impl Filtering {
    /// In a few words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Unknown => "what gets in is not known yet: no relay has tried",
            Self::Blocked => "no UDP gets in",
            Self::EndpointIndependent => "lets in what comes from anywhere (endpoint-independent)",
            Self::AddressDependent => {
                "lets in what comes from addresses that were written to (address-dependent)"
            }
            Self::AddressAndPortDependent => {
                "lets in only what comes from addresses and ports that were written to \
                 (address-and-port-dependent)"
            }
            Self::PortIndependent => {
                "lets in what comes from other ports of addresses that were written to, if not \
                 more: a second relay at another address would show"
            }
        }
    }

    /// What is to be concluded from datagrams that came from another port, and from another
    /// address; `None` if nobody could send that.
    fn judge(port: bool, address: Option<bool>) -> Self {
        match (port, address) {
            (_, Some(true)) => Self::EndpointIndependent,
            (true, Some(false)) => Self::AddressDependent,
            (true, None) => Self::PortIndependent,
            (false, _) => Self::AddressAndPortDependent,
        }
    }
}

/// Finds it out whenever it may have changed.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut waits: &[Duration] = &[];
    loop {
        let again = async {
            match waits.first() {
                Some(wait) => sleep(*wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.addresses.filtering_in_doubt() => waits = &AGAIN,
            () = again => waits = &waits[usize::from(waits.len() > 1)..],
        }
        sleep(SETTLE).await;
        if let Some(found) = find_out(&shared).await {
            tracing::debug!(?found, "filtering");
            shared.addresses.filters(found);
            shared.tell_nature();
            waits = &[];
        }
    }
}

async fn find_out(shared: &Shared) -> Option<Filtering> {
    let relays = shared.relays.on_udp();
    let four = relays.iter().find(|relay| relay.is_ipv4());
    let first = *four.or(relays.first())?;
    let any: IpAddr = match first {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    let seen = seen_at(&socket, first).await?;
    // A relay knocks only where it sees its client.
    let able = |relay: &&SocketAddr| {
        relay.is_ipv4() == first.is_ipv4()
            && relay.ip() != first.ip()
            && shared.addresses.seen_by(**relay).is_some_and(|at| at.ip() == seen.ip())
    };
    let second = relays.iter().find(able).copied();
    let number: u32 = rand::random();
    let (mut port, mut address) = (false, second.map(|_| false));
    for _ in 0..TIMES {
        shared.relays.knock(first, number, seen);
        if let Some(second) = second {
            shared.relays.knock(second, !number, seen);
        }
        let end = Instant::now() + PATIENCE;
        while let Some(heard) = hear(&socket, end).await {
            match read_control_message(&heard) {
                Some((CONTROL_KNOCK, heard)) if heard == number => port = true,
                Some((CONTROL_KNOCK, heard)) if heard == !number => address = Some(true),
                _ => {}
            }
            if port && address != Some(false) {
                return Some(Filtering::judge(port, address));
            }
        }
    }
    Some(Filtering::judge(port, address))
}

/// Where a relay sees a socket; `None` if it does not answer.
async fn seen_at(socket: &UdpSocket, relay: SocketAddr) -> Option<SocketAddr> {
    let number = rand::random();
    for _ in 0..TIMES {
        socket.send_to(&mirror::question(number), relay).await.ok()?;
        let end = Instant::now() + PATIENCE;
        while let Some(heard) = hear(socket, end).await {
            match mirror::read_answer(&heard) {
                Some((answered, at)) if answered == number => return Some(at),
                _ => {}
            }
        }
    }
    None
}

async fn hear(socket: &UdpSocket, end: Instant) -> Option<Vec<u8>> {
    let mut buffer = [0; 64];
    loop {
        match timeout_at(end, socket.recv_from(&mut buffer)).await {
            Ok(Ok((size, _))) => return Some(buffer[..size].to_vec()),
            // What was sent before was refused.
            Ok(Err(_)) if Instant::now() < end => sleep(SETTLE).await,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_tells_what_gets_in() {
        let judge = Filtering::judge;
        assert_eq!(judge(true, Some(true)), Filtering::EndpointIndependent);
        assert_eq!(judge(false, Some(true)), Filtering::EndpointIndependent);
        assert_eq!(judge(true, Some(false)), Filtering::AddressDependent);
        assert_eq!(judge(true, None), Filtering::PortIndependent);
        assert_eq!(judge(false, Some(false)), Filtering::AddressAndPortDependent);
        assert_eq!(judge(false, None), Filtering::AddressAndPortDependent);
    }
}
