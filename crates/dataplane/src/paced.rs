//! Ports that may not send now, because their member is over its limit or this node's line is busy:
//! what they sent waits here, and so does nothing else.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use gvpn_packet::{VnetHdr, mark_congestion};
use gvpn_switch::{
    Pacing,
    shaper::{Popped, Shaper},
};

use crate::{
    port::{Port, bytes_on_wire},
    uplink::{Line, Uplink},
};

/// One thread's ports that must wait. Nothing is allocated for a packet once a port's queue is there.
#[derive(Debug, Default)]
pub(crate) struct Paced {
    queues: HashMap<u64, Queue>,
    /// When the first packet of a port may go by its member's limit: one entry for each queue that
    /// is neither empty nor in the line.
    due: BinaryHeap<Reverse<(u64, u64)>>,
    line: Line,
}

/// What a packet must wait for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits<'a> {
    /// The member's limit, if it has one.
    pub(crate) pacing: Option<Pacing<'a>>,
    /// This node's line, if it is known how fast it is.
    pub(crate) uplink: Option<&'a Uplink>,
}

#[derive(Debug)]
struct Queue {
    port: Arc<Port>,
    packets: Shaper<Beside>,
}

/// What is known of a packet that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beside {
    pub(crate) hdr: VnetHdr,
    /// How many packets it stands for.
    pub(crate) packets: u64,
    /// Whether it goes to other nodes.
    pub(crate) leaves: bool,
}

/// A packet whose turn has come, or that must go.
#[derive(Debug)]
pub(crate) enum Turn {
    Send(Beside, usize),
    Drop(u64),
    Nothing,
}

impl Limits<'_> {
    /// Whether a super-packet of so many bytes is to be cut first: whole it would hold up what comes
    /// after it, and be lost as a whole.
    pub(crate) fn cuts(&self, bytes: usize, leaves: bool) -> bool {
        self.pacing.is_some_and(|pacing| pacing.cuts(bytes))
            || (leaves && self.uplink.is_some_and(|uplink| uplink.cuts(bytes)))
    }

    fn ready_at(&self, bytes: usize, since: u64) -> u64 {
        self.pacing.map_or(0, |pacing| pacing.ready_at(bytes, since))
    }

    fn takes(&self, bytes: usize) -> u64 {
        self.pacing.map_or(0, |pacing| pacing.takes(bytes))
    }

    fn room(&self) -> usize {
        let (pacing, uplink) = (self.pacing.map(|p| p.room()), self.uplink.map(Uplink::room));
        pacing.into_iter().chain(uplink).min().unwrap_or_default()
    }
}

impl Paced {
    pub(crate) fn of_thread(thread: usize) -> Self {
        Self { line: Line::of_thread(thread), ..Self::default() }
    }

    /// Whether packets of this port wait.
    pub(crate) fn holds(&self, port: &Port) -> bool {
        self.queues.get(&port.id.0).is_some_and(|queue| !queue.packets.is_empty())
    }

    /// Whether a packet of this port must wait, for its turn or for others before it.
    pub(crate) fn must_wait(
        &self,
        port: &Port,
        limits: &Limits<'_>,
        (bytes, leaves): (usize, bool),
        now: u64,
    ) -> bool {
        let queued = |queue: &Queue| !queue.packets.is_empty();
        limits.ready_at(bytes, now) > now
            || (leaves && limits.uplink.is_some_and(|uplink| uplink.must_wait(now)))
            || self.queues.get(&port.id.0).is_some_and(queued)
    }

    /// Counts a packet or super-packet that goes without having waited.
    pub(crate) fn charge(
        &mut self,
        port: &Port,
        limits: &Limits<'_>,
        beside: &Beside,
        packet: &[u8],
        now: u64,
    ) {
        self.count(port, limits, (beside, packet), (now, now));
    }

    /// Keeps a packet until its turn; false if too many wait.
    pub(crate) fn hold(
        &mut self,
        port: &Arc<Port>,
        limits: &Limits<'_>,
        beside: Beside,
        packet: &[u8],
        now: u64,
    ) -> bool {
        let id = port.id.0;
        if !self.queues.contains_key(&id) {
            // Ports come and go seldom: here is time to look for those that are gone.
            self.queues.retain(|_, queue| Arc::strong_count(&queue.port) > 1);
        }
        let queue = self.queues.entry(id).or_insert_with(|| Queue {
            port: Arc::clone(port),
            packets: Shaper::new(limits.room()),
        });
        let first = queue.packets.is_empty();
        let held = queue.packets.push(beside, packet, now);
        if held && first {
            self.due.push(Reverse((limits.ready_at(packet.len(), now), id)));
        }
        held
    }

    /// When the next turn comes, in nanoseconds.
    pub(crate) fn next(&self, uplink: Option<&Uplink>, now: impl Fn() -> u64) -> Option<u64> {
        let own = self.due.peek().map(|Reverse((at, _))| *at);
        own.into_iter().chain(self.line.due(uplink, now)).min()
    }

    /// The port whose turn has come: [`take`](Self::take) its packet.
    pub(crate) fn ready(&mut self, uplink: Option<&Uplink>, now: u64) -> Option<Arc<Port>> {
        while let Some(Reverse((at, id))) = self.due.peek().copied()
            && at <= now
        {
            self.due.pop();
            self.line.join(uplink, id);
        }
        loop {
            let id = self.line.next(uplink, now)?;
            match self.queues.get(&id) {
                Some(queue) => return Some(Arc::clone(&queue.port)),
                None => self.line.forget(id),
            }
        }
    }

    /// The next packet of the port that is [`ready`](Self::ready), whose bytes are put into `out`.
    /// It is charged for.
    pub(crate) fn take(
        &mut self,
        port: &Port,
        limits: &Limits<'_>,
        now: u64,
        out: &mut [u8],
    ) -> Turn {
        let id = port.id.0;
        let Some(queue) = self.queues.get_mut(&id) else { return Turn::Nothing };
        let Some((len, since)) = queue.packets.first() else { return Turn::Nothing };
        let turn = match queue.packets.pop(now.saturating_sub(limits.takes(len)), out) {
            Popped::Packet(beside, len) => Turn::Send(beside, len),
            Popped::Mark(beside, len) => {
                mark_congestion(&mut out[..len]);
                port.marked.fetch_add(beside.packets, Relaxed);
                Turn::Send(beside, len)
            }
            Popped::Dropped(beside, _) => Turn::Drop(beside.packets),
            Popped::Empty => return Turn::Nothing,
        };
        let next = queue.packets.first();
        if let Turn::Send(beside, len) = &turn {
            self.count(port, limits, (beside, &out[..*len]), (since, now));
        }
        if let Some((bytes, since)) = next {
            self.due.push(Reverse((limits.ready_at(bytes, since), id)));
        }
        turn
    }

    /// Forgets a port that is gone; returns how many packets go with it.
    pub(crate) fn forget(&mut self, port: &Port, out: &mut [u8]) -> u64 {
        self.line.forget(port.id.0);
        let Some(mut queue) = self.queues.remove(&port.id.0) else { return 0 };
        let mut gone = 0;
        loop {
            match queue.packets.pop(0, out) {
                Popped::Packet(beside, _)
                | Popped::Mark(beside, _)
                | Popped::Dropped(beside, _) => gone += beside.packets,
                Popped::Empty => return gone,
            }
        }
    }

    fn count(
        &mut self,
        port: &Port,
        limits: &Limits<'_>,
        (beside, packet): (&Beside, &[u8]),
        (since, now): (u64, u64),
    ) {
        let bytes = bytes_on_wire(packet, beside.packets);
        if let Some(pacing) = &limits.pacing {
            pacing.charge(bytes, beside.packets, since, now);
        }
        if let (Some(uplink), true) = (limits.uplink, beside.leaves) {
            self.line.charge(uplink, port.id.0, (bytes, beside.packets), now);
        }
    }
}
