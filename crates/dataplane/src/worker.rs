//! A thread: waits, and runs what is ready to completion.

use std::{
    io::{self, IoSlice},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use gvpn_packet::{MAX_PACKET, Segments, VnetHdr, mark_congestion};
use gvpn_switch::{DropReason, MemberIx, Verdict, capture::Direction, ethernet::FrameIn};

use crate::{
    Drop, Event,
    balance::Balance,
    core::Core,
    home::Threads,
    network::{State, Target, addresses},
    nic::ethernet::MAX_FRAME,
    pace::Pace,
    paced::{Beside, Limits, Paced, Turn},
    poll::{EVENTS, Ready},
    port::{Owner, Port, Scratch, packets_in},
    receive::Receive,
    transmit::{Context, Outcome, Transmit},
};

/// How many packets or super-packets a queue of a port may send before others get their turn.
const PORT_TURN: usize = 64;
/// How many bytes a queue of a port may send in its turn: about a super-packet, so that nothing waits
/// long. Among several queues, what one sent beyond that is taken off its next turn (deficit round
/// robin). Ports with fewer queues ready have longer turns: members share, whatever their flows.
const PORT_SHARE: i64 = 64 * 1024;
/// How much more it may send when its port is behind the others.
const PORT_MORE: u64 = 128 * 1024;
/// How many receives a socket gets before others get their turn.
const SOCKET_TURN: usize = 2;

const ETHERNET_HEADER: usize = 14;

/// Memory of one thread's buffers; of those for receiving, the kernel backs what was ever used.
const BUDGET: usize = 5 << 20;
const _: () = assert!(
    crate::udp::SLOT * crate::udp::RECEIVE_BATCH + crate::udp::MAX_SEND + 6 * MAX_PACKET <= BUDGET
);

/// The queues that have something to send.
struct Turns<'a>(&'a [Ready]);

impl Turns<'_> {
    /// How many bytes a queue of this port may send now; `None` where there is no other queue.
    fn share(&self, port: u64) -> Option<i64> {
        let queues = |port| self.ports().filter(|other| *other == port).count() as i64;
        let most = || self.ports().map(queues).max();
        (self.ports().nth(1).is_some())
            .then(|| PORT_SHARE * most().unwrap_or(1) / queues(port).max(1))
    }

    fn ports(&self) -> impl Iterator<Item = u64> {
        self.0.iter().filter_map(|event| match event {
            Ready::Port(id, _) => Some(*id),
            _ => None,
        })
    }
}

/// Where a packet comes from: the member `from` of the network in `state`, by its vNIC.
#[derive(Clone, Copy)]
struct Origin<'a> {
    port: &'a Arc<Port>,
    state: &'a State,
    from: MemberIx,
}

/// A thread's own state.
pub(crate) struct Worker {
    core: Arc<Core>,
    index: usize,
    receive: Receive,
    transmit: Transmit,
    scratch: Scratch,
    packet: Box<[u8]>,
    cut: Box<[u8]>,
    paced: Paced,
    balance: Balance,
}

impl Worker {
    pub(crate) fn new(core: Arc<Core>, index: usize) -> Self {
        Self {
            core,
            index,
            receive: Receive::of_thread(index),
            transmit: Transmit::default(),
            scratch: Scratch::default(),
            packet: vec![0; MAX_FRAME].into_boxed_slice(),
            cut: vec![0; MAX_PACKET].into_boxed_slice(),
            paced: Paced::of_thread(index),
            balance: Balance::default(),
        }
    }

    /// Runs until the data plane stops.
    pub(crate) fn run(mut self) {
        let core = Arc::clone(&self.core);
        let me = &core.workers[self.index];
        let mut ready = Vec::with_capacity(EVENTS);
        let mut pace = Pace::default();
        while !core.stop.load(Relaxed) {
            let due = self.paced.next(core.uplink.known(), || core.now().1);
            let waited = pace.wait(
                || core.start.elapsed(),
                |sleep| match due {
                    None => me.poll.wait(sleep, &mut ready),
                    Some(due) => me.poll.wait_until(sleep, due, || core.now().1, &mut ready),
                },
            );
            if let Err(error) = waited {
                tracing::error!(%error, "a data-plane thread cannot wait for events and ends");
                return;
            }
            let (now, nanos) = core.now();
            let cx =
                Context { core: &core, sockets: &me.sockets, counters: &me.counters, now, nanos };
            self.run_paced(&cx);
            let turns = Turns(&ready);
            for event in &ready {
                match event {
                    Ready::Wake => {
                        self.release(&cx, std::mem::take(&mut *me.releases.lock()));
                        self.receive.carried(&cx, &me.arrivals, &mut self.scratch);
                    }
                    Ready::Socket(index) => self.socket(&cx, *index),
                    Ready::Port(id, queue) => {
                        // A port may have been handed on since it was ready.
                        let mine = |port: &&Arc<Port>| port.reader() == self.index;
                        if let Some(port) = core.ports.load().get(id).filter(mine).cloned() {
                            self.port(&cx, &port, *queue, turns.share(*id));
                        }
                    }
                }
            }
        }
    }

    fn socket(&mut self, cx: &Context<'_>, index: usize) {
        let Some(socket) = cx.sockets.get(index) else { return };
        for _ in 0..SOCKET_TURN {
            match self.receive.run(cx, socket, &mut self.scratch) {
                Ok(true) => {}
                Ok(false) => return self.receive.emptied(),
                Err(error) => {
                    tracing::debug!(%error, "receiving failed");
                    return;
                }
            }
        }
        self.receive.left(cx.nanos);
    }

    /// Sends what waited for a lane.
    fn release(&mut self, cx: &Context<'_>, slots: Vec<Arc<crate::peer::Slot>>) {
        for slot in slots {
            let (packets, stale) = slot.held.lock().take(cx.now);
            cx.counters.drop(Drop::NoLane, stale);
            for mut waiting in packets {
                self.transmit.packet(cx, &slot, &waiting.hdr, &mut waiting.bytes);
            }
        }
        self.transmit.flush(cx);
    }

    /// Sends what members were not allowed to send before now.
    fn run_paced(&mut self, cx: &Context<'_>) {
        let uplink = cx.core.uplink.known();
        if self.paced.next(uplink, || cx.nanos).is_none() {
            return;
        }
        let mut buffer = std::mem::take(&mut self.packet);
        while let Some(port) = self.paced.ready(uplink, cx.nanos) {
            let state = port.network.state.load();
            let from = state.as_deref().and_then(|state| state.member(port.owner));
            let (Some(state), Some(from), true) =
                (state.as_deref(), from, cx.core.ports.load().contains_key(&port.id.0))
            else {
                cx.counters.drop(Drop::NotAMember, self.paced.forget(&port, &mut buffer));
                continue;
            };
            let origin = Origin { port: &port, state, from };
            let limits = Limits { pacing: state.table.pacing(from), uplink };
            match self.paced.take(&port, &limits, cx.nanos, &mut buffer) {
                Turn::Send(Beside { hdr, packets, .. }, len) => {
                    self.forward(cx, origin, &hdr, &mut buffer[..len], packets);
                }
                Turn::Drop(packets) => cx.counters.switch_drop(DropReason::RateLimited, packets),
                Turn::Nothing => {}
            }
        }
        self.packet = buffer;
        self.transmit.flush(cx);
    }

    /// Moves what a queue of a vNIC has to send: a fair share of it where others have something to
    /// send too.
    fn port(&mut self, cx: &Context<'_>, port: &Arc<Port>, index: usize, share: Option<i64>) {
        let Some(queue) = port.queue(index) else { return };
        let state = port.network.state.load();
        let from = state.as_deref().and_then(|state| state.member(port.owner));
        port.flush();
        let mut buffer = std::mem::take(&mut self.packet);
        let more = self.balance.behind(&port.tag).min(PORT_MORE) as i64;
        let turn = share.map_or(PORT_SHARE, |s| s + more - queue.overdrawn.load(Relaxed));
        let (mut packets, mut left) = (0, turn);
        let (mut standing, mut empty) = (queue.standing.lock(), false);
        for _ in 0..PORT_TURN {
            if left <= 0 {
                break;
            }
            match port.nic.read(index, &mut buffer) {
                Ok(Some((hdr, packet))) => match (state.as_deref(), from) {
                    (Some(state), Some(from)) => {
                        left -= packet.len() as i64;
                        packets += packets_in(&hdr, packet);
                        let origin = Origin { port, state, from };
                        if let Some(packet) = unwrap(cx, origin, packet) {
                            if standing.is_due(cx.nanos) && mark_congestion(packet) {
                                standing.marked(cx.nanos);
                                port.marked.fetch_add(1, Relaxed);
                            }
                            self.packet_in(cx, origin, &hdr, packet);
                        }
                    }
                    _ => cx.counters.drop(Drop::NotAMember, 1),
                },
                Ok(None) => cx.counters.drop(Drop::BadFrame, 1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    empty = true;
                    break;
                }
                Err(error) => {
                    tracing::debug!(%error, port = %port.id, "the vNIC is gone");
                    close(cx, port);
                    break;
                }
            }
        }
        if empty {
            standing.emptied()
        } else {
            standing.left(cx.nanos)
        }
        drop(standing);
        queue.overdrawn.store((-left).max(0), Relaxed);
        self.balance.count(&port.tag, (turn - left) as u64);
        self.packet = buffer;
        self.transmit.flush(cx);
        let limited = |state: &State| from.is_some_and(|from| state.table.pacing(from).is_some());
        let waits = cx.core.uplink.known().is_some() || self.paced.holds(port);
        if !waits && !state.as_deref().is_some_and(limited) {
            self.house(cx, port, packets);
        }
    }

    /// Hands a port that has just sent packets to the thread that should read it.
    fn house(&self, cx: &Context<'_>, port: &Port, packets: u64) {
        let count = cx.core.workers.len();
        let threads = Threads { reader: self.index, feeder: port.feeder.load(Relaxed), count };
        let Some(to) = port.home.lock().next(port.id.0, cx.now, packets, threads) else { return };
        if let Err(error) = port.hand_to(to) {
            tracing::error!(%error, port = %port.id, "a vNIC cannot be read by another thread");
            close(cx, port);
        }
    }

    #[inline]
    fn packet_in(
        &mut self,
        cx: &Context<'_>,
        origin: Origin<'_>,
        hdr: &VnetHdr,
        packet: &mut [u8],
    ) {
        let Origin { port, state, from } = origin;
        let packets = packets_in(hdr, packet);
        port.note_in(packets, packet.len() as u64);
        if port.network.captures.any() {
            port.network.captures.note(Direction::Outbound, &[IoSlice::new(packet)]);
        }
        let limits = Limits { pacing: state.table.pacing(from), uplink: cx.core.uplink.known() };
        if limits.pacing.is_some() || limits.uplink.is_some() {
            return self.limited(cx, origin, limits, hdr, packet);
        }
        self.forward(cx, origin, hdr, packet, packets);
    }

    /// A packet that may have to wait; a large super-packet is cut where the limit is small.
    fn limited(
        &mut self,
        cx: &Context<'_>,
        origin: Origin<'_>,
        limits: Limits<'_>,
        hdr: &VnetHdr,
        packet: &mut [u8],
    ) {
        let leaves = origin.state.table.leaves(packet);
        if let (true, Ok(Some(segments))) =
            (limits.cuts(packet.len(), leaves), Segments::new(hdr, packet, usize::MAX))
        {
            let mut cut = std::mem::take(&mut self.cut);
            for index in 0..segments.count() {
                let len = segments.write_packet(index, &mut cut);
                let beside = Beside { hdr: VnetHdr::default(), packets: 1, leaves };
                self.in_turn(cx, origin, limits, beside, &mut cut[..len]);
            }
            self.cut = cut;
            return;
        }
        let beside = Beside { hdr: *hdr, packets: packets_in(hdr, packet), leaves };
        self.in_turn(cx, origin, limits, beside, packet);
    }

    /// Sends a packet, or keeps it until its turn.
    fn in_turn(
        &mut self,
        cx: &Context<'_>,
        origin: Origin<'_>,
        limits: Limits<'_>,
        beside: Beside,
        packet: &mut [u8],
    ) {
        let what = (packet.len(), beside.leaves);
        if self.paced.must_wait(origin.port, &limits, what, cx.nanos) {
            if !self.paced.hold(origin.port, &limits, beside, packet, cx.nanos) {
                cx.counters.switch_drop(DropReason::RateLimited, beside.packets);
            }
            return;
        }
        self.paced.charge(origin.port, &limits, &beside, packet, cx.nanos);
        self.forward(cx, origin, &beside.hdr, packet, beside.packets);
    }

    fn forward(
        &mut self,
        cx: &Context<'_>,
        origin: Origin<'_>,
        hdr: &VnetHdr,
        packet: &mut [u8],
        packets: u64,
    ) {
        let Origin { port, state, from } = origin;
        let head = hdr.to_bytes();
        if let Owner::Pair { local, remote } = port.owner
            && addresses(packet) != Some((local, remote))
        {
            cx.counters.switch_drop(DropReason::SpoofedSource, packets);
            return;
        }
        let verdict = state.table.from_port(from, packet);
        if !state.table.admit(packet, &verdict, packet.len() as u64, packets, cx.nanos) {
            cx.counters.switch_drop(DropReason::RateLimited, packets);
            return;
        }
        match verdict {
            Verdict::Deliver(member) => match (state.tap(packet), state.target(member)) {
                (Some(to), _) | (None, Target::Port(to)) => {
                    let parts = &[IoSlice::new(&head), IoSlice::new(packet)];
                    to.deliver(hdr, parts, packets, &mut self.scratch, cx.counters);
                }
                (None, Target::Peer(slot)) => {
                    if let Outcome::Tell(message) = self.transmit.packet(cx, slot, hdr, packet) {
                        self.reply(cx, port, &message);
                    }
                }
                (None, Target::Nothing) => cx.counters.drop(Drop::NoPort, packets),
            },
            Verdict::Replicate(targets) => {
                for member in targets.local() {
                    if let Target::Port(to) = state.target(*member)
                        && !Arc::ptr_eq(to, port)
                    {
                        let parts = &[IoSlice::new(&head), IoSlice::new(packet)];
                        to.deliver(hdr, parts, packets, &mut self.scratch, cx.counters);
                    }
                }
                for node in targets.nodes() {
                    if let Some(Some(slot)) = state.nodes.get(node.0 as usize) {
                        self.transmit.packet(cx, slot, hdr, packet);
                    }
                }
            }
            Verdict::Answer => {
                if let Some(reply) = state.table.answer(from, packet, cx.nanos) {
                    self.reply(cx, port, &reply);
                }
            }
            Verdict::Drop(reason) => {
                cx.counters.switch_drop(reason, packets);
                if let Some(message) = state.table.refusal(packet, reason, cx.nanos) {
                    self.reply(cx, port, &message);
                }
            }
        }
    }

    /// Gives a packet of our own to a vNIC.
    fn reply(&mut self, cx: &Context<'_>, port: &Port, packet: &[u8]) {
        let hdr = VnetHdr::default();
        let head = hdr.to_bytes();
        let parts = &[IoSlice::new(&head), IoSlice::new(packet)];
        port.deliver(&hdr, parts, 1, &mut self.scratch, cx.counters);
    }
}

/// The IP packet in what a vNIC sent: a frame of an Ethernet vNIC meets the switch's end here.
#[inline]
fn unwrap<'a>(
    cx: &Context<'_>,
    Origin { port, state, from }: Origin<'_>,
    bytes: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    let Some(edge) = port.nic.edge() else { return Some(bytes) };
    let met = edge.lock().frame_in(&state.table, from, bytes);
    match met {
        FrameIn::Packet(packet) => {
            let len = packet.len();
            bytes.get_mut(ETHERNET_HEADER..ETHERNET_HEADER + len)
        }
        FrameIn::Reply(frame) => {
            port.send_frame(&frame);
            None
        }
        FrameIn::Drop(reason) => {
            cx.counters.switch_drop(reason, 1);
            None
        }
    }
}

/// Takes a port whose other end is gone out of the tables.
fn close(cx: &Context<'_>, port: &Port) {
    port.unwatch();
    let id = port.id.0;
    cx.core.ports.rcu(|ports| {
        let mut ports = std::collections::HashMap::clone(ports);
        ports.remove(&id);
        ports
    });
    cx.core.closed.lock().push(id);
    cx.core.raise(Event::PortClosed { port: port.id });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_the_same_turns_whatever_their_queues() {
        let ready = [Ready::Port(1, 0), Ready::Socket(0), Ready::Port(2, 3), Ready::Port(2, 5)];
        let turns = Turns(&ready);
        assert_eq!(turns.share(1), Some(2 * PORT_SHARE));
        assert_eq!(turns.share(2), Some(PORT_SHARE));
        assert_eq!(Turns(&ready[..2]).share(1), None, "nobody else waits");
        assert_eq!(Turns(&ready[2..]).share(2), Some(PORT_SHARE));
    }
}
