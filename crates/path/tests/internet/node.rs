//! A node: an agent, and in a few lines what surrounds it in reality.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_path::{Agent, Event, Hop, Source, Timing};

use super::{RELAY, SESSION};

/// What nodes and the relay send each other.
#[derive(Debug, Clone)]
pub(crate) enum Message {
    Register,
    Registered(SocketAddr),
    /// The relay does not know who sends this.
    Unknown,
    /// The three flights of a handshake.
    Hello,
    Welcome,
    Finished,
    /// Addresses, until acknowledged.
    Punch(Vec<SocketAddr>, u64),
    PunchAck(u64),
    /// A sealed probe or reply.
    Sealed(Vec<u8>),
    Data,
}

const SMALL: u16 = 100;
/// A connection that nobody answers on ends after this time.
const GIVE_UP: Duration = Duration::from_secs(30);
const REPEAT: Duration = Duration::from_millis(300);

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
    observed: Option<SocketAddr>,
    out: VecDeque<(Hop, Message, u16)>,
    /// Payload is sent this often while set.
    pub(crate) traffic: Option<Duration>,
    next_data: Instant,
    calling: Option<Instant>,
    finishing: Option<Instant>,
    next_register: Instant,
    /// Number, when to repeat, when to give up.
    punch: Option<(u64, Instant, Instant)>,
    punches: u64,
    sent: Option<Instant>,
    heard: Option<Instant>,
    heard_event: Option<(Hop, Instant)>,
    /// When payload last arrived, and how much.
    pub(crate) got_data: Option<Instant>,
    pub(crate) data: u64,
}

impl Node {
    pub(crate) fn new(seed: u64, side: usize) -> Self {
        let now = Instant::now();
        Self {
            side,
            addr: "0.0.0.0:0".parse().unwrap(),
            known: None,
            agent: Agent::new(Timing::default(), seed.wrapping_add(side as u64)),
            session: false,
            route: None,
            route_changes: 0,
            distress: 0,
            observed: None,
            out: VecDeque::new(),
            traffic: None,
            next_data: now,
            calling: None,
            finishing: None,
            next_register: now,
            punch: None,
            punches: 0,
            sent: None,
            heard: None,
            heard_event: None,
            got_data: None,
            data: 0,
        }
    }

    /// All addresses of this node, as it knows them.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        self.known.into_iter().chain(self.observed).collect()
    }

    /// Calls a node with this record.
    pub(crate) fn call(&mut self, now: Instant, addrs: &[SocketAddr], relay: bool) {
        for addr in addrs {
            self.agent.add_candidate(now, Hop::Direct(*addr), Source::Record);
        }
        if relay {
            let hop = Hop::Relay { relay: RELAY, session: SESSION };
            self.agent.add_candidate(now, hop, Source::Relay);
        }
        self.calling = Some(now);
    }

    /// The kernel says that the address has changed.
    pub(crate) fn readdressed(&mut self, now: Instant) {
        self.observed = None;
        self.known = Some(self.addr);
        self.next_register = now;
        self.agent.local_change(now);
        self.tell(now);
    }

    /// When there is something to do.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        if !self.out.is_empty() || self.known.is_none() {
            return Some(now);
        }
        let data = self.traffic.filter(|_| self.session).map(|_| self.next_data);
        let punch = self.punch.filter(|_| self.session).map(|(_, at, _)| at);
        let calling = self.calling.filter(|_| self.traffic.is_some());
        let timers = [data, punch, calling, self.finishing, self.agent.poll_timeout(now)];
        timers.into_iter().flatten().chain([self.next_register]).min()
    }

    /// Does what is due and returns what is sent.
    pub(crate) fn step(&mut self, now: Instant) -> Vec<(Hop, Message, u16)> {
        self.known.get_or_insert(self.addr);
        if now >= self.next_register {
            self.next_register = now + Duration::from_secs(5);
            let hop = Hop::Relay { relay: RELAY, session: self.side as u32 };
            self.out.push_back((hop, Message::Register, SMALL));
        }
        // Packets that wait are what makes a node call again.
        if self.traffic.is_some() && self.calling.is_some_and(|at| at <= now) {
            self.calling = Some(now + REPEAT);
            self.spread(now, &Message::Hello, 1200);
        }
        if self.finishing.is_some_and(|at| at <= now) {
            self.finishing = Some(now + REPEAT);
            self.spread(now, &Message::Finished, SMALL);
        }
        self.punch = self.punch.filter(|(.., end)| now < *end);
        if let Some((number, at, end)) = self.punch
            && at <= now
            && self.session
        {
            self.punch = Some((number, now + REPEAT, end));
            let message = Message::Punch(self.addrs(), number);
            self.agent.handle_control_sent(now);
            self.spread(now, &message, SMALL);
        }
        self.send_data(now);
        if self.agent.poll_timeout(now).is_some_and(|at| at <= now) {
            self.agent.handle_activity(now, self.sent, self.heard);
            self.agent.handle_timeout(now);
        }
        self.flush();
        self.out.drain(..).collect()
    }

    fn send_data(&mut self, now: Instant) {
        let Some(interval) = self.traffic else { return };
        if now < self.next_data || !self.session {
            return;
        }
        self.next_data = now + interval;
        let Some((hop, _)) = self.route else { return };
        self.out.push_back((hop, Message::Data, SMALL));
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
            Message::Registered(observed) => {
                if self.observed != Some(observed) && Some(observed) != self.known {
                    self.observed = Some(observed);
                    self.tell(now);
                }
            }
            Message::Register => {}
            Message::Unknown => self.next_register = now,
            Message::Hello => {
                self.agent.handle_hint(now, hop);
                self.out.push_back((hop, Message::Welcome, 1200));
            }
            Message::Welcome => {
                self.calling = None;
                if !self.session {
                    self.established(now, hop);
                    self.finishing = Some(now);
                }
            }
            Message::Finished => {
                if !self.session {
                    self.established(now, hop);
                }
            }
            Message::Punch(addrs, number) => {
                self.finishing = None;
                self.heard_on(now, hop);
                self.out.push_back((hop, Message::PunchAck(number), SMALL));
                for addr in addrs {
                    self.agent.add_candidate(now, Hop::Direct(addr), Source::Told);
                }
                self.agent.punch(now);
            }
            Message::PunchAck(number) => {
                self.heard_on(now, hop);
                if self.punch.is_some_and(|(n, ..)| n == number) {
                    self.punch = None;
                }
            }
            Message::Sealed(bytes) => {
                if self.session {
                    self.heard = Some(now);
                    self.agent.handle_probe(now, hop, &bytes);
                }
            }
            Message::Data => {
                if self.session {
                    self.got_data = Some(now);
                    self.data += 1;
                    self.heard_on(now, hop);
                }
            }
        }
        self.flush();
    }

    fn established(&mut self, now: Instant, hop: Hop) {
        self.session = true;
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

    fn flush(&mut self) {
        while let Some(transmit) = self.agent.poll_transmit() {
            let size = transmit.bytes.len() as u16 + 32 + transmit.hop.header_len() as u16;
            self.out.push_back((transmit.hop, Message::Sealed(transmit.bytes), size));
        }
        while let Some(event) = self.agent.poll_event() {
            match event {
                Event::Route { hop, mtu } => {
                    if self.route.is_some_and(|(old, _)| old != hop) {
                        self.route_changes += 1;
                    }
                    self.route = Some((hop, mtu));
                }
                Event::Distress => self.distress += 1,
                Event::Observed { .. } => {}
            }
        }
    }
}
