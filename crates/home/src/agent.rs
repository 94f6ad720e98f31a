//! The relays of a node.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_model::NodeId;

use crate::{
    Action, Activity, Request, Timing,
    look_up::{Find, LookUp},
    relay::{Connection, Relay, State},
    sessions::Sessions,
};

/// Stays with the relays that a node is told to use. See the [crate] documentation.
#[derive(Debug)]
pub struct Home {
    pub(crate) timing: Timing,
    pub(crate) relays: Vec<Relay>,
    pub(crate) home: Option<SocketAddr>,
    /// Since when another relay has seemed to be clearly nearer than the home.
    pub(crate) nearer: Option<Instant>,
    /// When other relays are told of those that came and went.
    pub(crate) publish_at: Option<Instant>,
    pub(crate) sessions: Sessions,
    /// Sessions that a relay seems to have forgotten.
    renewals: Vec<Renewal>,
    pub(crate) look_ups: Vec<LookUp>,
    pub(crate) finds: BTreeMap<u32, Find>,
    /// When look-ups ended by which a relay forwards to a node.
    pub(crate) forwarded: BTreeMap<NodeId, Instant>,
    pub(crate) next_number: u32,
    next_call: u64,
    pub(crate) actions: VecDeque<Action>,
}

#[derive(Debug, Clone, Copy)]
struct Renewal {
    at: Instant,
    relay: SocketAddr,
    session: u32,
    peer: NodeId,
}

impl Home {
    /// Is to be at these relays. They are called at the first [`handle_timeout`](Self::handle_timeout).
    pub fn new(now: Instant, relays: &[SocketAddr], timing: Timing) -> Self {
        let mut configured: Vec<Relay> = Vec::new();
        for addr in relays {
            if configured.iter().all(|known| known.addr != *addr) {
                configured.push(Relay::new(now, *addr, true, &timing));
            }
        }
        Self {
            timing,
            relays: configured,
            home: None,
            nearer: None,
            publish_at: None,
            sessions: Sessions::default(),
            renewals: Vec::new(),
            look_ups: Vec::new(),
            finds: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            next_number: 0,
            next_call: 0,
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let relays = self.relays.iter().filter_map(|relay| relay.due(&self.timing));
        let renewals = self.renewals.iter().map(|renewal| renewal.at);
        let asked = self.finds.values().map(|find| find.due(&self.timing));
        let look_ups = self.look_ups.iter().flat_map(|l| l.due(&self.timing));
        relays.chain(renewals).chain(asked).chain(look_ups).chain(self.publish_at).min()
    }

    /// The connections, by the calls that they came of: the driver tells what has happened on them
    /// ([`handle_activity`](Self::handle_activity)) before [`handle_timeout`](Self::handle_timeout)
    /// and [`doubt`](Self::doubt).
    pub fn connections(&self) -> impl Iterator<Item = (SocketAddr, u64)> + '_ {
        self.relays.iter().filter_map(|relay| Some((relay.addr, relay.connection()?.call)))
    }

    /// Why a relay is not connected; `None` while it is.
    pub fn failure(&self, relay: SocketAddr) -> Option<&str> {
        let relay = self.relays.iter().find(|known| known.addr == relay)?;
        let unheard = "it has not answered yet";
        relay.connection().is_none().then(|| relay.failure.as_deref().unwrap_or(unheard))
    }

    /// A call was answered.
    pub fn handle_connected(&mut self, now: Instant, call: u64, rtt: Duration) {
        let timing = self.timing.clone();
        let Some(relay) = self.relays.iter_mut().find(|r| r.call() == Some(call)) else { return };
        relay.state = State::Connected(Connection::new(now, call, rtt, &timing));
        (relay.failure, relay.used) = (None, now);
        let addr = relay.addr;
        self.choose(now);
        self.register(call);
        let sessions = self.sessions.of(addr);
        if !sessions.is_empty() {
            self.send(addr, call, Request::Resume { sessions });
        }
        self.publish_by(now + timing.settle);
        self.arrived(now, addr);
    }

    /// A call, or the connection that came of it, has ended.
    pub fn handle_ended(&mut self, now: Instant, call: u64, reason: &str) {
        let timing = self.timing.clone();
        let Some(relay) = self.relays.iter_mut().find(|r| r.call() == Some(call)) else { return };
        let (addr, was_connected) = (relay.addr, relay.connection().is_some());
        if was_connected {
            relay.hung_up(now, reason.to_owned(), &timing);
        }
        relay.ended(now, reason, &timing);
        if was_connected {
            self.publish_by(now + timing.gone);
        }
        self.left(now, addr);
        self.relays.retain(|relay| relay.addr != addr || relay.wanted(now, &timing));
    }

    /// What has happened on a connection.
    pub fn handle_activity(&mut self, now: Instant, call: u64, activity: &Activity) {
        let Some(relay) = self.relays.iter_mut().find(|r| r.call() == Some(call)) else { return };
        if activity.used {
            relay.used = now;
        }
        if let Some(connection) = relay.connection_mut() {
            connection.activity(activity);
        }
    }

    /// There is doubt whether a relay still knows this node: finds out, if it is connected.
    pub fn doubt(&mut self, now: Instant, relay: SocketAddr) {
        let timing = self.timing.clone();
        let Some(relay) = self.relays.iter_mut().find(|known| known.addr == relay) else { return };
        let addr = relay.addr;
        if let Some(connection) = relay.connection_mut()
            && connection.doubt(now, &timing)
        {
            let call = connection.call;
            self.actions.push_back(Action::Ping { relay: addr, call });
        }
    }

    /// Something that claims to come from a relay says that it is there, and may have forgotten this
    /// node. It need not be true.
    pub fn handle_hint(&mut self, now: Instant, relay: SocketAddr) {
        self.doubt(now, relay);
        let often = self.timing.hint;
        let Some(relay) = self.relays.iter_mut().find(|known| known.addr == relay) else { return };
        let recent = |at: Instant| now.saturating_duration_since(at) < often;
        if let State::Waiting { until } = &mut relay.state
            && !relay.hinted.is_some_and(recent)
        {
            *until = now;
            relay.hinted = Some(now);
        }
    }

    /// Something that claims to come from a relay says that it does not forward under this number. It
    /// need not be true.
    pub fn handle_unknown_session(&mut self, now: Instant, relay: SocketAddr, session: u32) {
        self.handle_hint(now, relay);
        let Some(peer) = self.sessions.peer(relay, session) else { return };
        let known = |r: &Renewal| (r.relay, r.session) == (relay, session);
        if !self.renewals.iter().any(known) {
            // If the relay has forgotten this node altogether, the session is resumed by the new
            // registration; that is waited for.
            let at = now + self.timing.renew;
            self.renewals.push(Renewal { at, relay, session, peer });
        }
    }

    /// A relay forwards to a peer, which asked for that, under this number from now on.
    pub fn handle_session(&mut self, relay: SocketAddr, session: u32, peer: NodeId) {
        self.sessions.learn(relay, session, peer);
        self.actions.push_back(Action::Session { relay, session, peer });
    }

    /// The sessions with a relay: number and peer.
    pub fn sessions(&self, relay: SocketAddr) -> Vec<(u32, NodeId)> {
        self.sessions.of(relay)
    }

    /// This node's addresses or routes changed: relays may have lost sight of it, or be reached only now.
    pub fn handle_moved(&mut self, now: Instant) {
        let relays: Vec<SocketAddr> = self.relays.iter().map(|relay| relay.addr).collect();
        relays.into_iter().for_each(|relay| self.doubt(now, relay));
        for relay in &mut self.relays {
            if let State::Waiting { until } = &mut relay.state {
                *until = now;
                relay.retry = self.timing.first_retry;
            }
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.excuse(now);
        for relay in self.relays.iter().map(|relay| relay.addr).collect::<Vec<_>>() {
            self.watch(now, relay);
        }
        self.renew(now);
        self.advance(now);
        self.publish_changes(now);
        self.call(now);
    }

    /// Who comes late to look for answers must not say that there were none in time.
    fn excuse(&mut self, now: Instant) {
        let timing = self.timing.clone();
        for relay in &mut self.relays {
            let Some(question) = relay.connection_mut().and_then(|c| c.question.as_mut()) else {
                continue;
            };
            let late = now.saturating_duration_since(question.again.min(question.until));
            if late > timing.late {
                question.until += late + timing.ask_again;
            }
        }
    }

    /// Calls the relays that are to be called.
    fn call(&mut self, now: Instant) {
        for relay in &mut self.relays {
            if matches!(relay.state, State::Waiting { until } if until <= now) {
                self.next_call += 1;
                let call = self.next_call;
                relay.state = State::Calling { call };
                self.actions.push_back(Action::Call { relay: relay.addr, call });
            }
        }
    }

    /// Sees to it that a relay is still there, and of use.
    fn watch(&mut self, now: Instant, addr: SocketAddr) {
        let timing = self.timing.clone();
        let Some(relay) = self.relays.iter_mut().find(|known| known.addr == addr) else { return };
        let useless = !relay.configured && relay.used + timing.visit <= now;
        let Some(connection) = relay.connection_mut() else { return };
        let call = connection.call;
        if useless {
            return self.hang_up(now, addr, "the visit is over", false);
        }
        match connection.question {
            Some(question) if question.until <= now => {
                return self.hang_up(now, addr, "it does not answer any more", true);
            }
            Some(question) if question.again <= now => {
                let left = question.until.saturating_duration_since(now);
                connection.ask(now, left, &timing);
                self.actions.push_back(Action::Ping { relay: addr, call });
            }
            _ => {}
        }
        let Some(connection) = self.connection(addr) else { return };
        if connection.next_ping <= now {
            connection.next_ping = now + timing.keep_alive;
            if connection.question.is_none() {
                connection.ask(now, timing.keep_alive, &timing);
                return self.actions.push_back(Action::Ping { relay: addr, call });
            }
        }
        if connection.measures(now, &timing) {
            self.actions.push_back(Action::Ping { relay: addr, call });
        }
    }

    fn hang_up(&mut self, now: Instant, addr: SocketAddr, reason: &str, silent: bool) {
        let Some(relay) = self.relays.iter_mut().find(|known| known.addr == addr) else { return };
        let Some(call) = relay.call() else { return };
        relay.hung_up(now, reason.to_owned(), &self.timing);
        // A visit that is over is not to be repeated.
        relay.lost = relay.lost.filter(|_| silent);
        self.actions.push_back(Action::HangUp { relay: addr, call, silent });
        self.publish_by(now + self.timing.gone);
        self.left(now, addr);
    }

    /// Asks for sessions anew that relays do not know.
    fn renew(&mut self, now: Instant) {
        let (due, later) = self.renewals.iter().partition(|renewal| renewal.at <= now);
        self.renewals = later;
        let due: Vec<Renewal> = due;
        for Renewal { relay, session, peer, .. } in due {
            let fresh = self.timing.check * 2;
            let lasting = |c: &mut Connection| now.saturating_duration_since(c.since) >= fresh;
            // It may have been resumed just now, or replaced.
            let known = self.sessions.peer(relay, session) == Some(peer);
            if known && self.connection(relay).is_some_and(lasting) {
                self.sessions.forget(relay, session);
                self.ask(now, relay, peer, None);
            }
        }
    }

    pub(crate) fn connection(&mut self, relay: SocketAddr) -> Option<&mut Connection> {
        self.relays.iter_mut().find(|known| known.addr == relay)?.connection_mut()
    }

    pub(crate) fn send(&mut self, relay: SocketAddr, call: u64, request: Request) {
        self.actions.push_back(Action::Send { relay, call, request });
    }
}
