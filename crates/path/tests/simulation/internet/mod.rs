//! A small internet in virtual time: hosts, NATs of all kinds, relays, faults.

pub(crate) mod client;
pub(crate) mod lane;
pub(crate) mod nat;
pub(crate) mod node;
pub(crate) mod random;
pub(crate) mod relay;
pub(crate) mod talk;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use gvpn_path::{Hop, Nature};
use nat::{Kind, Nat};
use node::{Message, Node};
use random::Random;
use relay::{Registry, Relay};

const PORT: u16 = 5000;
/// How often nodes do what is due.
const STEP: Duration = Duration::from_millis(4);
/// What each way takes longer by chance, but less than this.
const JITTER: Duration = Duration::from_millis(2);

/// How the two nodes are connected to the world.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    /// The NATs between each node and the internet, the nearest first.
    pub(crate) nats: [Vec<Kind>; 2],
    /// Both nodes are on one LAN, behind the first node's NATs.
    pub(crate) same_lan: bool,
    pub(crate) relays: Vec<Place>,
    /// The relays have one registry.
    pub(crate) fleet: bool,
    /// One-way delay of a datagram between a node and the internet.
    pub(crate) delay: Duration,
    /// What of a thousand datagrams is lost.
    pub(crate) loss: u64,
    /// What of a thousand datagrams is doubled, changed, and overtaken by others.
    pub(crate) disorder: u64,
    /// The MTU of each node's access.
    pub(crate) mtu: [u16; 2],
}

impl Topology {
    pub(crate) fn new(a: &[Kind], b: &[Kind]) -> Self {
        Self {
            nats: [a.to_vec(), b.to_vec()],
            same_lan: false,
            relays: vec![Place::new(Duration::from_millis(10))],
            fleet: false,
            delay: Duration::from_millis(10),
            loss: 0,
            disorder: 0,
            mtu: [1500; 2],
        }
    }
}

/// Where a relay is.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// One-way delay of a datagram between each node and the relay.
    pub(crate) delay: [Duration; 2],
    /// Which nodes were told to use it.
    pub(crate) configured: [bool; 2],
}

impl Place {
    pub(crate) fn new(delay: Duration) -> Self {
        Self { delay: [delay; 2], configured: [true; 2] }
    }
}

/// A datagram on its way.
#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// The session, if it goes through the relay.
    pub(crate) session: Option<u32>,
    pub(crate) message: Message,
    pub(crate) size: u16,
}

#[derive(Debug)]
enum Event {
    Arrive { at: End, datagram: Datagram },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Node(usize),
    Relay(usize),
}

pub(crate) struct Internet {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) topology: Topology,
    pub(crate) nodes: [Node; 2],
    pub(crate) nats: [Vec<Nat>; 2],
    pub(crate) random: Random,
    queue: BinaryHeap<Reverse<(Instant, u64, usize)>>,
    events: HashMap<usize, Event>,
    sequence: u64,
    pub(crate) relays: Vec<Relay>,
    pub(crate) registries: Vec<Registry>,
    /// Nothing passes between a relay and a node's network.
    pub(crate) relay_cut: Vec<[bool; 2]>,
    /// Nodes that do nothing and hear nothing: their machines sleep.
    pub(crate) asleep: [bool; 2],
    /// Nothing passes directly between the nodes' networks.
    pub(crate) cut: bool,
    /// Datagrams sent by nodes to each other, probes and all.
    pub(crate) sent: u64,
    /// The bytes of them, without IP and UDP headers.
    pub(crate) sent_bytes: u64,
    addresses_given: u8,
}

impl Internet {
    pub(crate) fn new(seed: u64, topology: Topology) -> Self {
        let now = Instant::now();
        let nats = [0, 1].map(|side: usize| {
            topology.nats[side]
                .iter()
                .enumerate()
                .map(|(level, kind)| {
                    let last = level + 1 == topology.nats[side].len();
                    let ip = if last {
                        Ipv4Addr::new(203, 0, 113, 10 + side as u8)
                    } else {
                        Ipv4Addr::new(100, 64, side as u8, 10 + level as u8)
                    };
                    Nat::new(*kind, ip)
                })
                .collect()
        });
        let mut internet = Self {
            now,
            start: now,
            nodes: [0, 1].map(|side| {
                let told = topology.relays.iter().enumerate().filter(|(_, r)| r.configured[side]);
                let relays: Vec<_> = told.map(|(at, _)| relay_addr(at)).collect();
                Node::new(now, seed, side, &relays, nature(&topology.nats[side]))
            }),
            nats,
            random: Random::new(seed),
            queue: BinaryHeap::new(),
            events: HashMap::new(),
            sequence: 0,
            relays: (0..topology.relays.len())
                .map(|at| Relay::new(relay_addr(at), if topology.fleet { 0 } else { at }, seed))
                .collect(),
            registries: vec![Registry::default(); topology.relays.len()],
            relay_cut: vec![[false; 2]; topology.relays.len()],
            asleep: [false; 2],
            cut: false,
            sent: 0,
            sent_bytes: 0,
            addresses_given: 0,
            topology,
        };
        internet.address(0);
        internet.address(1);
        internet
    }

    /// Gives a node a fresh address, as after a change of network.
    pub(crate) fn address(&mut self, side: usize) {
        self.addresses_given += 1;
        let host = self.addresses_given;
        let behind = if self.topology.same_lan { 0 } else { side };
        let ip = if self.topology.nats[behind].is_empty() {
            Ipv4Addr::new(203, 0, 113, 100 + host)
        } else {
            Ipv4Addr::new(192, 168, behind as u8, host)
        };
        self.nodes[side].addr = SocketAddr::new(ip.into(), PORT);
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, length: Duration) {
        let end = self.now + length;
        while self.now < end {
            self.now += self.step(end);
            while let Some(Reverse((at, _, key))) = self.queue.peek().copied() {
                if at > self.now {
                    break;
                }
                self.queue.pop();
                if let Some(Event::Arrive { at, datagram }) = self.events.remove(&key) {
                    self.arrive(at, datagram);
                }
            }
            for side in (0..2).filter(|side| !self.asleep[*side]).collect::<Vec<_>>() {
                let out = self.nodes[side].step(self.now);
                for (hop, message, size) in out {
                    self.send(side, hop, message, size);
                }
                self.tell_where(side);
            }
            for at in 0..self.relays.len() {
                self.serve(at);
            }
        }
    }

    /// A node asks its relay where it sees the other, which takes no time here.
    fn tell_where(&mut self, side: usize) {
        let now = self.now;
        let Some(relay) = self.nodes[side].asks_where.take() else { return };
        let at = self.relays.iter().position(|r| r.addr == relay);
        let at = at.filter(|at| !self.relay_cut[*at][side]);
        let seen = at.and_then(|at| self.relays[at].seen(1 - side));
        self.nodes[side].agent.guess_at(now, seen);
    }

    /// How far to go: a step, or over all steps in which nothing is due.
    fn step(&self, end: Instant) -> Duration {
        let arrival = self.queue.peek().map(|Reverse((at, ..))| *at);
        let awake = self.nodes.iter().zip(self.asleep).filter(|(_, asleep)| !asleep);
        let nodes = awake.filter_map(|(node, _)| node.due(self.now));
        let relays = self.relays.iter().filter_map(Relay::due);
        let due = nodes.chain(relays).chain(arrival).min().map_or(end, |due| due.min(end));
        let idle = due.saturating_duration_since(self.now);
        let steps = idle.as_nanos().div_ceil(STEP.as_nanos()).max(1);
        STEP * u32::try_from(steps).unwrap_or(u32::MAX)
    }

    /// A node sends a datagram.
    fn send(&mut self, side: usize, hop: Hop, message: Message, size: u16) {
        let (to, session) = match hop {
            Hop::Direct(to) => (to, None),
            Hop::Relay { relay, session } => (relay, Some(session)),
        };
        if !matches!(message, Message::Relay(..)) {
            self.sent += 1;
            self.sent_bytes += u64::from(size);
        }
        // Sent by a socket that was closed since: lost.
        let Some((from, to)) = self.nodes[side].ends(to) else { return };
        let datagram = Datagram { from, to, session, message, size };
        if size + 28 > self.topology.mtu[side] || self.lose() {
            return;
        }
        self.leave_node(side, datagram);
    }

    fn lose(&mut self) -> bool {
        self.random.below(1000) < self.topology.loss
    }

    fn leave_node(&mut self, side: usize, mut datagram: Datagram) {
        let other = 1 - side;
        if self.topology.same_lan && datagram.to == self.nodes[other].addr {
            return self.deliver(End::Node(other), datagram, Duration::from_millis(1));
        }
        let behind = if self.topology.same_lan { 0 } else { side };
        for nat in &mut self.nats[behind] {
            match nat.outward(self.now, datagram.from, datagram.to, &mut self.random) {
                Some(from) => datagram.from = from,
                None => return,
            }
        }
        if let Some(at) = self.relays.iter().position(|relay| relay.addr == datagram.to) {
            if self.relays[at].up && !self.relay_cut[at][side] {
                self.deliver(End::Relay(at), datagram, self.topology.relays[at].delay[side]);
            }
            return;
        }
        self.public(datagram, Some(behind));
    }

    /// A datagram in the public internet; `out_of` is the side whose NATs it came through.
    fn public(&mut self, mut datagram: Datagram, out_of: Option<usize>) {
        let relay = self.relays.iter().position(|relay| relay.addr == datagram.from);
        let closed = |side: usize| relay.map_or(self.cut, |at| self.relay_cut[at][side]);
        let delay = |side: usize| {
            relay.map_or(self.topology.delay, |at| self.topology.relays[at].delay[side])
        };
        for side in 0..2 {
            let behind = if self.topology.same_lan { 0 } else { side };
            if self.nats[behind].is_empty() {
                if datagram.to == self.nodes[side].addr && !closed(side) {
                    return self.deliver(End::Node(side), datagram, delay(side));
                }
                continue;
            }
            let outermost = self.nats[behind].len() - 1;
            if datagram.to.ip() != self.nats[behind][outermost].ip() {
                continue;
            }
            // Hairpins are not translated by these NATs; a cut separates the networks.
            if out_of == Some(behind) || closed(side) {
                return;
            }
            let delays = [delay(0), delay(1)];
            for level in (0..=outermost).rev() {
                let nat = &mut self.nats[behind][level];
                match nat.inward(self.now, datagram.from, datagram.to) {
                    Some(to) => datagram.to = to,
                    None => return,
                }
            }
            let heard = |i: &usize| self.nodes[*i].hears(datagram.from, datagram.to).is_some();
            if let Some(at) = (0..2).find(heard) {
                self.deliver(End::Node(at), datagram, delays[at]);
            }
            return;
        }
    }

    fn deliver(&mut self, at: End, datagram: Datagram, delay: Duration) {
        if let End::Node(side) = at
            && datagram.size + 28 > self.topology.mtu[side]
        {
            return;
        }
        let mut datagram = datagram;
        let jitter = self.random.below(JITTER.as_micros() as u64);
        let mut delay = delay + Duration::from_micros(jitter);
        if self.disorderly() {
            delay += Duration::from_millis(self.random.below(40));
        }
        if self.disorderly() {
            self.schedule(at, datagram.clone(), delay + Duration::from_millis(3));
        }
        if self.disorderly() {
            match &mut datagram.message {
                Message::Sealed(bytes) => {
                    let at = self.random.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1 << self.random.below(8);
                }
                // QUIC, and the kernel, find this out.
                _ => return,
            }
        }
        self.schedule(at, datagram, delay);
    }

    fn disorderly(&mut self) -> bool {
        self.topology.disorder > 0 && self.random.below(1000) < self.topology.disorder
    }

    fn schedule(&mut self, at: End, datagram: Datagram, delay: Duration) {
        self.sequence += 1;
        let key = self.sequence as usize;
        self.events.insert(key, Event::Arrive { at, datagram });
        self.queue.push(Reverse((self.now + delay, self.sequence, key)));
    }

    /// A relay is started or stopped; it remembers records, but not who was there.
    pub(crate) fn relay(&mut self, at: usize, up: bool) {
        self.relays[at].set_up(self.now, up);
        self.serve(at);
    }

    fn arrive(&mut self, at: End, datagram: Datagram) {
        match at {
            End::Node(side) if self.asleep[side] => {}
            End::Node(side) => {
                // What was sent to a former address of the node is lost.
                let heard = self.nodes[side].hears(datagram.from, datagram.to);
                let hop = match (heard, datagram.session) {
                    (None, _) => return,
                    (Some(relay), Some(session)) => Hop::Relay { relay, session },
                    (Some(from), None) => Hop::Direct(from),
                };
                self.nodes[side].receive(self.now, hop, datagram.message);
            }
            End::Relay(at) if self.relays[at].up => self.at_relay(at, datagram),
            End::Relay(_) => {}
        }
    }

    fn at_relay(&mut self, at: usize, mut datagram: Datagram) {
        let relay = &mut self.relays[at];
        let from = std::mem::replace(&mut datagram.from, relay.addr);
        match (datagram.session, datagram.message) {
            (None, Message::Relay(call, talk)) => {
                let registry = &mut self.registries[relay.registry];
                relay.receive(self.now, from, (call, talk), registry);
            }
            (Some(session), message) => {
                let Some(to) = relay.forward(from, session) else { return self.serve(at) };
                (datagram.to, datagram.message) = (to, message);
                if !self.lose() {
                    self.public(datagram, None);
                }
            }
            (None, _) => {}
        }
        self.serve(at);
    }

    /// A relay sends what it has to.
    fn serve(&mut self, at: usize) {
        if !self.relays[at].up {
            return;
        }
        let from = self.relays[at].addr;
        for (to, message) in self.relays[at].step(self.now) {
            let datagram = Datagram { from, to, session: None, message, size: 200 };
            if !self.lose() {
                self.public(datagram, None);
            }
        }
    }
}

/// What a node finds out about the NATs in front of it.
fn nature(nats: &[Kind]) -> Nature {
    match () {
        () if nats.contains(&Kind::Blocked) => Nature::Other,
        () if nats.contains(&Kind::Symmetric) => Nature::Random,
        () if nats.contains(&Kind::PortRestricted) => Nature::Strict,
        () => Nature::Other,
    }
}

/// The shortest and the longest round trip to a relay, as a node measures it: whoever gets a datagram does
/// so at its next step.
pub(crate) fn round_trips(delay: Duration) -> (Duration, Duration) {
    let steps = |way: Duration| u32::try_from(way.as_nanos().div_ceil(STEP.as_nanos()));
    let there_and_back = |way| STEP * 2 * steps(way).unwrap_or(u32::MAX / 2);
    (there_and_back(delay), there_and_back(delay + JITTER))
}

/// Where a relay is.
pub(crate) fn relay_addr(at: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1 + at as u8)), 7464)
}
