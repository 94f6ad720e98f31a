//! The relay client of a node: what really decides about relays, and in a few lines the connections
//! on which it is carried out.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_home::{Action, Activity, Answer, Home, Request, Timing};
use gvpn_model::NodeId;

use super::{
    node::Message,
    random::Random,
    talk::{Channel, Record, Talk, ToClient, ToRelay},
};

/// How long a call may take, and how often it is repeated.
const CALL: Duration = Duration::from_secs(5);
const REPEAT: Duration = Duration::from_millis(300);

/// What the node learns.
#[derive(Debug)]
pub(crate) enum News {
    /// A relay sees this node there.
    Observed(SocketAddr, SocketAddr),
    /// The peer may be there.
    Peer(SocketAddr),
    /// A relay forwards to the peer under this number, and under no other.
    Forwards(SocketAddr, u32),
    /// A look-up has come to its end.
    Done(u32),
    /// A relay has come.
    Arrived,
}

pub(crate) struct Client {
    side: usize,
    pub(crate) home: Home,
    random: Random,
    talks: BTreeMap<u64, Conversation>,
    /// This node's addresses, for its record.
    addrs: Vec<SocketAddr>,
    out: Vec<(SocketAddr, Message)>,
    pub(crate) news: VecDeque<News>,
    /// How often the relays were told something or asked for something, but for signs of life.
    pub(crate) requests: u64,
    pub(crate) pings: u64,
    /// How often another relay became home while the former was connected.
    pub(crate) moves: u64,
    was_home: Option<SocketAddr>,
}

struct Conversation {
    relay: SocketAddr,
    /// The call's number on the wire, where those of former lives are too.
    wire: u64,
    /// The call is not answered yet: when it is repeated, when it fails.
    calling: Option<(Instant, Instant)>,
    channel: Channel<ToRelay, ToClient>,
    received: u64,
    rtt: Duration,
    /// When a sign of life that did not come is asked for again, and how long that takes.
    asking: Option<(Instant, Duration)>,
}

/// The id of the node on this side.
pub(crate) fn id(side: usize) -> NodeId {
    format!("0x{:040x}", side + 1).parse().unwrap()
}

impl Client {
    pub(crate) fn new(now: Instant, seed: u64, side: usize, relays: &[SocketAddr]) -> Self {
        Self {
            side,
            home: Home::new(now, relays, Timing::default()),
            random: Random::new(seed ^ 0x0c11_e274),
            talks: BTreeMap::new(),
            addrs: Vec::new(),
            out: Vec::new(),
            news: VecDeque::new(),
            requests: 0,
            pings: 0,
            moves: 0,
            was_home: None,
        }
    }

    /// Relays that a connection is there with.
    pub(crate) fn connected(&self) -> Vec<SocketAddr> {
        self.home.connections().map(|(relay, _)| relay).collect()
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        let talks = self.talks.values().flat_map(|talk| {
            let calling = talk.calling.map(|(again, end)| again.min(end));
            [calling, talk.channel.due(), talk.asking.map(|(at, _)| at)].into_iter().flatten()
        });
        talks.chain(self.home.poll_timeout()).min()
    }

    /// This node is there from now on.
    pub(crate) fn publish(&mut self, now: Instant, addrs: Vec<SocketAddr>) {
        self.addrs = addrs;
        self.home.publish(now);
        self.act(now);
    }

    /// As the net does it: what has happened on the connections is told first.
    pub(crate) fn look_after(
        &mut self,
        now: Instant,
        used: Option<SocketAddr>,
        what: impl FnOnce(&mut Home, Instant),
    ) {
        for (call, talk) in &self.talks {
            let used = used == Some(talk.relay);
            let activity = Activity { received: talk.received, rtt: talk.rtt, used };
            self.home.handle_activity(now, *call, &activity);
        }
        what(&mut self.home, now);
        self.act(now);
    }

    pub(crate) fn look_up(&mut self, now: Instant) -> u32 {
        let look_up = self.home.look_up(now, id(1 - self.side));
        self.act(now);
        look_up
    }

    /// Does what is due and returns what is sent.
    pub(crate) fn step(
        &mut self,
        now: Instant,
        used: Option<SocketAddr>,
    ) -> Vec<(SocketAddr, Message)> {
        if self.due().is_none_or(|at| at > now) {
            return std::mem::take(&mut self.out);
        }
        if self.home.poll_timeout().is_some_and(|at| at <= now) {
            self.look_after(now, used, Home::handle_timeout);
        }
        let mut failed = Vec::new();
        for (call, talk) in &mut self.talks {
            let mut say = |what| self.out.push((talk.relay, Message::Relay(talk.wire, what)));
            if let Some((again, end)) = &mut talk.calling {
                if *end <= now {
                    failed.push(*call);
                } else if *again <= now {
                    *again = now + REPEAT;
                    say(Talk::Call(self.side, now));
                }
            }
            talk.channel.repeat(now).into_iter().for_each(|(n, m)| say(Talk::Ask(n, m)));
            if let Some((at, gap)) = &mut talk.asking
                && *at <= now
            {
                *gap *= 2;
                *at = now + *gap;
                say(Talk::Ping(now));
            }
        }
        for call in failed {
            self.ended(now, call, "no answer");
        }
        std::mem::take(&mut self.out)
    }

    pub(crate) fn receive(&mut self, now: Instant, wire: u64, what: Talk) {
        let Some((call, talk)) = self.talks.iter_mut().find(|(_, talk)| talk.wire == wire) else {
            return;
        };
        let call = *call;
        if matches!(what, Talk::Reset) {
            return self.ended(now, call, "reset");
        }
        talk.received += 1;
        talk.asking = None;
        talk.channel.heard(now);
        match what {
            Talk::Welcome(sent) if talk.calling.take().is_some() => {
                talk.rtt = now - sent;
                self.home.handle_connected(now, call, now - sent);
                self.news.push_back(News::Arrived);
                self.act(now);
            }
            Talk::Pong(sent) => talk.rtt = (talk.rtt * 7 + (now - sent)) / 8,
            Talk::Ack(before) => talk.channel.acknowledged(before),
            Talk::Tell(number, message) => {
                let (ready, ack) = talk.channel.take(number, message);
                let relay = talk.relay;
                self.out.push((relay, Message::Relay(wire, Talk::Ack(ack))));
                for message in ready {
                    self.handle(now, relay, message);
                }
            }
            _ => {}
        }
    }

    fn handle(&mut self, now: Instant, relay: SocketAddr, message: ToClient) {
        match message {
            ToClient::Registered(observed) => self.news.push_back(News::Observed(relay, observed)),
            ToClient::Found(request, record, session) => {
                let answer = record.ok_or_else(|| "not registered there".to_owned());
                let answer =
                    answer.map(|Record { addrs, relays, .. }| Answer { addrs, relays, session });
                self.home.handle_found(now, relay, request, answer);
            }
            ToClient::Session(session, record) => {
                self.home.handle_session(relay, session, id(1 - self.side));
                let addrs = record.into_iter().flat_map(|record| record.addrs);
                self.news.extend(addrs.map(News::Peer));
            }
        }
        self.act(now);
    }

    fn ended(&mut self, now: Instant, call: u64, reason: &str) {
        self.talks.remove(&call);
        self.home.handle_ended(now, call, reason);
        self.act(now);
    }

    fn act(&mut self, now: Instant) {
        while let Some(action) = self.home.poll_action() {
            match action {
                Action::Call { relay, call } => self.call(now, relay, call),
                Action::HangUp { relay, call, .. } => {
                    if let Some(talk) = self.talks.remove(&call) {
                        self.out.push((relay, Message::Relay(talk.wire, Talk::Reset)));
                    }
                    self.home.handle_ended(now, call, "hung up");
                }
                Action::Send { relay, call, request } => self.send(now, relay, call, request),
                Action::Ping { relay, call } => {
                    let Some(talk) = self.talks.get_mut(&call) else { continue };
                    self.pings += 1;
                    talk.asking = Some((now + REPEAT, REPEAT));
                    self.out.push((relay, Message::Relay(talk.wire, Talk::Ping(now))));
                }
                Action::Session { relay, session, .. } => {
                    self.news.push_back(News::Forwards(relay, session));
                }
                Action::Way { addrs, .. } => self.news.extend(addrs.into_iter().map(News::Peer)),
                Action::Done { look_up, .. } => self.news.push_back(News::Done(look_up)),
            }
        }
        let home = self.home.home();
        if home != self.was_home {
            let former = self.was_home.filter(|was| self.connected().contains(was));
            self.moves += u64::from(former.is_some());
            self.was_home = home;
        }
    }

    fn call(&mut self, now: Instant, relay: SocketAddr, call: u64) {
        let wire = self.random.next();
        let talk = Conversation {
            relay,
            wire,
            calling: Some((now + REPEAT, now + CALL)),
            channel: Channel::new(),
            received: 0,
            rtt: Duration::ZERO,
            asking: None,
        };
        self.talks.insert(call, talk);
        self.out.push((relay, Message::Relay(wire, Talk::Call(self.side, now))));
    }

    fn send(&mut self, now: Instant, relay: SocketAddr, call: u64, request: Request) {
        let Some(talk) = self.talks.get_mut(&call) else { return };
        self.requests += 1;
        let message = match request {
            Request::Register { relays } => {
                // Each is later than the one before.
                let sequence = now + Duration::from_nanos(self.requests);
                let record = Record { sequence, addrs: self.addrs.clone(), relays };
                ToRelay::Register(record)
            }
            Request::Resume { sessions } => {
                ToRelay::Resume(sessions.into_iter().map(|(session, _)| session).collect())
            }
            Request::Find { request, .. } => ToRelay::Find(request),
        };
        let number = talk.channel.push(now, message.clone());
        self.out.push((relay, Message::Relay(talk.wire, Talk::Ask(number, message))));
    }
}
