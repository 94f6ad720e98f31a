//! Finding a peer through relays.

use std::{net::SocketAddr, time::Instant};

use gvpn_model::NodeId;

use crate::{Action, Home, MAX_RELAYS, Request, Timing, relay::Relay};

/// At most so many relays of the peer's are visited.
const MAX_VISITS: usize = 3;

/// What a relay knows of a node, as far as it can be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where the node says it is.
    pub addrs: Vec<SocketAddr>,
    /// The relays that it says it is at, its home first.
    pub relays: Vec<SocketAddr>,
    /// The number under which the relay forwards to it.
    pub session: Option<u32>,
}

/// A node is being looked for.
#[derive(Debug)]
pub(crate) struct LookUp {
    id: u32,
    node: NodeId,
    begun: Instant,
    asked: Vec<SocketAddr>,
    /// When the first relay knew the node.
    found: Option<Instant>,
    /// It was looked for just before, and a relay said that it forwards to it: that was of no use.
    again: bool,
    /// A relay forwards to it.
    forwarded: bool,
    /// One does that is to be believed: the node has not left that relay.
    met: bool,
    /// The relays where it says it is.
    homes: Vec<SocketAddr>,
    /// Those of them that are visited, and since when.
    visits: Option<(Instant, Vec<SocketAddr>)>,
    reasons: Vec<String>,
}

/// A relay was asked for a node.
#[derive(Debug)]
pub(crate) struct Find {
    relay: SocketAddr,
    node: NodeId,
    /// For whom; otherwise to have a session anew.
    look_up: Option<u32>,
    asked: Instant,
    slow: bool,
}

impl Find {
    pub(crate) fn due(&self, timing: &Timing) -> Instant {
        self.asked + if self.slow { timing.answer } else { timing.slow_answer }
    }
}

impl LookUp {
    pub(crate) fn due(&self, timing: &Timing) -> impl Iterator<Item = Instant> {
        let arrival = self.asked.is_empty().then(|| self.begun + timing.connect);
        let waits = !self.met && self.visits.is_none() && !self.homes.is_empty();
        let found = self.found.filter(|_| waits).map(|at| at + timing.slow_answer);
        let visit = self.visits.as_ref().map(|(since, _)| *since + timing.connect);
        [arrival, found, visit].into_iter().flatten()
    }
}

impl Home {
    /// Looks for ways to a node: [`Action::Way`] says what is found, [`Action::Done`] that there will
    /// be no more.
    pub fn look_up(&mut self, now: Instant, node: NodeId) -> u32 {
        let id = self.number();
        let Timing { tried, again, .. } = self.timing;
        self.forwarded.retain(|_, at| now.saturating_duration_since(*at) < again);
        let of_no_use = |at: &Instant| now.saturating_duration_since(*at) >= tried;
        let again = self.forwarded.get(&node).is_some_and(of_no_use);
        self.look_ups.push(LookUp {
            id,
            node,
            begun: now,
            asked: Vec::new(),
            found: None,
            again,
            forwarded: false,
            met: false,
            homes: Vec::new(),
            visits: None,
            reasons: Vec::new(),
        });
        let connected: Vec<_> = self.connections().map(|(relay, _)| relay).collect();
        connected.into_iter().for_each(|relay| self.ask(now, relay, node, Some(id)));
        self.advance(now);
        id
    }

    /// Which node a relay was asked for by a request that is still open.
    pub fn asked(&self, relay: SocketAddr, request: u32) -> Option<NodeId> {
        self.finds.get(&request).filter(|find| find.relay == relay).map(|find| find.node)
    }

    /// A relay answered a request, or the answer says nothing, and why.
    pub fn handle_found(
        &mut self,
        now: Instant,
        relay: SocketAddr,
        request: u32,
        answer: Result<Answer, String>,
    ) {
        if self.asked(relay, request).is_some() {
            self.answered(now, request, answer);
            self.advance(now);
        }
    }

    /// A relay was connected: is of use to those who look for a node.
    pub(crate) fn arrived(&mut self, now: Instant, relay: SocketAddr) {
        let fresh = self.look_ups.iter().filter(|l| !l.asked.contains(&relay));
        let waiting: Vec<_> = fresh.map(|l| (l.id, l.node)).collect();
        waiting.into_iter().for_each(|(id, node)| self.ask(now, relay, node, Some(id)));
    }

    /// A relay is not connected any more, or could not be.
    pub(crate) fn left(&mut self, now: Instant, relay: SocketAddr) {
        let open = self.finds.iter().filter(|(_, find)| find.relay == relay);
        let open: Vec<u32> = open.map(|(request, _)| *request).collect();
        for request in open {
            self.answered(now, request, Err("the connection ended".into()));
        }
        for look_up in &mut self.look_ups {
            if let Some((_, visits)) = &mut look_up.visits {
                visits.retain(|visited| *visited != relay);
            }
        }
        self.advance(now);
    }

    pub(crate) fn ask(
        &mut self,
        now: Instant,
        relay: SocketAddr,
        node: NodeId,
        look_up: Option<u32>,
    ) {
        let Some(call) = self.connection(relay).map(|connection| connection.call) else { return };
        let asker = self.look_ups.iter_mut().find(|l| look_up == Some(l.id));
        if let Some(asker) = asker {
            asker.asked.push(relay);
            if let Some((_, visits)) = &mut asker.visits {
                visits.retain(|visited| *visited != relay);
            }
        }
        let request = self.number();
        self.finds.insert(request, Find { relay, node, look_up, asked: now, slow: false });
        self.send(relay, call, Request::Find { request, node });
    }

    /// Goes on with look-ups.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.expire(now);
        for at in (0..self.look_ups.len()).rev() {
            let id = self.look_ups[at].id;
            self.visit(now, at);
            let open = self.finds.values().any(|find| find.look_up == Some(id));
            if !open && self.is_over(now, &self.look_ups[at]) {
                let look_up = self.look_ups.remove(at);
                if look_up.forwarded {
                    self.forwarded.insert(look_up.node, now);
                }
                let failed = self.verdict(&look_up);
                self.actions.push_back(Action::Done { look_up: id, failed });
            }
        }
    }

    /// Does not wait any longer for relays that do not answer.
    fn expire(&mut self, now: Instant) {
        let timing = self.timing.clone();
        let due = self.finds.iter().filter(|(_, find)| find.due(&timing) <= now);
        let due: Vec<_> = due.map(|(request, find)| (*request, find.relay, find.slow)).collect();
        for (request, relay, slow) in due {
            if slow {
                let reason = format!("no answer within {:?}", timing.answer);
                self.answered(now, request, Err(reason));
            } else {
                self.doubt(now, relay);
                self.finds.get_mut(&request).into_iter().for_each(|find| find.slow = true);
            }
        }
    }

    fn answered(&mut self, now: Instant, request: u32, answer: Result<Answer, String>) {
        let Some(Find { relay, node, look_up, .. }) = self.finds.remove(&request) else { return };
        let session = answer.as_ref().ok().and_then(|answer| answer.session);
        if let Some(session) = session {
            self.handle_session(relay, session, node);
        }
        let homes = answer.as_ref().map_or(&[][..], |answer| &answer.relays);
        let homes = &homes[..homes.len().min(MAX_RELAYS)];
        self.sessions.at_home(node, homes);
        // A relay that has lost sight of a node forwards to where it was for a while.
        let left = !homes.contains(&relay) && self.sessions.was_at_home(node, relay);
        let Some(asker) = self.look_ups.iter_mut().find(|l| look_up == Some(l.id)) else { return };
        match answer {
            Ok(Answer { addrs, relays, .. }) => {
                asker.forwarded |= session.is_some();
                asker.met |= session.is_some() && !left && !asker.again;
                asker.found.get_or_insert(now);
                for home in relays.into_iter().take(MAX_RELAYS) {
                    if !asker.homes.contains(&home) {
                        asker.homes.push(home);
                    }
                }
                let session = session.map(|session| (relay, session));
                self.actions.push_back(Action::Way { look_up: asker.id, addrs, session });
            }
            Err(reason) => asker.reasons.push(format!("relay {relay}: {reason}")),
        }
    }

    /// Asks the relays where the node is at home, once those at hand have been of no use.
    fn visit(&mut self, now: Instant, at: usize) {
        let timing = self.timing.clone();
        let look_up = &mut self.look_ups[at];
        let patient = look_up.found.is_none_or(|found| now < found + timing.slow_answer);
        let open = self.finds.values().any(|find| find.look_up == Some(look_up.id));
        if look_up.met || look_up.visits.is_some() || look_up.found.is_none() || (patient && open) {
            return;
        }
        let new = look_up.homes.iter().filter(|home| !look_up.asked.contains(home));
        let visits: Vec<SocketAddr> = new.copied().take(MAX_VISITS).collect();
        look_up.visits = Some((now, visits.clone()));
        for home in visits {
            if self.relays.iter().all(|known| known.addr != home) {
                self.relays.push(Relay::new(now, home, false, &timing));
            }
        }
    }

    fn is_over(&self, now: Instant, look_up: &LookUp) -> bool {
        let waited = |since: Instant| now >= since + self.timing.connect;
        if look_up.asked.is_empty() {
            return self.relays.is_empty() || waited(look_up.begun);
        }
        let visits = look_up.visits.as_ref();
        look_up.met || visits.is_none_or(|(since, left)| left.is_empty() || waited(*since))
    }

    /// Why a look-up has found nothing, if so.
    fn verdict(&self, look_up: &LookUp) -> Option<String> {
        if look_up.found.is_some() {
            return None;
        }
        if self.relays.is_empty() {
            return Some("no relay is configured to look it up, and no address was given".into());
        }
        if look_up.asked.is_empty() {
            let each = self.relays.iter().map(|relay| match &relay.failure {
                Some(reason) => format!("relay {} cannot be reached: {reason}", relay.addr),
                None => format!("relay {} does not answer", relay.addr),
            });
            return Some(each.collect::<Vec<_>>().join("; "));
        }
        Some(look_up.reasons.join("; "))
    }

    fn number(&mut self) -> u32 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }
}
