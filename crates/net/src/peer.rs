//! A node that this node talks to.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use gvpn_dataplane::Hop;
use gvpn_model::{NetworkId, NodeId};
use gvpn_path::Source;
use parking_lot::Mutex;
use rustls_pki_types::CertificateDer;

use crate::{
    NetError,
    connection::{Command, Conn},
    link::Link,
    path::PeerPath,
    relays::{Found, Relays},
    shared::Shared,
    socket::Socket,
};

/// How long a node is called before it counts as unreachable.
const CALL: Duration = Duration::from_secs(10);
/// The same for a node of which nothing was heard any more, as long as nothing is.
const CALL_SILENT: Duration = Duration::from_millis(3500);
/// The least of it that is left to who had to wait for another call to fail.
const CALL_AGAIN: Duration = Duration::from_millis(1500);
/// A peer that does not answer may have registered anew: so long after a look-up there is another one.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A connection younger than this is as good as a fresh one.
const FRESH: Duration = Duration::from_millis(300);
/// The most addresses that are taken from one peer at a time.
const MAX_TOLD: usize = 12;

/// A node that this node talks to, or tries to.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeId,
    pub(crate) path: Arc<PeerPath>,
    conns: Mutex<Vec<Arc<Conn>>>,
    /// What it last proved its identity with: another one each time that it is started.
    certificate: Mutex<Option<CertificateDer<'static>>>,
    /// Held while calling, so that only one call is made at a time.
    calling: tokio::sync::Mutex<()>,
    /// Lanes that the peer asked for and was refused.
    refused: Mutex<HashSet<NetworkId>>,
    /// Somebody is looking after the peer's silence.
    pub(crate) in_distress: AtomicBool,
}

impl Peer {
    pub(crate) fn new(node: NodeId, path: Arc<PeerPath>) -> Arc<Self> {
        Arc::new(Self {
            node,
            path,
            conns: Mutex::default(),
            certificate: Mutex::default(),
            calling: tokio::sync::Mutex::default(),
            refused: Mutex::default(),
            in_distress: AtomicBool::new(false),
        })
    }

    /// Notes what the peer proves its identity with; whether it was started anew since the last time.
    pub(crate) fn is_restarted(&self, certificate: &CertificateDer<'static>) -> bool {
        let mut known = self.certificate.lock();
        let restarted = known.as_ref().is_some_and(|known| known != certificate);
        *known = Some(certificate.clone());
        restarted
    }

    pub(crate) fn add(&self, conn: &Arc<Conn>) {
        self.conns.lock().push(Arc::clone(conn));
    }

    pub(crate) fn remove(&self, conn: &Arc<Conn>) {
        self.conns.lock().retain(|c| !Arc::ptr_eq(c, conn));
    }

    pub(crate) fn all(&self) -> Vec<Arc<Conn>> {
        self.conns.lock().clone()
    }

    /// The newest connection, if there is one.
    pub(crate) fn usable(&self) -> Option<Arc<Conn>> {
        let conns = self.conns.lock();
        conns.iter().filter(|c| c.usable()).max_by_key(|c| c.born).cloned()
    }

    /// The peer asked for a lane that it may not have, yet.
    pub(crate) fn note_refused(&self, network: NetworkId) {
        self.refused.lock().insert(network);
    }

    /// The network is shared with the peer now: offers the lane that it was refused.
    pub(crate) fn allow(&self, network: NetworkId) {
        if self.refused.lock().remove(&network)
            && let Some(conn) = self.usable()
        {
            conn.command(Command::Want(network));
        }
    }

    /// The peer told where it can be reached and looks for a better way.
    pub(crate) fn punch(&self, addrs: &[SocketAddr]) {
        self.path.tell(|agent, now| {
            for addr in addrs.iter().take(MAX_TOLD) {
                agent.add_candidate(now, Hop::Direct(*addr), Source::Told);
            }
            agent.punch(now);
        });
    }

    /// Adds ways to the peer; a call that nobody answered so far is repeated on the new ones.
    pub(crate) fn add_hops(&self, shared: &Shared, hops: &[Hop], source: Source, call: &Link) {
        self.path.tell(|agent, now| {
            for hop in hops {
                agent.add_candidate(now, *hop, source);
            }
        });
        let (packets, untried) = call.unanswered_flight(hops);
        for hop in untried {
            for packet in &packets {
                Socket::repeat(&shared.plane, hop, packet);
            }
        }
    }

    /// A usable connection: one that is there, or a new one.
    pub(crate) async fn connect(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
    ) -> Result<Arc<Conn>, NetError> {
        if let Some(conn) = self.usable() {
            return Ok(conn);
        }
        let asked = tokio::time::Instant::now();
        let _one = self.calling.lock().await;
        match self.usable() {
            Some(conn) => Ok(conn),
            None => self.call(shared, true, asked).await,
        }
    }

    /// A new connection, unless the newest is new enough.
    pub(crate) async fn reconnect(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        look_up: bool,
    ) -> Result<Arc<Conn>, NetError> {
        let asked = tokio::time::Instant::now();
        let _one = self.calling.lock().await;
        match self.usable() {
            Some(conn) if conn.born.elapsed() < FRESH => Ok(conn),
            _ => self.call(shared, look_up, asked).await,
        }
    }

    async fn call(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        look_up: bool,
        asked: tokio::time::Instant,
    ) -> Result<Arc<Conn>, NetError> {
        let link = shared.links.call(&self.path);
        let result = self.call_on(shared, &link, look_up, asked).await;
        if result.is_err() {
            shared.links.remove(&link);
        }
        result
    }

    async fn call_on(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        link: &Arc<Link>,
        look_up: bool,
        asked: tokio::time::Instant,
    ) -> Result<Arc<Conn>, NetError> {
        let start = tokio::time::Instant::now();
        let mut limit = CALL;
        if self.path.is_silent() {
            limit = CALL_SILENT.saturating_sub(start - asked).max(CALL_AGAIN);
        }
        let mut found = look_up.then(|| Relays::look_up(shared, self.node));
        let mut reason = None;
        while self.path.ask(|agent, _| agent.hops().next().is_none()) {
            match next(&mut found).await {
                Some(Ok(hops)) => self.add_hops(shared, &hops, Source::Record, link),
                Some(Err(why)) => reason = Some(why),
                None => {
                    let nowhere = || "its record names no address and no relay".into();
                    let reason = reason.unwrap_or_else(nowhere);
                    return Err(NetError::UnknownNode { node: self.node, reason });
                }
            }
        }
        let connecting = shared.call(link, Some(self.node))?;
        tokio::pin!(connecting);
        let again = Socket::say_again(&shared.plane, link);
        tokio::pin!(again);
        let mut look_at = None;
        let quic = loop {
            tokio::select! {
                result = &mut connecting => {
                    break result.map_err(|e| self.unreachable(&e.to_string(), reason))?;
                }
                news = next(&mut found), if found.is_some() => match news {
                    Some(Ok(hops)) => self.add_hops(shared, &hops, Source::Record, link),
                    Some(Err(why)) => reason = Some(why),
                    None => {
                        found = None;
                        look_at = Some(tokio::time::Instant::now() + LOOK_AGAIN);
                    }
                },
                () = tokio::time::sleep_until(look_at.unwrap_or(start)), if look_at.is_some() => {
                    look_at = None;
                    found = Some(Relays::look_up(shared, self.node));
                }
                never = &mut again => match never {},
                () = tokio::time::sleep_until(start + limit) => {
                    let heard = link.latest_hop().is_some();
                    if heard && limit < CALL {
                        limit = CALL;
                        continue;
                    }
                    self.path.set_silent(!heard);
                    return Err(self.unreachable(&format!("no answer within {limit:?}"), reason));
                }
            }
        };
        let (_, conn) = Conn::adopt(shared, quic, Arc::clone(link), true)?;
        Ok(conn)
    }

    fn unreachable(&self, what: &str, also: Option<String>) -> NetError {
        let hops: Vec<String> =
            self.path.ask(|agent, _| agent.hops().map(|hop| hop.to_string()).collect());
        let also = also.map(|e| format!("; {e}")).unwrap_or_default();
        let reason = format!("{what} (tried {}){also}", hops.join(", "));
        NetError::Unreachable { node: self.node, reason }
    }
}

/// The next news of a look-up; `None` when there will be none.
async fn next(found: &mut Option<Found>) -> Option<Result<Vec<Hop>, String>> {
    found.as_mut()?.recv().await
}
