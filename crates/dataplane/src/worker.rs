//! A thread: waits, and runs what is ready to completion.

use std::{
    io::{self, IoSlice},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use gvpn_packet::{MAX_PACKET, VnetHdr};
use gvpn_switch::{DropReason, MemberIx, Verdict, capture::Direction, ethernet::FrameIn};

use crate::{
    Drop, Event,
    core::Core,
    network::{State, Target, addresses},
    nic::ethernet::MAX_FRAME,
    pace::Pace,
    poll::{EVENTS, Ready},
    port::{Owner, Port, Scratch, packets_in},
    receive::Receive,
    transmit::{Context, Outcome, Transmit},
};

/// How many packets or super-packets a port may send before others get their turn.
const PORT_TURN: usize = 64;
/// How many receives a socket gets before others get their turn.
const SOCKET_TURN: usize = 8;

const ETHERNET_HEADER: usize = 14;

/// Memory of one thread's buffers.
const BUDGET: usize = 2 << 20;
const _: () = assert!(
    crate::udp::MAX_DATAGRAM * crate::udp::RECEIVE_BATCH + crate::udp::MAX_SEND + 5 * MAX_PACKET
        <= BUDGET
);

/// A thread's own state.
pub(crate) struct Worker {
    core: Arc<Core>,
    index: usize,
    receive: Receive,
    transmit: Transmit,
    scratch: Scratch,
    packet: Box<[u8]>,
}

impl Worker {
    pub(crate) fn new(core: Arc<Core>, index: usize) -> Self {
        Self {
            core,
            index,
            receive: Receive::default(),
            transmit: Transmit::default(),
            scratch: Scratch::default(),
            packet: vec![0; MAX_FRAME].into_boxed_slice(),
        }
    }

    /// Runs until the data plane stops.
    pub(crate) fn run(mut self) {
        let core = Arc::clone(&self.core);
        let me = &core.workers[self.index];
        let mut ready = Vec::with_capacity(EVENTS);
        let mut pace = Pace::default();
        while !core.stop.load(Relaxed) {
            let waited =
                pace.wait(|| core.start.elapsed(), |sleep| me.poll.wait(sleep, &mut ready));
            if let Err(error) = waited {
                tracing::error!(%error, "a data-plane thread cannot wait for events and ends");
                return;
            }
            let (now, nanos) = core.now();
            let cx =
                Context { core: &core, sockets: &me.sockets, counters: &me.counters, now, nanos };
            for event in &ready {
                match event {
                    Ready::Wake => self.release(&cx, std::mem::take(&mut *me.releases.lock())),
                    Ready::Socket(index) => self.socket(&cx, *index),
                    Ready::Port(id) => {
                        if let Some(port) = core.ports.load().get(id).cloned() {
                            self.port(&cx, &port);
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
                Ok(false) => return,
                Err(error) => {
                    tracing::debug!(%error, "receiving failed");
                    return;
                }
            }
        }
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

    /// Moves what a vNIC has to send.
    fn port(&mut self, cx: &Context<'_>, port: &Arc<Port>) {
        let state = port.network.state.load();
        let from = state.as_deref().and_then(|state| state.member(port.owner));
        port.flush();
        let mut buffer = std::mem::take(&mut self.packet);
        for _ in 0..PORT_TURN {
            match port.nic.read(&mut buffer) {
                Ok(Some((hdr, packet))) => match (state.as_deref(), from) {
                    (Some(state), Some(from)) => {
                        if let Some(packet) = unwrap(cx, port, state, from, packet) {
                            self.packet_in(cx, port, state, from, &hdr, packet);
                        }
                    }
                    _ => cx.counters.drop(Drop::NotAMember, 1),
                },
                Ok(None) => cx.counters.drop(Drop::BadFrame, 1),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    tracing::debug!(%error, port = %port.id, "the vNIC is gone");
                    close(cx, port);
                    break;
                }
            }
        }
        self.packet = buffer;
        self.transmit.flush(cx);
    }

    #[inline]
    fn packet_in(
        &mut self,
        cx: &Context<'_>,
        port: &Arc<Port>,
        state: &State,
        from: MemberIx,
        hdr: &VnetHdr,
        packet: &mut [u8],
    ) {
        let packets = packets_in(hdr, packet);
        port.note_in(packets, packet.len() as u64);
        if port.network.captures.any() {
            port.network.captures.note(Direction::Outbound, &[IoSlice::new(packet)]);
        }
        self.forward(cx, port, state, from, hdr, packet, packets);
    }

    #[allow(clippy::too_many_arguments)]
    fn forward(
        &mut self,
        cx: &Context<'_>,
        port: &Arc<Port>,
        state: &State,
        from: MemberIx,
        hdr: &VnetHdr,
        packet: &mut [u8],
        packets: u64,
    ) {
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
    port: &Port,
    state: &State,
    from: MemberIx,
    bytes: &'a mut [u8],
) -> Option<&'a mut [u8]> {
    let Some(ethernet) = port.ethernet() else { return Some(bytes) };
    let met = ethernet.edge.lock().frame_in(&state.table, from, bytes);
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
    cx.core.worker_of(port.id.0).poll.remove(port.raw());
    let id = port.id.0;
    cx.core.ports.rcu(|ports| {
        let mut ports = std::collections::HashMap::clone(ports);
        ports.remove(&id);
        ports
    });
    cx.core.closed.lock().push(id);
    cx.core.raise(Event::PortClosed { port: port.id });
}
