//! One relay, as far as it is known.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::Timing;

/// What the driver knows of a connection with a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// How much has come from the relay since it was connected, in whatever unit: more than before
    /// is a sign of life.
    pub received: u64,
    /// The round trip.
    pub rtt: Duration,
    /// Whether a peer is reached through it.
    pub used: bool,
}

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) addr: SocketAddr,
    /// This node was told to use it; otherwise it visits.
    pub(crate) configured: bool,
    pub(crate) state: State,
    /// The wait after the next failure.
    pub(crate) retry: Duration,
    /// When it last seemed to be there though it was not connected.
    pub(crate) hinted: Option<Instant>,
    /// Why it is not connected.
    pub(crate) failure: Option<String>,
    /// When a connection with it was lost.
    pub(crate) lost: Option<Instant>,
    /// When a peer was last reached through it.
    pub(crate) used: Instant,
}

#[derive(Debug)]
pub(crate) enum State {
    Waiting {
        until: Instant,
    },
    Calling {
        call: u64,
    },
    /// The connection of a call is being ended.
    Ending {
        call: u64,
    },
    Connected(Connection),
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) call: u64,
    pub(crate) since: Instant,
    pub(crate) rtt: Duration,
    received: u64,
    /// When a sign of life is asked for next.
    pub(crate) next_ping: Instant,
    pub(crate) question: Option<Question>,
    /// Until when the round trip is, or was, measured thoroughly, and when it is asked for next.
    pub(crate) measured: Instant,
    measure_next: Option<Instant>,
    doubted: Option<Instant>,
    /// The relays that were named to it.
    pub(crate) told: Vec<SocketAddr>,
}

/// A sign of life was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    /// When the connection is lost.
    pub(crate) until: Instant,
    /// When to look whether there was one, and to ask again.
    pub(crate) again: Instant,
}

impl Relay {
    pub(crate) fn new(now: Instant, addr: SocketAddr, configured: bool, timing: &Timing) -> Self {
        Self {
            addr,
            configured,
            state: State::Waiting { until: now },
            retry: timing.first_retry,
            hinted: None,
            failure: None,
            lost: None,
            used: now,
        }
    }

    pub(crate) fn connection(&self) -> Option<&Connection> {
        match &self.state {
            State::Connected(connection) => Some(connection),
            _ => None,
        }
    }

    pub(crate) fn connection_mut(&mut self) -> Option<&mut Connection> {
        match &mut self.state {
            State::Connected(connection) => Some(connection),
            _ => None,
        }
    }

    /// The call that is in progress, or led to the connection.
    pub(crate) fn call(&self) -> Option<u64> {
        match &self.state {
            State::Waiting { .. } => None,
            State::Calling { call } | State::Ending { call } => Some(*call),
            State::Connected(connection) => Some(connection.call),
        }
    }

    /// When something is due.
    pub(crate) fn due(&self, timing: &Timing) -> Option<Instant> {
        match &self.state {
            State::Waiting { until } => Some(*until),
            State::Calling { .. } | State::Ending { .. } => None,
            State::Connected(connection) => {
                let question = connection.question.map(|q| q.until.min(q.again));
                let visit = (!self.configured).then(|| self.used + timing.visit);
                let measure = connection.measure_next;
                let asked = question.into_iter().chain(visit).chain(measure);
                asked.chain([connection.next_ping]).min()
            }
        }
    }

    /// The connection is to end, or has ended.
    pub(crate) fn hung_up(&mut self, now: Instant, reason: String, timing: &Timing) {
        let Some(Connection { call, since, .. }) = self.connection() else { return };
        let (call, lasted) = (*call, now.saturating_duration_since(*since));
        if lasted > timing.lasting {
            self.retry = timing.first_retry;
        }
        (self.failure, self.lost) = (Some(reason), Some(now));
        self.state = State::Ending { call };
    }

    /// The connection, or the attempt, is over.
    pub(crate) fn ended(&mut self, now: Instant, reason: &str, timing: &Timing) {
        if matches!(self.state, State::Calling { .. }) {
            self.failure = Some(reason.to_owned());
        }
        self.state = State::Waiting { until: now + self.retry };
        self.retry = (self.retry * 2).min(timing.last_retry);
    }

    /// Whether it is called again if it is not connected.
    pub(crate) fn wanted(&self, now: Instant, timing: &Timing) -> bool {
        let lost = |at: Instant| now.saturating_duration_since(at) < timing.revisit;
        self.configured || self.lost.is_some_and(lost)
    }
}

impl Connection {
    pub(crate) fn new(now: Instant, call: u64, rtt: Duration, timing: &Timing) -> Self {
        Self {
            call,
            since: now,
            rtt,
            received: 0,
            next_ping: now + timing.keep_alive,
            question: None,
            measured: now + timing.measure,
            measure_next: None,
            doubted: None,
            told: Vec::new(),
        }
    }

    pub(crate) fn activity(&mut self, activity: &Activity) {
        self.rtt = activity.rtt;
        if self.received != activity.received {
            self.received = activity.received;
            self.question = None;
        }
    }

    /// The round trip is measured thoroughly.
    pub(crate) fn measure(&mut self, now: Instant, timing: &Timing) {
        (self.measured, self.measure_next) = (now + timing.measure, Some(now));
    }

    /// Whether to ask now for an answer that shows the round trip.
    pub(crate) fn measures(&mut self, now: Instant, timing: &Timing) -> bool {
        if self.measure_next.is_none_or(|at| at > now) {
            return false;
        }
        let going_on = now < self.measured;
        let next = (now + timing.ask_again).min(self.measured);
        self.measure_next = going_on.then_some(next);
        going_on
    }

    /// There is doubt whether the relay still knows this node; whether it is to be asked.
    pub(crate) fn doubt(&mut self, now: Instant, timing: &Timing) -> bool {
        let recent = |at: Instant| now.saturating_duration_since(at) < timing.check * 2;
        if self.doubted.is_some_and(recent) {
            return false;
        }
        self.doubted = Some(now);
        self.ask(now, timing.check, timing);
        true
    }

    /// A sign of life is asked for now, and must come in time.
    pub(crate) fn ask(&mut self, now: Instant, patience: Duration, timing: &Timing) {
        let until = now + patience;
        let until = self.question.map_or(until, |known| known.until.min(until));
        self.question = Some(Question { until, again: now + timing.ask_again });
    }
}
