//! What a node and a relay say to each other, on what stands for a QUIC connection: a call, a
//! stream of messages in each direction, signs of life, and a reset by who does not know it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// A node's record, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// A later one is larger.
    pub(crate) sequence: Instant,
    pub(crate) addrs: Vec<SocketAddr>,
    pub(crate) relays: Vec<SocketAddr>,
}

#[derive(Debug, Clone)]
pub(crate) enum ToRelay {
    Register(Record),
    /// The other node's record, and a session with it, under this request's number.
    Find(u32),
    Resume(Vec<u32>),
}

#[derive(Debug, Clone)]
pub(crate) enum ToClient {
    Registered(SocketAddr),
    Found(u32, Option<Record>, Option<u32>),
    Session(u32, Option<Record>),
}

/// On the connection of a call.
#[derive(Debug, Clone)]
pub(crate) enum Talk {
    /// Which node calls, and when this was sent.
    Call(usize, Instant),
    Welcome(Instant),
    Ask(u64, ToRelay),
    Tell(u64, ToClient),
    /// All messages before this one have come.
    Ack(u64),
    Ping(Instant),
    Pong(Instant),
    /// The end, told by who ends it or does not know it.
    Reset,
}

/// How soon what was not acknowledged is sent again; twice as long each further time.
const FIRST_REPEAT: Duration = Duration::from_millis(300);

/// Messages in order and once, both ways, over datagrams that are lost, doubled and overtaken.
#[derive(Debug)]
pub(crate) struct Channel<Out, In> {
    unacknowledged: VecDeque<(u64, Out)>,
    next: u64,
    expected: u64,
    early: BTreeMap<u64, In>,
    again: Option<(Instant, Duration)>,
}

impl<Out: Clone, In> Channel<Out, In> {
    pub(crate) fn new() -> Self {
        let (unacknowledged, early) = (VecDeque::new(), BTreeMap::new());
        Self { unacknowledged, next: 0, expected: 0, early, again: None }
    }

    /// The message's number; it is to be sent.
    pub(crate) fn push(&mut self, now: Instant, message: Out) -> u64 {
        let number = self.next;
        self.next += 1;
        self.unacknowledged.push_back((number, message));
        self.again.get_or_insert((now + FIRST_REPEAT, FIRST_REPEAT));
        number
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.again.map(|(at, _)| at)
    }

    /// What is to be sent again now.
    pub(crate) fn repeat(&mut self, now: Instant) -> Vec<(u64, Out)> {
        match self.again {
            Some((at, gap)) if at <= now => {
                self.again = Some((now + gap * 2, gap * 2));
                self.unacknowledged.iter().cloned().collect()
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn acknowledged(&mut self, before: u64) {
        self.unacknowledged.retain(|(number, _)| *number >= before);
        self.again = self.again.filter(|_| !self.unacknowledged.is_empty());
    }

    /// Something came: what was lost before is sent again soon.
    pub(crate) fn heard(&mut self, now: Instant) {
        if let Some((at, gap)) = &mut self.again
            && *gap > FIRST_REPEAT * 2
        {
            (*at, *gap) = (now, FIRST_REPEAT);
        }
    }

    /// What has come now, and the number to acknowledge.
    pub(crate) fn take(&mut self, number: u64, message: In) -> (Vec<In>, u64) {
        if number >= self.expected {
            self.early.insert(number, message);
        }
        let mut ready = Vec::new();
        while let Some(message) = self.early.remove(&self.expected) {
            self.expected += 1;
            ready.push(message);
        }
        (ready, self.expected)
    }
}
