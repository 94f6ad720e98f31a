//! Ports whose members are over their limits: what they sent waits here, and so does nothing else.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

use gvpn_packet::VnetHdr;
use gvpn_switch::{
    Pacing,
    shaper::{Popped, Shaper},
};

use crate::port::Port;

/// One thread's ports with a limit. Nothing is allocated for a packet once a port's queue is there.
#[derive(Debug, Default)]
pub(crate) struct Paced {
    queues: HashMap<u64, Queue>,
    /// When the first packet of a port may go: one entry for each queue that is not empty.
    due: BinaryHeap<Reverse<(u64, u64)>>,
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
}

/// A packet whose turn has come, or that must go.
#[derive(Debug)]
pub(crate) enum Turn {
    Send(Beside, usize),
    Drop(u64),
    Wait,
}

impl Paced {
    /// Whether a packet of this port must wait, for its turn or for others before it.
    pub(crate) fn must_wait(&self, port: &Port, pacing: &Pacing<'_>, now: u64) -> bool {
        let queued = |queue: &Queue| !queue.packets.is_empty();
        pacing.ready_at() > now || self.queues.get(&port.id.0).is_some_and(queued)
    }

    /// Keeps a packet until its turn; false if too many wait.
    pub(crate) fn hold(
        &mut self,
        port: &Arc<Port>,
        pacing: &Pacing<'_>,
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
            packets: Shaper::new(pacing.room()),
        });
        let first = queue.packets.is_empty();
        let held = queue.packets.push(beside, packet, now);
        if held && first {
            self.due.push(Reverse((pacing.ready_at(), id)));
        }
        held
    }

    /// When the next turn comes, in nanoseconds.
    pub(crate) fn next(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// The port whose turn has come. Take its packets until one must [wait](Turn::Wait).
    pub(crate) fn ready(&mut self, now: u64) -> Option<Arc<Port>> {
        while self.next().is_some_and(|at| at <= now) {
            let Reverse((_, id)) = self.due.pop()?;
            if let Some(queue) = self.queues.get(&id) {
                return Some(Arc::clone(&queue.port));
            }
        }
        None
    }

    /// The port's next packet, whose bytes are put into `out`. Without `pacing` the limit is gone.
    pub(crate) fn take(
        &mut self,
        port: &Port,
        pacing: Option<&Pacing<'_>>,
        now: u64,
        out: &mut [u8],
    ) -> Turn {
        let Some(queue) = self.queues.get_mut(&port.id.0) else { return Turn::Wait };
        let at = pacing.map_or(0, Pacing::ready_at);
        if at > now && !queue.packets.is_empty() {
            self.due.push(Reverse((at, port.id.0)));
            return Turn::Wait;
        }
        match queue.packets.pop(now, out) {
            Popped::Packet(beside, len) => Turn::Send(beside, len),
            Popped::Dropped(beside, _) => Turn::Drop(beside.packets),
            Popped::Empty => Turn::Wait,
        }
    }

    /// Forgets a port that is gone; returns how many packets go with it.
    pub(crate) fn forget(&mut self, port: &Port, out: &mut [u8]) -> u64 {
        let Some(mut queue) = self.queues.remove(&port.id.0) else { return 0 };
        let mut gone = 0;
        loop {
            match queue.packets.pop(0, out) {
                Popped::Packet(beside, _) | Popped::Dropped(beside, _) => gone += beside.packets,
                Popped::Empty => return gone,
            }
        }
    }
}
