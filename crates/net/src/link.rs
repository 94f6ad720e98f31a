//! Which connection a QUIC packet belongs to, and which ways the packets of a connection take.
//!
//! Each connection (or attempt at one) has a [`Link`] and a virtual address. Arriving packets find
//! their link by the connection id that this node gave out, which is learnt from the packets that
//! QUIC sends, so that it does not matter which way they come.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use gvpn_dataplane::Hop;
use gvpn_model::NodeId;
use gvpn_path::{MIN_MTU, QUIC_MTU, Tier};
use parking_lot::{Mutex, RwLock};
use quinn::udp::Transmit;

use crate::{
    flight::Flight,
    mapped, parts,
    path::PeerPath,
    ways::Ways,
    wire::{Header, LocalCid},
};

/// Links of callers that did not prove who they are yet, and of strangers.
const MAX_PENDING: usize = 4096;
/// Ways that a call is answered on before it is known who calls.
const MAX_CALLER_HOPS: usize = 4;
/// A call that is not a connection by then is forgotten.
const PENDING_FOR: Duration = Duration::from_secs(30);
/// Without an answer for this long, packets go out on all hops again.
const PATIENCE: Duration = Duration::from_millis(400);
/// An unproven caller of an ordinary node is sent at most this many times what it sent, on each
/// hop (RFC 9000, 8.1).
pub(crate) const AMPLIFICATION: usize = 3;
/// Without an answer for this long, the packets of a handshake go out in parts as well: the path may
/// be narrower than they are.
const WHOLE_FOR: Duration = Duration::from_millis(250);
/// Bytes before a relayed datagram.
const RELAY_HEADER: usize = 8;
/// Hops that are known to bring parts.
const MAX_NARROW: usize = 16;

/// The ways of one connection.
#[derive(Debug)]
pub(crate) struct Link {
    id: u64,
    born: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The peer's path, once it is known who the peer is (from the start, if it was called).
    path: Option<Arc<PeerPath>>,
    /// The handshake is complete: what arrives comes from the peer.
    established: bool,
    /// Ways known to this link only: where a caller's packets came from, or an address called
    /// without knowing whose it is.
    hops: Vec<OwnHop>,
    /// Where the first answer came from, or the first after a silence.
    answered: Option<Hop>,
    /// Where the latest packet came from.
    latest: Option<Hop>,
    /// The first packet sent since then.
    unanswered_since: Option<Instant>,
    /// Hops on which parts of datagrams came: whole ones may not pass there.
    narrow: Vec<Hop>,
    /// What this end said last of the handshake.
    flight: Flight,
    /// Hops that its packets were sent on.
    tried: HashSet<Hop>,
    cids: Vec<LocalCid>,
    /// The id that a caller made up for this node, if this is a call that came in.
    initial: Option<Vec<u8>>,
    /// That call is being answered, or was.
    claimed: bool,
}

/// A way that datagrams take now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sending {
    pub(crate) hop: Hop,
    /// How many bytes of them.
    pub(crate) size: usize,
    pub(crate) form: Form,
}

/// In which form datagrams are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As they are.
    Whole,
    /// In parts that with all that is before them are UDP payloads of at most this size.
    Parts(u16),
    /// As they are, and in parts that pass wherever anything does.
    Both,
}

#[derive(Debug)]
struct OwnHop {
    hop: Hop,
    /// What may be sent before the peer has proven who it is; `None` if this node called.
    budget: Option<usize>,
}

impl Link {
    /// The address that stands for this link.
    pub(crate) fn address(&self) -> SocketAddr {
        mapped::address(self.id)
    }

    /// The handshake is complete, and proved whose path this is. Returns whether some of its packets
    /// are to be sent [`again`](Self::again) all the same.
    fn establish(&self, path: &Arc<PeerPath>) -> bool {
        let mut state = self.state.lock();
        state.path = Some(Arc::clone(path));
        state.established = true;
        let hops = std::mem::take(&mut state.hops);
        let called = hops.is_empty();
        let more = state.flight.completed() && called;
        if !more {
            state.flight = Flight::default();
            state.flight.completed();
        }
        let heard = if called { state.answered } else { state.latest };
        let narrow = std::mem::take(&mut state.narrow);
        drop(state);
        path.tell(|agent, now| {
            for own in hops {
                agent.handle_hint(now, own.hop);
            }
            match heard {
                Some(hop) if called => agent.handle_answered(now, hop),
                Some(hop) => agent.handle_heard(now, hop),
                None => {}
            }
            for hop in narrow {
                agent.handle_narrow(hop);
            }
        });
        more
    }

    /// Whole datagrams do not pass on this hop.
    pub(crate) fn narrows(&self, hop: Hop) {
        self.state.lock().narrows(hop);
    }

    /// Whether this is a call that came in and that nobody answers: the asker does from now on. QUIC
    /// takes late copies of a handshake's packets for calls, once it has retired the ids that they
    /// name; they must not harm the connection.
    pub(crate) fn claim(&self) -> bool {
        let mut state = self.state.lock();
        state.initial.is_some() && !std::mem::replace(&mut state.claimed, true)
    }

    /// The hop on which the latest packet arrived.
    pub(crate) fn latest_hop(&self) -> Option<Hop> {
        self.state.lock().latest
    }

    /// Packets that began the handshake, if nothing answered yet, and which of these hops they
    /// have not been sent on.
    pub(crate) fn unanswered_flight(&self, hops: &[Hop]) -> (Vec<Vec<u8>>, Vec<Hop>) {
        let mut state = self.state.lock();
        let packets: Vec<_> = state.flight.packets().map(<[u8]>::to_vec).collect();
        if state.answered.is_some() || packets.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let untried: Vec<Hop> =
            hops.iter().filter(|hop| !state.tried.contains(hop)).copied().collect();
        state.tried.extend(&untried);
        (packets, untried)
    }

    /// Packets of the handshake that are to be sent again now, and where and how.
    pub(crate) fn again(&self, now: Instant) -> Vec<(Vec<Sending>, Vec<u8>)> {
        let mut state = self.state.lock();
        let packets = state.flight.again(now).into_iter();
        let sendings = |packet: Vec<u8>| (state.where_heard(packet.len()), packet);
        packets.map(sendings).collect()
    }

    /// Where to send these datagrams now, how many bytes of them, and how.
    pub(crate) fn send_to(&self, now: Instant, transmit: &Transmit<'_>) -> Vec<Sending> {
        let size = transmit.contents.len();
        let Some(path) = self.known_path() else {
            let mut state = self.state.lock();
            state.remember(now, transmit);
            let form = state.form_of_first(now);
            return state.own_hops(size, transmit.segment_size, form);
        };
        let hops = self.hops_to_peer(now, transmit, &path).into_iter();
        hops.map(|(hop, form)| Sending { hop, size, form }).collect()
    }

    fn known_path(&self) -> Option<Arc<PeerPath>> {
        self.state.lock().path.clone()
    }

    fn hops_to_peer(
        &self,
        now: Instant,
        transmit: &Transmit<'_>,
        path: &Arc<PeerPath>,
    ) -> Vec<(Hop, Form)> {
        let mut state = self.state.lock();
        state.remember(now, transmit);
        if state.established {
            drop(state);
            return path.tell(|agent, now| {
                agent.handle_control_sent(now);
                let hops = agent.targets(now).into_iter();
                hops.map(|hop| (hop, form_on(agent.mtu(hop)))).collect()
            });
        }
        let form = state.form_of_first(now);
        let since = state.unanswered_since.unwrap_or(now);
        let silent = now.saturating_duration_since(since) >= PATIENCE;
        let hops = match state.answered {
            Some(hop) if !silent => vec![hop],
            _ if !silent => path.ask(|agent, now| agent.targets(now)),
            answered => {
                let mut all: Vec<Hop> = path.ask(|agent, _| agent.hops().collect());
                all.extend(answered.filter(|hop| !all.contains(hop)));
                all
            }
        };
        state.tried.extend(&hops);
        hops.into_iter().map(|hop| (hop, state.form(hop, form))).collect()
    }

    /// Takes note of a datagram that arrived, and of how much may be sent back for it as long as
    /// the caller is not proven.
    fn received(&self, hop: Hop, earned: usize, in_parts: bool) {
        let mut state = self.state.lock();
        if in_parts && !state.established {
            state.narrows(hop);
        }
        let silent = state.unanswered_since.is_some_and(|since| since.elapsed() >= PATIENCE);
        if state.answered.is_none() || silent {
            state.answered = Some(hop);
        }
        state.latest = Some(hop);
        state.unanswered_since = None;
        if !state.established {
            state.flight.heard(Instant::now());
        }
        let Some(path) = state.path.clone() else { return state.earn(hop, earned) };
        let established = state.established;
        drop(state);
        if established {
            path.tell(|agent, now| {
                if agent.active() == Some(hop) {
                    agent.handle_heard(now, hop);
                } else {
                    agent.handle_hint(now, hop);
                }
            });
        }
    }

    fn is_established(&self) -> bool {
        self.state.lock().established
    }
}

impl State {
    fn remember(&mut self, now: Instant, transmit: &Transmit<'_>) {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        transmit.contents.chunks(size).for_each(|packet| self.flight.sent(now, packet));
    }

    /// Where the other end was heard, or may be: so much may be sent there.
    fn where_heard(&mut self, size: usize) -> Vec<Sending> {
        if self.path.is_none() {
            return self.own_hops(size, None, Form::Whole);
        }
        let hops = match self.answered {
            Some(hop) => vec![hop],
            None => self.tried.iter().copied().collect(),
        };
        let form = |hop| Sending { hop, size, form: self.form(hop, Form::Whole) };
        hops.into_iter().map(form).collect()
    }

    fn earn(&mut self, hop: Hop, earned: usize) {
        if let Some(own) = self.hops.iter_mut().find(|own| own.hop == hop) {
            own.budget = own.budget.map(|b| b.saturating_add(earned));
        } else if self.hops.len() < MAX_CALLER_HOPS {
            self.hops.push(OwnHop { hop, budget: Some(earned) });
        }
    }

    /// How the packets of a handshake go out; on hops that brought parts, in parts.
    fn form_of_first(&mut self, now: Instant) -> Form {
        let since = *self.unanswered_since.get_or_insert(now);
        let patient = now.saturating_duration_since(since) < WHOLE_FOR;
        if patient { Form::Whole } else { Form::Both }
    }

    fn form(&self, hop: Hop, otherwise: Form) -> Form {
        match hop.tier() {
            Tier::Stream => Form::Whole,
            _ if self.narrow.contains(&hop) => Form::Parts(MIN_MTU),
            _ => otherwise,
        }
    }

    fn narrows(&mut self, hop: Hop) {
        if self.narrow.len() < MAX_NARROW && !self.narrow.contains(&hop) {
            self.narrow.push(hop);
        }
    }

    /// The hops of an unproven caller, or of one that was called without knowing who it is, and
    /// how much of so many bytes, in whole datagrams, may be sent on each.
    fn own_hops(&mut self, size: usize, segment: Option<usize>, form: Form) -> Vec<Sending> {
        let segment = segment.unwrap_or(size).max(1);
        let mut hops = std::mem::take(&mut self.hops);
        let allowed = hops.iter_mut().filter_map(|own| {
            let hop = own.hop;
            let Some(budget) = &mut own.budget else {
                return Some(Sending { hop, size, form: self.form(hop, form) });
            };
            let form = self.form(hop, Form::Whole);
            // Parts have headers, which count.
            let cost = |bytes: usize| bytes + extra(form, segment) * bytes.div_ceil(segment);
            let some = *budget / cost(segment) * segment;
            let part = if *budget >= cost(size) { size } else { some.min(size) };
            *budget -= cost(part);
            (part > 0).then_some(Sending { hop, size: part, form })
        });
        let allowed = allowed.collect();
        self.hops = hops;
        allowed
    }
}

/// The form of datagrams on a hop of an established connection.
fn form_on(mtu: u16) -> Form {
    if mtu < QUIC_MTU { Form::Parts(mtu) } else { Form::Whole }
}

/// How many bytes more a datagram takes in this form, at most.
fn extra(form: Form, datagram: usize) -> usize {
    match form {
        Form::Whole => 0,
        Form::Parts(_) | Form::Both => {
            let part = usize::from(MIN_MTU) - parts::HEADER - RELAY_HEADER;
            datagram.div_ceil(part) * parts::HEADER
        }
    }
}

/// All links of a node.
#[derive(Debug)]
pub(crate) struct Links {
    tables: RwLock<Tables>,
    ways: Arc<Ways>,
    next: AtomicU64,
    /// An unproven caller is sent at most this many times what it sent.
    amplification: usize,
}

#[derive(Debug, Default)]
struct Tables {
    by_id: HashMap<u64, Arc<Link>>,
    /// Established ones.
    by_peer: HashMap<NodeId, Vec<Arc<Link>>>,
    by_cid: HashMap<LocalCid, Arc<Link>>,
    /// Calls that came in, by the id that the caller made up for this node.
    by_initial: HashMap<Vec<u8>, Arc<Link>>,
    /// Where packets of no known connection came from, so that QUIC can say so.
    strangers: HashMap<Hop, Arc<Link>>,
    pending: usize,
}

impl Links {
    pub(crate) fn new(amplification: usize) -> Self {
        let (tables, ways) = (RwLock::default(), Arc::default());
        Self { tables, ways, next: AtomicU64::new(0), amplification }
    }

    /// Which peers may be at the other end of a hop: to be kept by their paths.
    pub(crate) fn ways(&self) -> Arc<Ways> {
        Arc::clone(&self.ways)
    }

    /// The handshake of a link is complete, and proved whose path this is. Returns whether some of
    /// its packets are to be sent [`again`](Link::again) all the same.
    pub(crate) fn establish(&self, link: &Arc<Link>, path: &Arc<PeerPath>) -> bool {
        let mut tables = self.tables.write();
        tables.by_peer.entry(path.node()).or_default().push(Arc::clone(link));
        drop(tables);
        link.establish(path)
    }

    /// A link for calling a peer.
    pub(crate) fn call(&self, path: &Arc<PeerPath>) -> Arc<Link> {
        self.add(State { path: Some(Arc::clone(path)), ..State::default() })
    }

    /// A link for calling whoever answers at a hop.
    pub(crate) fn call_hop(&self, hop: Hop) -> Arc<Link> {
        self.add(State { hops: vec![OwnHop { hop, budget: None }], ..State::default() })
    }

    /// The link that an address stands for.
    pub(crate) fn get(&self, address: SocketAddr) -> Option<Arc<Link>> {
        self.tables.read().by_id.get(&mapped::id(address)?).cloned()
    }

    /// The connection is no more.
    pub(crate) fn remove(&self, link: &Link) {
        let mut tables = self.tables.write();
        tables.by_id.remove(&link.id);
        let state = link.state.lock();
        if let Some(node) = state.path.as_ref().map(|path| path.node())
            && let Some(links) = tables.by_peer.get_mut(&node)
        {
            links.retain(|other| other.id != link.id);
            if links.is_empty() {
                tables.by_peer.remove(&node);
            }
        }
        for cid in &state.cids {
            tables.by_cid.remove(cid);
        }
        if let Some(initial) = &state.initial {
            tables.by_initial.remove(initial);
        }
    }

    /// Learns the connection id that a packet of this link gives to the peer.
    pub(crate) fn learn(&self, link: &Arc<Link>, packet: &[u8]) {
        let Some(Header::Long { src, .. }) = Header::parse(packet) else { return };
        let Ok(cid) = LocalCid::try_from(src) else { return };
        let mut state = link.state.lock();
        if state.established || state.cids.contains(&cid) {
            return;
        }
        state.cids.push(cid);
        drop(state);
        self.tables.write().by_cid.insert(cid, Arc::clone(link));
    }

    /// The links that a datagram is for: one, if it can be told; none if it is not QUIC.
    /// `size` is how many bytes came, with those around parts.
    pub(crate) fn route(
        &self,
        hop: Hop,
        packet: &[u8],
        size: usize,
        in_parts: bool,
    ) -> Vec<Arc<Link>> {
        let Some(header) = Header::parse(packet) else { return Vec::new() };
        let known = {
            let tables = self.tables.read();
            match header {
                Header::Short(cid) => tables.by_cid.get(&cid).cloned(),
                Header::Long { dst, .. } => LocalCid::try_from(dst)
                    .ok()
                    .and_then(|cid| tables.by_cid.get(&cid))
                    .or_else(|| tables.by_initial.get(dst))
                    .cloned(),
            }
        };
        let links = match (known, header) {
            (Some(link), _) => vec![link],
            (None, Header::Long { initial: true, dst, .. }) => self.caller(dst),
            (None, Header::Long { .. }) => Vec::new(),
            (None, Header::Short(_)) => return self.resettable(hop, size),
        };
        for link in &links {
            link.received(hop, size * self.amplification, in_parts);
        }
        links
    }

    /// Forgets calls that did not become connections.
    pub(crate) fn sweep(&self, now: Instant) {
        let stale = |link: &Link| {
            let state = link.state.lock();
            let pending = !state.established && state.hops.iter().all(|h| h.budget.is_some());
            pending
                && state.path.is_none()
                && now.saturating_duration_since(link.born) > PENDING_FOR
        };
        let mut tables = self.tables.write();
        let Tables { by_id, by_peer: _, by_cid, by_initial, strangers, pending } = &mut *tables;
        by_id.retain(|_, link| !stale(link));
        by_cid.retain(|_, link| by_id.contains_key(&link.id));
        by_initial.retain(|_, link| by_id.contains_key(&link.id));
        strangers.retain(|_, link| by_id.contains_key(&link.id));
        *pending = by_initial.len() + strangers.len();
    }

    fn add(&self, state: State) -> Arc<Link> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link { id, born: Instant::now(), state: Mutex::new(state) });
        self.tables.write().by_id.insert(id, Arc::clone(&link));
        link
    }

    /// A link for a call that comes in.
    fn caller(&self, initial: &[u8]) -> Vec<Arc<Link>> {
        if !self.reserve() {
            return Vec::new();
        }
        let initial = initial.to_vec();
        let link = self.add(State { initial: Some(initial.clone()), ..State::default() });
        self.tables.write().by_initial.insert(initial, Arc::clone(&link));
        vec![link]
    }

    /// A packet for an unknown connection id: one that QUIC gave the peer in secret, as it does
    /// to whoever was called at the end of the handshake; or the peer says that it does not know
    /// a connection of ours (a stateless reset, which names none), or means one that we do not
    /// know. QUIC finds the connection, but takes a packet only from the address that it has.
    fn resettable(&self, hop: Hop, size: usize) -> Vec<Arc<Link>> {
        let peers = self.ways.peers(hop);
        let tables = self.tables.read();
        let mut links: Vec<_> = peers
            .iter()
            .flat_map(|node| tables.by_peer.get(node).into_iter().flatten())
            .filter(|link| link.is_established())
            .cloned()
            .collect();
        let stranger = tables.strangers.get(&hop).cloned();
        drop(tables);
        if let Some(link) = stranger {
            link.state.lock().earn(hop, size * self.amplification);
            links.push(link);
        } else if links.is_empty() && self.reserve() {
            let link = self.add(State::default());
            link.state.lock().earn(hop, size * self.amplification);
            self.tables.write().strangers.insert(hop, Arc::clone(&link));
            links.push(link);
        }
        links
    }

    fn reserve(&self) -> bool {
        let mut tables = self.tables.write();
        let free = tables.pending < MAX_PENDING;
        tables.pending += usize::from(free);
        free
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packets() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
        let first = prop_oneof![Just(0xc0u8), Just(0xc3), Just(0xe0), Just(0x40), any::<u8>()];
        let rest = prop::collection::vec(any::<u8>(), 0..60);
        let packet =
            (any::<u16>(), first, any::<bool>(), rest).prop_map(|(from, first, v1, rest)| {
                let version: &[u8] = if v1 { &[0, 0, 0, 1] } else { &[] };
                (from, [&[first][..], version, &rest].concat())
            });
        prop::collection::vec(packet, 1..60)
    }

    proptest! {
        #[test]
        fn a_stranger_is_sent_no_more_than_it_sent(packets in packets()) {
            let links = Links::new(1);
            let mut sent = HashMap::<Hop, usize>::new();
            let mut budget = HashMap::<Hop, usize>::new();
            for (port, packet) in packets {
                let hop = Hop::Direct(SocketAddr::new([192, 0, 2, 1].into(), port % 4));
                *sent.entry(hop).or_default() += packet.len();
                for link in links.route(hop, &packet, packet.len(), port % 2 == 0) {
                    for sending in link.state.lock().own_hops(25, Some(10), Form::Both) {
                        let size = sending.size;
                        prop_assert!(size == 25 || size % 10 == 0);
                        let headers = extra(sending.form, 10) * size.div_ceil(10);
                        *budget.entry(hop).or_default() += size + headers;
                    }
                }
            }
            for (hop, answered) in budget {
                prop_assert!(answered <= sent.get(&hop).copied().unwrap_or_default());
            }
        }
    }

    /// A thousand peers with a connection each, and the hop that leads to each.
    fn peers(links: &Links) -> Vec<(Arc<Link>, Hop)> {
        let config = gvpn_dataplane::Config {
            listen: vec![([127, 0, 0, 1], 0).into()],
            workers: 1,
            offloads: gvpn_dataplane::Offloads::ALL,
        };
        let (plane, ..) = gvpn_dataplane::DataPlane::start(config).unwrap();
        let (events, _) = tokio::sync::mpsc::unbounded_channel();
        let peer = |i: u32| {
            let node = format!("0x{i:040x}").parse::<NodeId>().unwrap();
            let (plane, events) = (plane.clone(), events.clone());
            let path =
                PeerPath::new(node, plane, events, links.ways(), (gvpn_path::Timing::default(), 1));
            let hop = Hop::Direct(SocketAddr::new(i.to_be_bytes().into(), 7));
            path.tell(|agent, now| agent.add_candidate(now, hop, gvpn_path::Source::Told));
            let link = links.call(&path);
            links.establish(&link, &path);
            (link, hop)
        };
        (1..=1000).map(peer).collect()
    }

    #[tokio::test]
    async fn a_packet_of_no_known_connection_concerns_only_who_may_have_sent_it() {
        let links = Arc::new(Links::new(1));
        let peers = peers(&links);
        let reset = [0x40; 30];
        let (link, hop) = &peers[500];
        // All others are held: whoever looked at one of them would wait for ever.
        let held: Vec<_> = peers.iter().filter(|(l, _)| l.id != link.id).collect();
        let held: Vec<_> = held.iter().map(|(l, _)| l.state.lock()).collect();
        let (found, answer) = std::sync::mpsc::channel();
        let (task, hop) = (Arc::clone(&links), *hop);
        std::thread::spawn(move || found.send(task.route(hop, &reset, 30, false)));
        let routed = answer.recv_timeout(Duration::from_secs(60)).expect("no other is looked at");
        assert!(routed.len() == 1 && Arc::ptr_eq(&routed[0], link));
        drop(held);
        links.remove(link);
        let stranger = links.route(hop, &reset, 30, false);
        assert!(stranger.len() == 1 && !Arc::ptr_eq(&stranger[0], link));
        assert_eq!(links.tables.read().by_peer.len(), 999);
    }

    #[test]
    fn strangers_are_few_and_forgotten() {
        let links = Links::new(1);
        for i in 0..2 * MAX_PENDING as u32 {
            let hop = Hop::Direct(SocketAddr::new(i.to_be_bytes().into(), 1));
            let initial = [&[0xc0, 0, 0, 0, 1, 8, 1, 2, 3, 4][..], &i.to_be_bytes(), &[0]].concat();
            links.route(hop, &initial, initial.len(), false);
            links.route(hop, &[0x40; 30], 30, false);
        }
        assert_eq!(links.tables.read().by_id.len(), MAX_PENDING);
        links.sweep(Instant::now() + PENDING_FOR + Duration::from_secs(1));
        let tables = links.tables.read();
        assert!(tables.by_id.is_empty() && tables.by_initial.is_empty() && tables.pending == 0);
    }
}
