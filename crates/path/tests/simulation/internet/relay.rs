//! A relay: the registry, who is there, and the session of the two nodes, by the rules of
//! `crates/relay` in a few lines.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    node::Message,
    random::Random,
    talk::{Channel, Record, Talk, ToClient, ToRelay},
};

/// A connection on which nothing comes for this long ends.
const IDLE: Duration = Duration::from_secs(30);
/// A client that is heard from another address is believed to have moved after this time.
const FOLLOW: Duration = Duration::from_millis(500);

/// What the relays of a fleet, or one relay, know of the nodes.
pub(crate) type Registry = [Option<Record>; 2];

pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    pub(crate) up: bool,
    /// When it was started anew: what was sent before is for its former life.
    since: Option<Instant>,
    /// Which registry it has.
    pub(crate) registry: usize,
    clients: BTreeMap<u64, Client>,
    /// The connection on which each node is registered.
    registered: [Option<u64>; 2],
    /// Where each node was when it registered; outlives a restart.
    observed: [Option<SocketAddr>; 2],
    session: Option<u32>,
    /// Where each node's datagrams come from and go to.
    ends: [Option<SocketAddr>; 2],
    random: Random,
    out: Vec<(SocketAddr, Message)>,
}

struct Client {
    side: usize,
    at: SocketAddr,
    /// Where it was heard instead, and since when.
    elsewhere: Option<(SocketAddr, Instant)>,
    heard: Instant,
    channel: Channel<ToClient, ToRelay>,
}

impl Relay {
    pub(crate) fn new(addr: SocketAddr, registry: usize, seed: u64) -> Self {
        Self {
            addr,
            up: true,
            since: None,
            registry,
            clients: BTreeMap::new(),
            registered: [None; 2],
            observed: [None; 2],
            session: None,
            ends: [None; 2],
            random: Random::new(seed ^ u64::from(addr.port()) << 32),
            out: Vec::new(),
        }
    }

    /// It stops, or starts knowing nothing but where its clients were, which it tells that.
    pub(crate) fn set_up(&mut self, now: Instant, up: bool) {
        (self.up, self.since) = (up, Some(now));
        self.clients.clear();
        (self.registered, self.session, self.ends) = ([None; 2], None, [None; 2]);
        let observed = self.observed.into_iter().flatten().filter(|_| up);
        self.out = observed.map(|to| (to, Message::Restarted)).collect();
    }

    /// Where it sees a node.
    pub(crate) fn seen(&self, side: usize) -> Option<SocketAddr> {
        self.ends[side].filter(|_| self.up)
    }

    /// Whether a node is registered.
    pub(crate) fn has(&self, side: usize) -> bool {
        self.registered[side].is_some()
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        let client = |c: &Client| {
            let follow = c.elsewhere.map(|(_, since)| since + FOLLOW);
            [Some(c.heard + IDLE), follow, c.channel.due()].into_iter().flatten().min()
        };
        self.clients.values().filter_map(client).min().filter(|_| self.up)
    }

    /// Does what is due and returns what is sent.
    pub(crate) fn step(&mut self, now: Instant) -> Vec<(SocketAddr, Message)> {
        if self.due().is_none_or(|at| at > now) {
            return std::mem::take(&mut self.out);
        }
        let idle = |c: &Client| now.saturating_duration_since(c.heard) >= IDLE;
        self.clients.retain(|_, client| !idle(client));
        for registered in &mut self.registered {
            *registered = registered.filter(|call| self.clients.contains_key(call));
        }
        let calls: Vec<u64> = self.clients.keys().copied().collect();
        for call in calls {
            let Some(client) = self.clients.get_mut(&call) else { continue };
            if let Some((addr, since)) = client.elsewhere
                && now.saturating_duration_since(since) >= FOLLOW
            {
                (client.at, client.elsewhere) = (addr, None);
                let side = client.side;
                if self.registered[side] == Some(call) {
                    self.tell_observed(now, call);
                }
            }
            let Some(client) = self.clients.get_mut(&call) else { continue };
            let again = client.channel.repeat(now);
            let again = again.into_iter().map(|(n, m)| Message::Relay(call, Talk::Tell(n, m)));
            self.out.extend(again.map(|message| (client.at, message)));
        }
        std::mem::take(&mut self.out)
    }

    /// A datagram of a session: where it goes, unless its sender is told that it goes nowhere.
    pub(crate) fn forward(&mut self, from: SocketAddr, session: u32) -> Option<SocketAddr> {
        let side = (0..2).find(|side| self.ends[*side] == Some(from));
        let side = side.filter(|_| self.session == Some(session));
        let to = side.and_then(|side| self.ends[1 - side]);
        if to.is_none() {
            self.out.push((from, Message::UnknownSession(session)));
        }
        to
    }

    pub(crate) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        (call, talk): (u64, Talk),
        registry: &mut Registry,
    ) {
        if let Talk::Call(side, sent) = talk {
            if self.since.is_some_and(|since| sent < since) {
                return;
            }
            let fresh = || {
                let channel = Channel::new();
                Client { side, at: from, elsewhere: None, heard: now, channel }
            };
            self.clients.entry(call).or_insert_with(fresh);
            return self.out.push((from, Message::Relay(call, Talk::Welcome(sent))));
        }
        let Some(client) = self.clients.get_mut(&call) else {
            if !matches!(talk, Talk::Reset) {
                self.out.push((from, Message::Relay(call, Talk::Reset)));
            }
            return;
        };
        client.heard = now;
        client.channel.heard(now);
        if from == client.at {
            client.elsewhere = None;
        } else if client.elsewhere.is_none_or(|(addr, _)| addr != from) {
            client.elsewhere = Some((from, now));
        }
        match talk {
            Talk::Ask(number, message) => {
                let (ready, ack) = client.channel.take(number, message);
                self.out.push((client.at, Message::Relay(call, Talk::Ack(ack))));
                for message in ready {
                    self.handle(now, call, message, registry);
                }
            }
            Talk::Ack(before) => client.channel.acknowledged(before),
            Talk::Ping(sent) => self.out.push((client.at, Message::Relay(call, Talk::Pong(sent)))),
            Talk::Reset => {
                self.clients.remove(&call);
            }
            Talk::Call(..) | Talk::Welcome(_) | Talk::Tell(..) | Talk::Pong(_) => {}
        }
    }

    fn handle(&mut self, now: Instant, call: u64, message: ToRelay, registry: &mut Registry) {
        let Some(client) = self.clients.get(&call) else { return };
        let side = client.side;
        let other = 1 - side;
        match message {
            ToRelay::Register(record) => {
                let newer = |known: &Record| known.sequence < record.sequence;
                if registry[side].as_ref().is_none_or(newer) {
                    registry[side] = Some(record);
                }
                self.registered[side] = Some(call);
                self.tell_observed(now, call);
            }
            ToRelay::Find(request) => {
                let peer = self.registered[other].filter(|_| self.registered[side] == Some(call));
                let session = peer.map(|peer| {
                    let session = *self.session.get_or_insert(self.random.next() as u32);
                    self.tell(now, peer, ToClient::Session(session, registry[side].clone()));
                    session
                });
                self.tell(now, call, ToClient::Found(request, registry[other].clone(), session));
            }
            ToRelay::Resume(sessions) => {
                if let [session, ..] = sessions[..] {
                    self.session.get_or_insert(session);
                }
            }
        }
    }

    fn tell_observed(&mut self, now: Instant, call: u64) {
        let Some(client) = self.clients.get(&call) else { return };
        let (side, at) = (client.side, client.at);
        (self.observed[side], self.ends[side]) = (Some(at), Some(at));
        self.tell(now, call, ToClient::Registered(at));
    }

    fn tell(&mut self, now: Instant, call: u64, message: ToClient) {
        let Some(client) = self.clients.get_mut(&call) else { return };
        let number = client.channel.push(now, message.clone());
        self.out.push((client.at, Message::Relay(call, Talk::Tell(number, message))));
    }
}
