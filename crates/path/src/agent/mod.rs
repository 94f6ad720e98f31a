//! The agent of one peer.

mod choice;
mod guessing;
mod timeouts;

use std::{collections::VecDeque, net::SocketAddr, time::Instant};

use crate::{
    Hop, MAX_HOPS, MIN_PROBE, Message, QUIC_MTU, Report, Source, Timing,
    candidate::{Candidate, InFlight},
    carrier_id, report,
};
use guessing::Guessing;

/// This much sent beside payload within [`Timing::in_use`] makes the peer one in use.
const BUSY: u32 = 64;
/// What sealing adds to a plaintext.
const SEAL_OVERHEAD: u16 = 32;

/// A message to be sealed on the peer lane and sent on a hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub hop: Hop,
    /// The plaintext.
    pub bytes: Vec<u8>,
}

/// What the driver of an agent must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// From now on the peer's datagrams go here.
    Route {
        /// The way.
        hop: Hop,
        /// The largest UDP payload on it, relay header included.
        mtu: u16,
    },
    /// The peer does not answer on any hop although it is sent to: it may have restarted, or the
    /// relay may have. Raised again while this lasts, ever more rarely.
    Distress,
    /// The peer sees this node's datagrams come from an address.
    Observed {
        /// Where the peer is.
        by: SocketAddr,
        /// The address that it sees.
        addr: SocketAddr,
    },
    /// Ports might be guessed: asks where the peer is seen, to be told by [`Agent::guess_at`].
    Guess,
    /// The peer is to be told that this node is ready to guess ports.
    ProposeGuess,
    /// Sockets are to be opened that reach the peer at this address, and told by [`Agent::guess_from`].
    /// They are kept as long as [`Agent::is_guessing`], and those that are hops by then as long as
    /// they are.
    OpenSockets {
        /// Where the peer is.
        to: SocketAddr,
        /// How many.
        count: usize,
    },
}

/// Finds and keeps the best way to one peer. See the [crate] documentation.
#[derive(Debug)]
pub struct Agent {
    timing: Timing,
    candidates: Vec<Candidate>,
    active: Option<Hop>,
    /// Probes can be sealed.
    session: bool,
    /// When payload was last sent to the peer.
    sent: Option<Instant>,
    /// The first time that something was sent on the active hop since it was last heard.
    awaiting: Option<Instant>,
    /// How much was sent beside payload since when.
    control_sent: Option<(Instant, u32)>,
    /// When anything beside payload was last sent.
    asked: Option<Instant>,
    /// When distress was last raised, and how often.
    distress: Option<(Instant, u32)>,
    /// When the traffic is looked at next.
    look: Option<Instant>,
    /// Probes say until then that this node's addresses changed.
    moved_until: Option<Instant>,
    next_token: u64,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    /// The last route that was told.
    told: Option<(Hop, u16)>,
    observed: Option<(SocketAddr, SocketAddr)>,
    guessing: Guessing,
    /// What ports are chosen by.
    seed: u64,
}

impl Agent {
    /// An agent that knows nothing yet. Tokens begin at `seed`: any number will do.
    pub fn new(timing: Timing, seed: u64) -> Self {
        Self {
            timing,
            candidates: Vec::new(),
            active: None,
            session: false,
            sent: None,
            awaiting: None,
            control_sent: None,
            asked: None,
            distress: None,
            look: None,
            moved_until: None,
            next_token: seed,
            transmits: VecDeque::new(),
            events: VecDeque::new(),
            told: None,
            observed: None,
            guessing: Guessing::default(),
            seed,
        }
    }

    /// A way that the peer may be reached.
    pub fn add_candidate(&mut self, now: Instant, hop: Hop, source: Source) {
        let session = self.session;
        if let Some(known) = self.find(hop) {
            known.source = known.source.max(source);
            return;
        }
        if self.candidates.len() >= MAX_HOPS && !self.make_room() {
            return;
        }
        let mut candidate = Candidate::new(hop, source, now, &self.timing);
        if session {
            candidate.hurry(now, &self.timing);
        }
        self.candidates.push(candidate);
    }

    /// A way that no longer exists, such as a session of a relay.
    pub fn remove_candidate(&mut self, now: Instant, hop: Hop) {
        self.candidates.retain(|c| c.hop != hop);
        if self.active == Some(hop) {
            self.active = None;
            self.choose(now);
        }
    }

    /// The peer was started anew: where its former life was heard says nothing about where it is, and
    /// the next hop on which it is heard is used.
    pub fn peer_restarted(&mut self) {
        self.active = None;
        self.awaiting = None;
        self.distress = None;
        for candidate in &mut self.candidates {
            candidate.heard = None;
            candidate.answered = None;
        }
    }

    /// The peer lane is there (again): probes can be sent. All hops are measured.
    pub fn session_up(&mut self, now: Instant) {
        self.session = true;
        self.hurry_all(now);
    }

    /// The peer lane is gone.
    pub fn session_down(&mut self) {
        self.session = false;
        self.stop_guessing();
        self.transmits.clear();
    }

    /// The peer wishes both ends to look for a better way now.
    pub fn punch(&mut self, now: Instant) {
        self.guess_sooner();
        self.hurry_all(now);
    }

    /// This node's own addresses changed.
    pub fn local_change(&mut self, now: Instant) {
        self.guess_anew();
        self.moved_until = Some(now + self.timing.in_use);
        for candidate in &mut self.candidates {
            candidate.mtu.restart(&candidate.hop);
        }
        self.suspect_active(now);
        self.hurry_all(now);
    }

    /// Something that wants an answer was sent to the peer (on the active hop) beside payload.
    /// Little of it does not make the peer one in use: a keep-alive now and then costs no probes.
    pub fn handle_control_sent(&mut self, now: Instant) {
        let window = self.timing.in_use;
        let (since, count) = self.control_sent.unwrap_or((now, 0));
        let count = if now.saturating_duration_since(since) > window { 0 } else { count + 1 };
        self.control_sent = Some((if count == 0 { now } else { since }, count));
        self.asked = Some(now);
        if count >= BUSY {
            return self.handle_sent(now);
        }
        self.awaiting.get_or_insert(now);
    }

    /// Payload was sent to the peer (on the active hop).
    pub fn handle_sent(&mut self, now: Instant) {
        let resumed = !self.in_use(now);
        self.sent = Some(now);
        self.awaiting.get_or_insert(now);
        if resumed && self.session {
            self.resume(now);
        }
    }

    /// What the data plane knows of the traffic: when payload was last sent to the peer, and when
    /// something authentic last came from it (on the hop that it was last heard on).
    pub fn handle_activity(&mut self, now: Instant, sent: Option<Instant>, heard: Option<Instant>) {
        if let Some(at) = heard {
            let latest = self.candidates.iter().max_by_key(|c| c.heard).map(|c| c.hop);
            let newer = latest.and_then(|hop| self.find(hop)).filter(|c| c.heard < Some(at));
            if let Some(candidate) = newer {
                candidate.sign_of_life(at);
                let hop = candidate.hop;
                if self.active == Some(hop) && self.awaiting.is_some_and(|since| since <= at) {
                    self.awaiting = None;
                    self.distress = None;
                }
            }
        }
        if let Some(at) = sent
            && self.sent.is_none_or(|known| known < at)
        {
            let heard = self.active.and_then(|hop| self.find(hop)).and_then(|c| c.heard);
            self.sent = Some(at.min(now));
            if heard.is_none_or(|heard| heard < at) {
                self.awaiting.get_or_insert(at);
            }
        }
    }

    /// Something authentic came from the peer.
    pub fn handle_heard(&mut self, now: Instant, hop: Hop) {
        if self.find(hop).is_none() {
            self.add_candidate(now, hop, Source::Heard);
        }
        let Some(candidate) = self.find(hop) else { return };
        candidate.sign_of_life(now);
        if self.active == Some(hop) {
            self.awaiting = None;
            self.distress = None;
        }
        self.choose(now);
    }

    /// The peer has answered a call that was sent on this hop: it is as alive as one that has answered
    /// a probe, though it was not measured.
    pub fn handle_answered(&mut self, now: Instant, hop: Hop) {
        if self.find(hop).is_none() {
            self.add_candidate(now, hop, Source::Heard);
        }
        if let Some(candidate) = self.find(hop) {
            candidate.answered = Some(now);
        }
        self.handle_heard(now, hop);
    }

    /// Something that is not known to be authentic came from here: worth a probe, no more.
    pub fn handle_hint(&mut self, now: Instant, hop: Hop) {
        self.add_candidate(now, hop, Source::Heard);
    }

    /// A message of the peer lane came in.
    pub fn handle_probe(&mut self, now: Instant, hop: Hop, bytes: &[u8]) {
        self.handle_heard(now, hop);
        match Message::decode(bytes) {
            Some(Message::Probe { token, moved, length }) => {
                let observed = match hop {
                    Hop::Direct(addr) if carrier_id(addr).is_none() => Some(addr),
                    _ => None,
                };
                let reply = Message::Reply { token, length, observed };
                self.transmits.push_back(Transmit { hop, bytes: reply.encode() });
                if moved && self.active != Some(hop) {
                    self.suspect_active(now);
                    let timing = self.timing.clone();
                    if let Some(candidate) = self.find(hop) {
                        candidate.hurry(now, &timing);
                    }
                }
            }
            Some(Message::Reply { token, observed, .. }) => {
                self.handle_reply(now, hop, token);
                if let (Hop::Direct(by), Some(addr)) = (hop, observed)
                    && self.observed != Some((by, addr))
                {
                    self.observed = Some((by, addr));
                    self.events.push_back(Event::Observed { by, addr });
                }
            }
            None => {}
        }
    }

    /// Datagrams of this size do not go through on the active hop.
    pub fn handle_too_large(&mut self, now: Instant, size: u16) {
        let timing = self.timing.clone();
        if let Some(candidate) = self.active.and_then(|hop| self.find(hop)) {
            candidate.mtu.too_large(now, size, &timing);
        }
        self.tell_route();
    }

    /// The handshake's datagrams came over this hop in parts: whole ones may not pass.
    pub fn handle_narrow(&mut self, hop: Hop) {
        if let Some(candidate) = self.find(hop) {
            candidate.mtu.narrow();
        }
        self.tell_route();
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether payload was sent to the peer lately.
    pub fn is_in_use(&self, now: Instant) -> bool {
        self.in_use(now)
    }

    /// The hop in use.
    pub fn active(&self) -> Option<Hop> {
        self.active
    }

    /// The largest UDP payload to use on a hop.
    pub fn mtu(&self, hop: Hop) -> u16 {
        let known = self.candidates.iter().find(|c| c.hop == hop);
        known.map_or(QUIC_MTU, |c| c.mtu.mtu())
    }

    /// All hops known.
    pub fn hops(&self) -> impl Iterator<Item = Hop> + '_ {
        self.candidates.iter().map(|c| c.hop)
    }

    /// Where a message that must arrive is sent to: the hop in use, or all while it is silent.
    pub fn targets(&self, now: Instant) -> Vec<Hop> {
        match self.active {
            Some(hop) if !self.quiet(now) => vec![hop],
            _ => self.hops().collect(),
        }
    }

    /// How things stand.
    pub fn report(&self, now: Instant) -> Report {
        let mut report = report::make(now, self.active, &self.candidates);
        if let Some(guessing) = self.guess_report(now).filter(|_| !report.reason.is_empty()) {
            report.reason = format!("{}; {guessing}", report.reason);
        }
        report
    }

    fn handle_reply(&mut self, now: Instant, hop: Hop, token: u64) {
        let timing = self.timing.clone();
        let Some(candidate) = self.find(hop) else { return };
        let Some(probe) = candidate.take(token) else { return };
        candidate.measured(now, now.saturating_duration_since(probe.sent));
        if let Some(size) = probe.mtu {
            candidate.mtu.acked(now, size, &timing);
        }
        self.promote(now, hop);
        self.tell_route();
    }

    /// Sends a probe on a hop; padded to fill a UDP payload of `mtu` bytes if given.
    fn send_probe(&mut self, now: Instant, hop: Hop, mtu: Option<u16>) {
        let token = self.next_token;
        self.next_token = token.wrapping_add(1);
        let moved = self.moved_until.is_some_and(|until| now < until);
        let header = u16::try_from(hop.header_len()).unwrap_or(u16::MAX);
        let length = match mtu {
            Some(size) => size.saturating_sub(SEAL_OVERHEAD + header),
            None => MIN_PROBE as u16,
        };
        let Some(candidate) = self.find(hop) else { return };
        candidate.in_flight.push_back(InFlight { token, sent: now, mtu });
        let bytes = Message::Probe { token, moved, length }.encode();
        self.transmits.push_back(Transmit { hop, bytes });
    }

    fn find(&mut self, hop: Hop) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|c| c.hop == hop)
    }

    fn in_use(&self, now: Instant) -> bool {
        self.sent_within(now, self.timing.in_use)
    }

    /// Whether payload flows: only then is a path measured, so that a pair that falls silent costs
    /// nothing from that moment on.
    fn flows(&self, now: Instant) -> bool {
        self.sent_within(now, self.timing.flowing)
    }

    fn sent_within(&self, now: Instant, time: std::time::Duration) -> bool {
        self.sent.is_some_and(|sent| now.saturating_duration_since(sent) < time)
    }

    /// Whether an answer of the peer is of interest.
    fn engaged(&self, now: Instant) -> bool {
        let lately = |at: Instant| now.saturating_duration_since(at) < self.timing.in_use;
        self.in_use(now) || self.asked.is_some_and(lately)
    }

    fn hurry_all(&mut self, now: Instant) {
        for candidate in &mut self.candidates {
            candidate.hurry(now, &self.timing);
        }
    }

    /// The active hop is given up soon unless it shows that it lives.
    fn suspect_active(&mut self, now: Instant) {
        let grace = self.timing.first_probe;
        let since = now.checked_sub(self.timing.suspect.saturating_sub(grace)).unwrap_or(now);
        self.awaiting = Some(self.awaiting.map_or(since, |awaiting| awaiting.min(since)));
        self.sent = Some(now);
    }

    /// Makes room for a candidate by dropping one that never showed life.
    fn make_room(&mut self) -> bool {
        let active = self.active;
        let worst = (0..self.candidates.len())
            .filter(|i| Some(self.candidates[*i].hop) != active)
            .min_by_key(|i| {
                let c = &self.candidates[*i];
                (c.heard, c.source, c.added)
            });
        worst.map(|i| self.candidates.swap_remove(i)).is_some()
    }
}
