//! Guessing the ports of a symmetric NAT: what `gvpn_path::Agent` decides is done here, with real
//! sockets. Each is a carrier of the data plane, and so a hop like any other.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use gvpn_dataplane::{Carried, Carrier, Hop};
use gvpn_path::Nature;
use nix::sys::resource::{Resource, getrlimit};
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::{io::Interest, net::UdpSocket, sync::OwnedSemaphorePermit, task::AbortHandle};

use crate::{Filtering, NatKind, connection::Command, path::PeerPath, peer::Peer, shared::Shared};

/// At most this part of the files that the process may have open are sockets for guessing.
const PART_OF_FILES: u64 = 4;
/// The largest datagram, or batch of them.
const MAX_DATAGRAM: usize = 65_535;

/// What is held while ports are guessed, and what is kept of it.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// Nobody else guesses meanwhile.
    permit: Option<OwnedSemaphorePermit>,
    sockets: Vec<Socket>,
}

/// A socket that was opened to reach one peer. Closed when dropped.
#[derive(Debug)]
struct Socket {
    hop: Hop,
    peer: SocketAddr,
    task: AbortHandle,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Held {
    /// Nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.permit.is_none() && self.sockets.is_empty()
    }

    /// Lets go of everything but the sockets that are hops.
    pub(crate) fn settle(&mut self, is_hop: impl Fn(Hop) -> bool) {
        self.permit = None;
        self.sockets.retain(|socket| is_hop(socket.hop));
    }

    /// Where a socket leads.
    pub(crate) fn peer_at(&self, addr: SocketAddr) -> Option<SocketAddr> {
        self.sockets.iter().find(|s| s.hop.wire_addr() == addr).map(|s| s.peer)
    }
}

/// What the NAT of this kind does, as far as guessing goes.
pub(crate) fn nature(nat: NatKind, filtering: Filtering) -> Nature {
    match (nat, filtering) {
        (NatKind::AddressDependent, _) => Nature::Random,
        (NatKind::EndpointIndependent, Filtering::AddressAndPortDependent | Filtering::Unknown) => {
            Nature::Strict
        }
        _ => Nature::Other,
    }
}

/// Finds out where a peer is, for its ports to be guessed; unless those of another are.
pub(crate) async fn prepare(shared: Arc<Shared>, peer: Arc<Peer>) {
    let permit = Arc::clone(&shared.guessing).try_acquire_owned().ok();
    let seen = match &permit {
        Some(_) => shared.relays.seen_at(&peer).await,
        None => None,
    };
    tracing::debug!(peer = %peer.node, ?seen, "ports may be guessed");
    if seen.is_some() {
        peer.path.held().permit = permit;
    }
    peer.path.tell(|agent, now| agent.guess_at(now, seen));
}

/// Tells a peer that this node is ready.
pub(crate) fn propose(peer: &Peer) {
    if let Some(conn) = peer.usable() {
        conn.command(Command::Guess);
    }
}

/// Opens sockets to where a peer is.
pub(crate) fn open(shared: &Arc<Shared>, path: &Arc<PeerPath>, to: SocketAddr, count: usize) {
    if !path.ask(|agent, _| agent.is_guessing()) {
        return;
    }
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft / PART_OF_FILES);
    let count = count.min(usize::try_from(files).unwrap_or(usize::MAX));
    let mut hops = Vec::with_capacity(count);
    for _ in 0..count {
        match open_one(shared, to) {
            Ok(socket) => {
                hops.push(socket.hop);
                path.held().sockets.push(socket);
            }
            Err(error) => {
                tracing::debug!(%error, "no more sockets to guess ports with");
                break;
            }
        }
    }
    tracing::debug!(peer = %path.node(), %to, count = hops.len(), "guessing ports");
    path.tell(|agent, _| agent.guess_from(hops));
}

fn open_one(shared: &Arc<Shared>, to: SocketAddr) -> io::Result<Socket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    // From nowhere else is anything to come.
    socket.connect(to)?;
    let state = UdpSocketState::new((&socket).into())?;
    let socket = UdpSocket::from_std(socket)?;
    let carrier = shared.plane.open_socket();
    let hop = Hop::Direct(carrier.addr());
    let task = tokio::spawn(run(shared.ended.clone(), carrier, socket, state, to));
    Ok(Socket { hop, peer: to, task: task.abort_handle() })
}

/// Carries datagrams both ways until the net ends.
async fn run(
    ended: tokio_util::sync::CancellationToken,
    carrier: Carrier,
    socket: UdpSocket,
    state: UdpSocketState,
    to: SocketAddr,
) {
    tokio::select! {
        () = ended.cancelled() => {}
        () = outward(&carrier, &socket, &state, to) => {}
        () = inward(&carrier, &socket, &state) => {}
    }
}

async fn outward(carrier: &Carrier, socket: &UdpSocket, state: &UdpSocketState, to: SocketAddr) {
    loop {
        let batch = carrier.next().await;
        let room = batch.stride * state.max_gso_segments().max(1);
        for contents in batch.contents.chunks(room) {
            let segment_size = (contents.len() > batch.stride).then_some(batch.stride);
            let transmit =
                Transmit { destination: to, ecn: None, contents, segment_size, src_ip: None };
            let send = || state.try_send(socket.into(), &transmit);
            // What the system refuses is lost, as on any way.
            if let Err(error) = socket.async_io(Interest::WRITABLE, send).await {
                tracing::trace!(%error, "datagram not sent");
            }
        }
    }
}

async fn inward(carrier: &Carrier, socket: &UdpSocket, state: &UdpSocketState) {
    let mut buffer = Vec::new();
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        buffer.resize(MAX_DATAGRAM, 0);
        let mut meta = [RecvMeta::default()];
        let receive = || state.recv(socket.into(), &mut [IoSliceMut::new(&mut buffer)], &mut meta);
        match socket.try_io(Interest::READABLE, receive) {
            Ok(count) if count > 0 => {
                let (len, stride) = (meta[0].len, meta[0].stride.max(1));
                carrier.receive(Carried { contents: buffer[..len].to_vec(), stride });
            }
            // Nothing after all, or an error that an earlier datagram met.
            _ => tokio::task::yield_now().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strict_and_random_nats_are_guessed() {
        let all = [
            Filtering::Unknown,
            Filtering::EndpointIndependent,
            Filtering::AddressDependent,
            Filtering::PortIndependent,
            Filtering::AddressAndPortDependent,
        ];
        for filtering in all {
            assert_eq!(nature(NatKind::AddressDependent, filtering), Nature::Random);
            assert_eq!(nature(NatKind::None, filtering), Nature::Other);
            assert_eq!(nature(NatKind::Present, filtering), Nature::Other);
        }
        let strict = all.map(|filtering| nature(NatKind::EndpointIndependent, filtering));
        use Nature::{Other, Strict};
        assert_eq!(strict, [Strict, Other, Other, Other, Strict]);
    }
}
