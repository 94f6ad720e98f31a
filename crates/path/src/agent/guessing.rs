//! Guessing the ports of a symmetric NAT.
//!
//! Of two ends that ordinary punching does not join, one has a NAT that gives each destination another
//! port, the other one that lets in only who was written to. The first writes to the other from many
//! sockets, the other to many ports of the first one's NAT: where a port is one that a socket was given,
//! the datagram gets in, and its answer too (the birthday paradox: 256 sockets and 1024 of 64,512
//! ports meet with 98 %).

use std::{
    collections::HashSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Agent, Event, Transmit};
use crate::{Hop, MIN_PROBE, Message, Nature, Tier, hop::is_socket, nature::Role};

/// How many sockets are opened, and how many ports are written to.
const SOCKETS: usize = 256;
const PORTS: usize = 1024;
/// So many probes are sent at a time, and so long after those before.
const LOT_OF_PORTS: usize = 8;
const LOT_OF_SOCKETS: usize = 32;
const PAUSE: Duration = Duration::from_millis(50);
/// How long an attempt lasts.
const ATTEMPT: Duration = Duration::from_secs(8);
/// How long the driver may prepare, and the other end may take to be ready too.
const PREPARING: Duration = Duration::from_secs(10);
const READY: Duration = Duration::from_secs(3);
/// When it is asked anew where an end could not prepare, or the other was not ready.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Payload flows as long as this was sent within so long; who neither sends nor hears is silent.
const FLOWS: Duration = Duration::from_secs(1);
const SILENT: Duration = Duration::from_secs(2);
/// A hop by a socket of its own that has lost so many probes, and was not heard for so long, is gone.
const LOST: u32 = 3;
const UNHEARD: Duration = Duration::from_secs(5);
/// NATs have forgotten what was not used for so long.
const FORGOTTEN: Duration = Duration::from_secs(180);

/// What is known about guessing the ports that join two ends.
#[derive(Debug, Default)]
pub(super) struct Guessing {
    own: Nature,
    /// `None` as long as the peer has not shown that it knows of this.
    peer: Option<Nature>,
    /// Payload has flown through a relay since then.
    relayed: Option<Instant>,
    state: State,
    /// When the other end was ready.
    peer_ready: Option<Instant>,
    /// Not before.
    next: Option<Instant>,
    begun: Option<Instant>,
    pub(super) failures: u32,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// The driver finds out where the peer is.
    Preparing {
        since: Instant,
    },
    /// Waits for the other end.
    Ready {
        since: Instant,
        at: SocketAddr,
    },
    Running {
        since: Instant,
        next: Instant,
        lot: usize,
        hops: Vec<Hop>,
    },
}

impl Agent {
    /// What this node's own NAT does.
    pub fn set_nature(&mut self, nature: Nature) {
        self.guessing.own = nature;
    }

    /// What the peer says of its NAT, which also says that it knows of guessing.
    pub fn set_peer_nature(&mut self, nature: Nature) {
        self.guessing.peer = Some(nature);
    }

    /// Whether ports are being guessed, or are about to be: only as long are sockets held that are no
    /// hops.
    pub fn is_guessing(&self) -> bool {
        !matches!(self.guessing.state, State::Idle)
    }

    /// The peer is ready to guess ports.
    pub fn handle_guess_proposed(&mut self, now: Instant) {
        self.guessing.peer_ready = Some(now);
        match self.guessing.state {
            State::Idle if self.may_guess(now) => self.prepare(now),
            State::Ready { at, .. } => self.begin_guessing(now, at),
            _ => {}
        }
    }

    /// The answer to [`Event::Guess`]: where somebody who is not the peer sees it, and only there may
    /// be guessed, and only with IPv4; `None` if nobody does, or this node is about to guess the ports of another peer.
    pub fn guess_at(&mut self, now: Instant, seen: Option<SocketAddr>) {
        let State::Preparing { .. } = self.guessing.state else { return };
        let Some(at) = seen.filter(SocketAddr::is_ipv4) else { return self.put_off(now) };
        self.guessing.state = State::Ready { since: now, at };
        self.events.push_back(Event::ProposeGuess);
        let ready = |at: Instant| now.saturating_duration_since(at) < READY;
        if self.guessing.peer_ready.is_some_and(ready) {
            self.begin_guessing(now, at);
        }
    }

    /// The answer to [`Event::OpenSockets`]: the hops by the sockets that were opened.
    pub fn guess_from(&mut self, sockets: Vec<Hop>) {
        if let State::Running { hops, .. } = &mut self.guessing.state {
            *hops = sockets;
        }
    }

    /// Forgets hops by sockets of their own that nothing was heard on for so long that the NATs have
    /// forgotten them too.
    pub fn sweep(&mut self, now: Instant) {
        let gone: Vec<Hop> = self
            .candidates
            .iter()
            .filter(|c| is_socket(c.hop.wire_addr()) && !c.alive(now, FORGOTTEN))
            .map(|c| c.hop)
            .collect();
        gone.into_iter().for_each(|hop| self.remove_candidate(now, hop));
    }

    /// When there is something to do about guessing.
    pub(super) fn guess_timeout(&self) -> Option<Instant> {
        match &self.guessing.state {
            State::Idle => None,
            State::Preparing { since } => Some(*since + PREPARING),
            State::Ready { since, .. } => Some(*since + READY),
            State::Running { next, .. } => Some(*next),
        }
    }

    pub(super) fn guess(&mut self, now: Instant) {
        self.forget_dead_sockets(now);
        let relayed = self.active.is_some_and(|hop| hop.tier() == Tier::Relay);
        let flows = relayed && self.sent_within(now, FLOWS);
        self.guessing.relayed = flows.then(|| self.guessing.relayed.unwrap_or(now));
        match &self.guessing.state {
            State::Idle => {
                let long =
                    |at: Instant| now.saturating_duration_since(at) >= self.timing.guess_after;
                if self.guessing.relayed.is_some_and(long) && self.may_guess(now) {
                    self.prepare(now);
                }
            }
            State::Preparing { since } if now >= *since + PREPARING => self.put_off(now),
            State::Ready { since, .. } if now >= *since + READY => self.put_off(now),
            State::Running { .. } => self.go_on_guessing(now),
            _ => {}
        }
    }

    /// The addresses of this node are others now: what failed may succeed.
    pub(super) fn guess_anew(&mut self) {
        let guessing = &mut self.guessing;
        (guessing.state, guessing.relayed) = (State::Idle, None);
        (guessing.next, guessing.failures) = (None, 0);
    }

    /// The peer says that its addresses are others now. It can make an attempt come no sooner than
    /// the first one after a failure would.
    pub(super) fn guess_sooner(&mut self) {
        let guessing = &mut self.guessing;
        if guessing.failures > 1 {
            guessing.failures = 1;
            guessing.next = guessing.begun.map(|begun| begun + self.timing.guess_again);
        }
    }

    /// What there is to say about guessing to who asks why the path is relayed.
    pub(super) fn guess_report(&self, now: Instant) -> Option<String> {
        let guessing = &self.guessing;
        let role = guessing.own.role_towards(guessing.peer?)?;
        let whose = match role {
            Role::Opens => "this node's",
            Role::Sprays => "the peer's",
        };
        match (&guessing.state, guessing.failures) {
            (State::Running { .. }, _) => Some(format!("guessing the ports of {whose} NAT")),
            (_, 0) => None,
            (_, failures) => {
                let next = guessing.next.map(|at| at.saturating_duration_since(now).as_secs());
                let next = next.unwrap_or_default();
                Some(format!(
                    "guessing the ports of {whose} NAT failed {failures} times, not again for {next} s"
                ))
            }
        }
    }

    fn role(&self) -> Option<Role> {
        self.guessing.own.role_towards(self.guessing.peer?)
    }

    fn may_guess(&self, now: Instant) -> bool {
        let relayed = self.active.is_some_and(|hop| hop.tier() == Tier::Relay);
        let due = self.guessing.next.is_none_or(|next| now >= next);
        self.session && relayed && due && self.role().is_some()
    }

    fn prepare(&mut self, now: Instant) {
        self.guessing.state = State::Preparing { since: now };
        self.events.push_back(Event::Guess);
    }

    fn put_off(&mut self, now: Instant) {
        self.guessing.state = State::Idle;
        self.guessing.next = Some(now + ASK_AGAIN.min(self.timing.guess_again));
    }

    fn begin_guessing(&mut self, now: Instant, at: SocketAddr) {
        self.guessing.peer_ready = None;
        let Some(role) = self.role() else { return self.put_off(now) };
        // However it ends, unless well, it counts: nobody can have one follow the other.
        let wait =
            self.timing.guess_again.saturating_mul(2u32.saturating_pow(self.guessing.failures));
        self.guessing.next = Some(now + wait.min(self.timing.guess_longest));
        self.guessing.failures = self.guessing.failures.saturating_add(1);
        self.guessing.begun = Some(now);
        let (lot, hops) = match role {
            Role::Opens => {
                self.events.push_back(Event::OpenSockets { to: at, count: SOCKETS });
                (LOT_OF_SOCKETS, Vec::new())
            }
            Role::Sprays => (LOT_OF_PORTS, self.ports_of(at)),
        };
        self.guessing.state = State::Running { since: now, next: now, lot, hops };
    }

    /// Many ports of an address, each once.
    fn ports_of(&mut self, at: SocketAddr) -> Vec<Hop> {
        let mut ports = HashSet::with_capacity(PORTS);
        let mut hops = Vec::with_capacity(PORTS);
        // A fresh token is as good as any number; the mixing is that of SplitMix64.
        let mut state = self.next_token ^ self.seed;
        while hops.len() < PORTS {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let port = 1024 + ((mixed ^ (mixed >> 31)) % (65_536 - 1024)) as u16;
            if ports.insert(port) {
                hops.push(Hop::Direct(SocketAddr::new(at.ip(), port)));
            }
        }
        self.seed = state;
        hops
    }

    fn go_on_guessing(&mut self, now: Instant) {
        if self.active.is_some_and(|hop| hop.tier() == Tier::Direct) {
            self.guessing.state = State::Idle;
            self.guessing.failures = 0;
            // One that is lost again is not guessed again at once.
            self.guessing.next = Some(now + self.timing.guess_again);
            return;
        }
        let heard = self.candidates.iter().any(|c| c.alive(now, SILENT));
        let silent = !heard && !self.sent_within(now, SILENT);
        let State::Running { since, next, lot, hops } = &mut self.guessing.state else { return };
        if silent || now >= *since + ATTEMPT {
            return self.stop_guessing();
        }
        if now < *next {
            return;
        }
        *next = (now + PAUSE).min(*since + ATTEMPT);
        let rest = hops.len().saturating_sub(*lot);
        for hop in hops.split_off(rest) {
            let token = self.next_token;
            self.next_token = token.wrapping_add(1);
            let length = MIN_PROBE as u16;
            let bytes = Message::Probe { token, moved: false, length }.encode();
            self.transmits.push_back(Transmit { hop, bytes });
        }
    }

    /// An attempt ends as it is.
    pub(super) fn stop_guessing(&mut self) {
        self.guessing.state = State::Idle;
    }

    fn forget_dead_sockets(&mut self, now: Instant) {
        let active = self.active;
        self.candidates.retain(|c| {
            let dead = c.losses >= LOST && !c.alive(now, UNHEARD);
            !is_socket(c.hop.wire_addr()) || Some(c.hop) == active || !dead
        });
    }
}
