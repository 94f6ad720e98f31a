//! A node: an agent, real lanes and a real relay client, and in a few lines what surrounds them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_home::Home;
use gvpn_path::{
    Agent, Event, Hop, Nature, Source, TYPE_PROBE, TYPE_REPLY, Timing, is_socket, socket_addr,
};
use gvpn_session::{DataHeader, OVERHEAD};

use super::{
    client::{Client, News},
    lane::Lane,
    random::Random,
    talk::Talk,
};

/// What nodes and the relay send each other.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    /// With a relay, on the connection of this call.
    Relay(u64, Talk),
    /// A relay does not forward under this number.
    UnknownSession(u32),
    /// A relay has been started anew.
    Restarted,
    /// The three flights of a handshake; the first two with the lane's indices.
    Hello(u64, u32),
    Welcome(u64, u32),
    Finished(u64),
    /// The last flight was heard.
    Done(u64),
    /// Whether a connection is still there.
    Ping(u64),
    Pong,
    /// Such a connection is not known: a stateless reset.
    Reset(u64),
    /// Addresses and what the NAT does, until acknowledged.
    Punch(u64, (Vec<SocketAddr>, Nature), u64),
    PunchAck(u64),
    /// The sender is ready to guess ports.
    Guess(u64),
    /// A sealed probe, reply or packet.
    Sealed(Vec<u8>),
}

const SMALL: u16 = 100;
/// A connection that nobody answers on ends after this time.
const GIVE_UP: Duration = Duration::from_secs(30);
const REPEAT: Duration = Duration::from_millis(300);
/// How long a connection in doubt may keep quiet before another is made.
const DOUBT: Duration = Duration::from_millis(400);
/// How long after one look-up there is another while the peer does not answer.
const LOOK_UP: Duration = Duration::from_secs(1);
/// Lanes that still open what was sealed before a newer one was made.
const LANES: usize = 4;
/// The most addresses that others observed which are kept.
const MAX_OBSERVED: usize = 4;
/// First byte of a packet's plaintext.
const PACKET: u8 = 0x45;
/// What makes a packet's check out of its number.
const CHECK: u64 = 0x9e37_79b9_7f4a_7c15;

pub(crate) struct Node {
    side: usize,
    pub(crate) addr: SocketAddr,
    /// The address that the node believes to have.
    known: Option<SocketAddr>,
    pub(crate) agent: Agent,
    pub(crate) session: bool,
    pub(crate) route: Option<(Hop, u16)>,
    pub(crate) route_changes: u32,
    pub(crate) distress: u32,
    random: Random,
    /// Where relays see it, the newest first.
    observed: VecDeque<SocketAddr>,
    observers: HashMap<SocketAddr, SocketAddr>,
    out: VecDeque<(Hop, Message, u16)>,
    /// The newest last; what is sealed is sealed by it.
    lanes: VecDeque<Lane>,
    /// Answered calls, of which nothing shows yet that the caller has the answer.
    answered: VecDeque<Lane>,
    /// Payload is sent this often while set.
    pub(crate) traffic: Option<Duration>,
    next_data: Instant,
    next_number: u64,
    /// Whether the node calls when it has something to send and no session.
    may_call: bool,
    /// Where the peer was said to be.
    given: Vec<Hop>,
    /// The number of the call, the lane's index, when to repeat.
    calling: Option<(u64, u32, Instant)>,
    /// The number of the call, when to repeat the last flight, when to give up.
    finishing: Option<(u64, Instant, Instant)>,
    /// When to ask again whether the connection is there, and when to make another.
    doubt: Option<(Instant, Instant)>,
    /// The look-up in progress, and when there may be another.
    look_up: Option<u32>,
    next_look_up: Instant,
    pub(crate) client: Client,
    relays: Vec<SocketAddr>,
    nature: Nature,
    /// Sockets for guessing ports: the hop's address, the socket's port, where it leads.
    pub(crate) sockets: Vec<(SocketAddr, u16, SocketAddr)>,
    pub(crate) sockets_opened: u64,
    /// The relay that is asked where it sees the peer.
    pub(crate) asks_where: Option<SocketAddr>,
    /// Number, when to repeat, when to give up.
    punch: Option<(u64, Instant, Instant)>,
    punches: u64,
    sent: Option<Instant>,
    heard: Option<Instant>,
    heard_event: Option<(Hop, Instant)>,
    /// When payload last arrived, and how much.
    pub(crate) got_data: Option<Instant>,
    pub(crate) data: u64,
    /// Packets sealed and sent.
    pub(crate) data_sent: u64,
    seen: HashSet<u64>,
    /// Packets that came twice, or changed.
    pub(crate) harmed: u64,
    pub(crate) forged: u64,
}

impl Node {
    pub(crate) fn new(
        now: Instant,
        seed: u64,
        side: usize,
        relays: &[SocketAddr],
        nature: Nature,
    ) -> Self {
        let mut random = Random::new(seed.wrapping_mul(2).wrapping_add(side as u64));
        let random_seed = random.clone().next();
        let mut agent = Agent::new(Timing::default(), random.next());
        agent.set_nature(nature);
        Self {
            side,
            addr: "0.0.0.0:0".parse().unwrap(),
            known: None,
            agent,
            session: false,
            route: None,
            route_changes: 0,
            distress: 0,
            next_number: random.next(),
            random,
            observed: VecDeque::new(),
            observers: HashMap::new(),
            out: VecDeque::new(),
            lanes: VecDeque::new(),
            answered: VecDeque::new(),
            traffic: None,
            next_data: now,
            may_call: false,
            given: Vec::new(),
            calling: None,
            finishing: None,
            doubt: None,
            look_up: None,
            next_look_up: now,
            client: Client::new(now, random_seed, side, relays),
            relays: relays.to_vec(),
            nature,
            sockets: Vec::new(),
            sockets_opened: 0,
            asks_where: None,
            punch: None,
            punches: 0,
            sent: None,
            heard: None,
            heard_event: None,
            got_data: None,
            data: 0,
            data_sent: 0,
            seen: HashSet::new(),
            harmed: 0,
            forged: 0,
        }
    }

    /// Starts anew: nothing is known but who the peer is.
    pub(crate) fn restart(&mut self, now: Instant) {
        let fresh = Self::new(now, self.random.next(), self.side, &self.relays, self.nature);
        let old = std::mem::replace(self, fresh);
        self.addr = old.addr;
        self.given = old.given;
        self.traffic = old.traffic;
        self.may_call = true;
        // What a test counts goes on.
        (self.got_data, self.data, self.data_sent) = (old.got_data, old.data, old.data_sent);
        (self.seen, self.harmed, self.forged) = (old.seen, old.harmed, old.forged);
    }

    /// Whence and where to a datagram goes that is sent to an address; `None` if that stands for a socket
    /// which is closed.
    pub(crate) fn ends(&self, to: SocketAddr) -> Option<(SocketAddr, SocketAddr)> {
        if !is_socket(to) {
            return Some((self.addr, to));
        }
        let (_, port, to) = self.sockets.iter().find(|(socket, ..)| *socket == to)?;
        Some((SocketAddr::new(self.addr.ip(), *port), *to))
    }

    /// Where a datagram to one of this node's sockets comes from, in the node's eyes.
    pub(crate) fn hears(&self, from: SocketAddr, to: SocketAddr) -> Option<SocketAddr> {
        if to == self.addr {
            return Some(from);
        }
        let here = to.ip() == self.addr.ip();
        let socket = |(_, port, peer): &&(SocketAddr, u16, SocketAddr)| {
            here && *port == to.port() && *peer == from
        };
        self.sockets.iter().find(socket).map(|(socket, ..)| *socket)
    }

    /// All addresses of this node, as it knows them.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.known.into_iter().chain(self.observed.iter().copied()).collect()
    }

    /// Calls a node with this record.
    pub(crate) fn call(&mut self, now: Instant, addrs: &[SocketAddr]) {
        self.given = addrs.iter().map(|addr| Hop::Direct(*addr)).collect();
        self.may_call = true;
        self.connect(now);
    }

    /// Makes a connection, the first or another.
    pub(crate) fn connect(&mut self, now: Instant) {
        for hop in self.given.clone() {
            self.agent.add_candidate(now, hop, Source::Record);
        }
        self.next_look_up = now;
        self.calling = Some((self.random.next(), self.random.next() as u32, now));
    }

    /// The kernel says that the address has changed.
    pub(crate) fn readdressed(&mut self, now: Instant) {
        self.observed.clear();
        self.observers.clear();
        self.known = Some(self.addr);
        self.agent.local_change(now);
        let used = self.relay();
        self.client.look_after(now, used, |home, now| home.handle_moved(now));
        self.client.publish(now, self.addrs());
        self.tell(now);
    }

    /// The relay through which the peer is reached.
    fn relay(&self) -> Option<SocketAddr> {
        self.route.and_then(|(hop, _)| hop.is_relayed().then(|| hop.wire_addr()))
    }

    /// When there is something to do.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let wants = self.traffic.is_some() && self.may_call;
        if !self.out.is_empty()
            || self.known.is_none()
            || (wants && !self.session && self.calling.is_none())
        {
            return Some(now);
        }
        let data = self.traffic.filter(|_| self.session).map(|_| self.next_data);
        let punch = self.punch.filter(|_| self.session).map(|(_, at, _)| at);
        let calling = self.calling.filter(|_| self.traffic.is_some()).map(|(.., at)| at);
        let calls = self.calling.is_some() && self.traffic.is_some() && self.look_up.is_none();
        let look_up = calls.then_some(self.next_look_up);
        let doubt = self.doubt.map(|(at, _)| at);
        let finishing = self.finishing.map(|(_, at, _)| at);
        let own = [self.agent.poll_timeout(now), self.client.due()];
        let timers = [data, punch, calling, look_up, doubt, finishing];
        timers.into_iter().chain(own).flatten().min()
    }

    /// Does what is due and returns what is sent.
    pub(crate) fn step(&mut self, now: Instant) -> Vec<(Hop, Message, u16)> {
        if self.known.is_none() {
            self.known = Some(self.addr);
            self.client.publish(now, self.addrs());
        }
        self.keep_connected(now);
        if let Some((call, at, end)) = self.finishing
            && at <= now
        {
            self.finishing = Some((call, now + REPEAT, end));
            self.spread(now, &Message::Finished(call), SMALL);
            if now >= end {
                self.reset(call);
            }
        }
        self.punch = self.punch.filter(|(.., end)| now < *end);
        if let Some((number, at, end)) = self.punch
            && at <= now
            && let Some(call) = self.connection()
        {
            self.punch = Some((number, now + REPEAT, end));
            let message = Message::Punch(call, (self.addrs(), self.nature), number);
            self.agent.handle_control_sent(now);
            self.spread(now, &message, SMALL);
        }
        self.send_data(now);
        if self.agent.poll_timeout(now).is_some_and(|at| at <= now) {
            self.agent.handle_activity(now, self.sent, self.heard);
            self.agent.handle_timeout(now);
        }
        let used = self.relay();
        for (relay, message) in self.client.step(now, used) {
            self.out.push_back((Hop::Direct(relay), message, SMALL));
        }
        self.learn(now);
        self.flush(now);
        self.out.drain(..).collect()
    }

    /// What came of the conversations with relays.
    fn learn(&mut self, now: Instant) {
        while let Some(news) = self.client.news.pop_front() {
            match news {
                News::Observed(by, addr) => {
                    let changed = self.observers.insert(by, addr) != Some(addr);
                    if changed && !self.observed.contains(&addr) && Some(addr) != self.known {
                        self.observed.push_front(addr);
                        self.observed.truncate(MAX_OBSERVED);
                        self.client.publish(now, self.addrs());
                        self.tell(now);
                    }
                }
                News::Peer(addr) => {
                    self.agent.add_candidate(now, Hop::Direct(addr), Source::Record);
                }
                News::Forwards(relay, session) => {
                    let hop = Hop::Relay { relay, session };
                    let same = |old: &Hop| old.is_relayed() && old.wire_addr() == relay;
                    let old: Vec<Hop> =
                        self.agent.hops().filter(|old| *old != hop && same(old)).collect();
                    self.agent.add_candidate(now, hop, Source::Relay);
                    old.into_iter().for_each(|hop| self.agent.remove_candidate(now, hop));
                }
                News::Arrived if self.session && self.agent.is_in_use(now) => {
                    self.client.look_up(now);
                }
                News::Arrived => {}
                News::Done(look_up) => self.look_up = self.look_up.filter(|l| *l != look_up),
            }
        }
    }

    /// Packets that wait are what makes a node call; silence makes it ask, and call again.
    fn keep_connected(&mut self, now: Instant) {
        if let Some((at, end)) = self.doubt
            && at <= now
        {
            self.doubt = Some((now + REPEAT, end));
            if let Some(call) = self.connection() {
                self.spread(now, &Message::Ping(call), SMALL);
            }
            if now >= end {
                self.doubt = None;
                self.connect(now);
            }
        }
        if self.traffic.is_none() {
            return;
        }
        if !self.session && self.may_call && self.calling.is_none() {
            self.connect(now);
        }
        let Some((call, index, at)) = self.calling else { return };
        if at <= now {
            self.calling = Some((call, index, now + REPEAT));
            self.spread(now, &Message::Hello(call, index), 1200);
        }
        if self.next_look_up <= now && self.look_up.is_none() {
            self.next_look_up = now + LOOK_UP;
            self.look_up = Some(self.client.look_up(now));
        }
    }

    /// The call that made the lane in use.
    fn connection(&self) -> Option<u64> {
        self.lanes.back().filter(|_| self.session).map(|lane| lane.call)
    }

    fn send_data(&mut self, now: Instant) {
        let Some(interval) = self.traffic else { return };
        if now < self.next_data || !self.session {
            return;
        }
        self.next_data = now + interval;
        let (Some((hop, _)), Some(lane)) = (self.route, self.lanes.back()) else { return };
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        let check = number.wrapping_mul(CHECK);
        let text = [&[PACKET][..], &number.to_le_bytes(), &check.to_le_bytes()].concat();
        self.out.push_back((hop, Message::Sealed(lane.seal(&text)), SMALL));
        self.data_sent += 1;
        if self.sent.is_none_or(|sent| now - sent > Duration::from_secs(1)) {
            self.agent.handle_sent(now);
        }
        self.sent = Some(now);
    }

    fn spread(&mut self, now: Instant, message: &Message, size: u16) {
        for hop in self.agent.targets(now) {
            self.out.push_back((hop, message.clone(), size));
        }
    }

    pub(crate) fn receive(&mut self, now: Instant, hop: Hop, message: Message) {
        match message {
            Message::Relay(call, talk) => self.client.receive(now, call, talk),
            Message::UnknownSession(session) => {
                let (used, relay) = (self.relay(), hop.wire_addr());
                self.client.look_after(now, used, |home, now| {
                    home.handle_unknown_session(now, relay, session);
                });
            }
            Message::Restarted => {
                let (used, relay) = (self.relay(), hop.wire_addr());
                self.client.look_after(now, used, |home, now| home.handle_hint(now, relay));
            }
            Message::Hello(call, index) => self.answer(now, hop, call, index),
            Message::Welcome(call, remote) => {
                let Some((_, local, _)) = self.calling.filter(|(known, ..)| *known == call) else {
                    return;
                };
                self.calling = None;
                self.finishing = Some((call, now, now + GIVE_UP));
                self.established(now, hop, Lane::new(call, local, remote, true));
            }
            Message::Finished(call) => {
                self.confirm(now, hop, call);
                // Of a call from a former life nothing is known.
                let known = self.lanes.iter().any(|lane| lane.call == call);
                let answer = if known { Message::Done(call) } else { Message::Reset(call) };
                self.out.push_back((hop, answer, SMALL));
            }
            Message::Done(call) => {
                self.finishing = self.finishing.filter(|(known, ..)| *known != call);
                self.heard_on(now, hop);
            }
            Message::Ping(call) => {
                let known = self.lanes.iter().any(|lane| lane.call == call);
                let answer = if known { Message::Pong } else { Message::Reset(call) };
                self.out.push_back((hop, answer, SMALL));
            }
            Message::Pong => {
                self.heard_on(now, hop);
                self.doubt = None;
            }
            Message::Reset(call) => self.reset(call),
            Message::Punch(call, told, number) => self.punched(now, hop, call, told, number),
            Message::Guess(call) => {
                if self.lanes.iter().any(|lane| lane.call == call) {
                    self.heard_on(now, hop);
                    self.agent.handle_guess_proposed(now);
                }
            }
            Message::PunchAck(number) => {
                self.heard_on(now, hop);
                if self.punch.is_some_and(|(n, ..)| n == number) {
                    self.punch = None;
                }
            }
            Message::Sealed(datagram) => self.open(now, hop, datagram),
        }
        self.learn(now);
        self.flush(now);
    }

    /// Somebody calls: once for all repetitions.
    fn answer(&mut self, now: Instant, hop: Hop, call: u64, remote: u32) {
        self.agent.handle_hint(now, hop);
        let known = self.lanes.iter().chain(&self.answered).find(|lane| lane.call == call);
        let local = match known {
            Some(lane) => lane.local,
            None => {
                let local = self.random.next() as u32;
                self.answered.push_back(Lane::new(call, local, remote, false));
                if self.answered.len() > LANES {
                    self.answered.pop_front();
                }
                local
            }
        };
        self.out.push_back((hop, Message::Welcome(call, local), 1200));
    }

    /// The caller has the answer.
    fn confirm(&mut self, now: Instant, hop: Hop, call: u64) {
        if let Some(at) = self.answered.iter().position(|lane| lane.call == call)
            && let Some(lane) = self.answered.remove(at)
        {
            self.established(now, hop, lane);
        }
    }

    fn reset(&mut self, call: u64) {
        self.lanes.retain(|lane| lane.call != call);
        self.finishing = self.finishing.filter(|(known, ..)| *known != call);
        if self.session && self.lanes.is_empty() {
            self.session = false;
            self.doubt = None;
            self.agent.session_down();
        }
    }

    fn punched(
        &mut self,
        now: Instant,
        hop: Hop,
        call: u64,
        (addrs, nature): (Vec<SocketAddr>, Nature),
        number: u64,
    ) {
        if !self.lanes.iter().any(|lane| lane.call == call) {
            // The handshake's last flight may be on its way; else the peer speaks of a former life.
            if !self.answered.iter().any(|lane| lane.call == call) {
                self.out.push_back((hop, Message::Reset(call), SMALL));
            }
            return;
        }
        self.finishing = self.finishing.filter(|(known, ..)| *known != call);
        self.heard_on(now, hop);
        self.out.push_back((hop, Message::PunchAck(number), SMALL));
        for addr in addrs {
            self.agent.add_candidate(now, Hop::Direct(addr), Source::Told);
        }
        self.agent.set_peer_nature(nature);
        self.agent.punch(now);
    }

    fn open(&mut self, now: Instant, hop: Hop, datagram: Vec<u8>) {
        let index = DataHeader::parse(&datagram).map(|header| header.index);
        let all = self.lanes.iter_mut().chain(&mut self.answered);
        let Some(lane) = all.into_iter().find(|lane| Some(lane.local) == index) else { return };
        let call = lane.call;
        let Some(text) = lane.open(datagram) else {
            self.forged += 1;
            return;
        };
        self.confirm(now, hop, call);
        match text.first() {
            Some(&(TYPE_PROBE | TYPE_REPLY)) => {
                self.heard = Some(now);
                self.agent.handle_probe(now, hop, &text);
            }
            Some(&PACKET) => {
                self.got_data = Some(now);
                self.data += 1;
                self.inspect(&text);
                self.heard_on(now, hop);
            }
            _ => self.harmed += 1,
        }
    }

    fn inspect(&mut self, text: &[u8]) {
        let word =
            |at: usize| text.get(at..at + 8).map(|b| u64::from_le_bytes(b.try_into().unwrap()));
        let fine = match (word(1), word(9)) {
            (Some(number), Some(check)) => {
                number.wrapping_mul(CHECK) == check && self.seen.insert(number)
            }
            _ => false,
        };
        self.harmed += u64::from(!fine);
    }

    fn established(&mut self, now: Instant, hop: Hop, lane: Lane) {
        self.lanes.push_back(lane);
        if self.lanes.len() > LANES {
            self.lanes.pop_front();
        }
        self.session = true;
        self.may_call = true;
        self.doubt = None;
        self.agent.handle_heard(now, hop);
        self.agent.session_up(now);
        self.tell(now);
    }

    /// Something authentic: the data plane tells the agent only now and then.
    fn heard_on(&mut self, now: Instant, hop: Hop) {
        self.heard = Some(now);
        let news = self
            .heard_event
            .is_none_or(|(h, at)| h != hop || now - at > Duration::from_millis(250));
        if news {
            self.heard_event = Some((hop, now));
            self.agent.handle_heard(now, hop);
        }
    }

    /// Tells the peer this node's addresses.
    fn tell(&mut self, now: Instant) {
        self.punches += 1;
        self.punch = Some((self.punches, now, now + GIVE_UP));
    }

    fn flush(&mut self, now: Instant) {
        while let Some(transmit) = self.agent.poll_transmit() {
            let Some(lane) = self.lanes.back() else { continue };
            let overhead = OVERHEAD + transmit.hop.header_len();
            let size = (transmit.bytes.len() + overhead) as u16;
            self.out.push_back((transmit.hop, Message::Sealed(lane.seal(&transmit.bytes)), size));
        }
        while let Some(event) = self.agent.poll_event() {
            match event {
                Event::Route { hop, mtu } => {
                    if self.route.is_some_and(|(old, _)| old != hop) {
                        self.route_changes += 1;
                    }
                    self.route = Some((hop, mtu));
                }
                Event::Distress => {
                    self.distress += 1;
                    match self.relay() {
                        Some(relay) => {
                            let doubt = |home: &mut Home, now| home.doubt(now, relay);
                            self.client.look_after(now, Some(relay), doubt);
                        }
                        None => {
                            self.client.look_up(now);
                        }
                    }
                    if self.session && self.doubt.is_none() && self.calling.is_none() {
                        self.doubt = Some((now, now + DOUBT));
                    }
                }
                Event::Observed { .. } => {}
                Event::Guess => self.asks_where = self.relay(),
                Event::ProposeGuess => {
                    if let Some(call) = self.connection() {
                        self.spread(now, &Message::Guess(call), SMALL);
                    }
                }
                Event::OpenSockets { to, count } => self.open_sockets(to, count),
            }
        }
        if !self.agent.is_guessing() && !self.sockets.is_empty() {
            let agent = &self.agent;
            self.sockets.retain(|s| agent.hops().any(|hop| hop == Hop::Direct(s.0)));
        }
    }

    /// Books are swept.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.agent.sweep(now);
        self.flush(now);
    }

    fn open_sockets(&mut self, to: SocketAddr, count: usize) {
        let mut hops = Vec::with_capacity(count);
        for _ in 0..count {
            self.sockets_opened += 1;
            let socket = socket_addr(self.sockets_opened);
            let port = 10_000 + (self.sockets_opened % 50_000) as u16;
            self.sockets.push((socket, port, to));
            hops.push(Hop::Direct(socket));
        }
        self.agent.guess_from(hops);
    }
}
