//! From the wire to a vNIC: receive, open, check, join, write.

use std::{
    io::{self, IoSlice},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::BytesMut;
use gvpn_packet::{Checksum, Coalescer, MAX_RUN, Packet, Placed, mark_congestion};
use gvpn_path::Hop;
use gvpn_session::{DataHeader, HEADER_LEN, ReplayError, TAG_LEN, TYPE_DATA};
use gvpn_switch::{DropReason, NodeIx, Verdict};
use parking_lot::Mutex;

use crate::{
    Drop, Event, ReceivedDatagram,
    carrier::Waiting,
    forward::Gather,
    fragment::{self, Outcome},
    message::{PARTIAL, RELAY_HEADER, TYPE_RELAY_CONTROL, TYPE_RELAYED, is_for_quic, relayed},
    network::{State, Target},
    peer::{Inbound, Lane},
    port::{Port, Scratch},
    standing::Standing,
    transmit::Context,
    udp::{MAX_DATAGRAM, Message, RECEIVE_BATCH, SLOT, UdpSocket},
};

/// Below this mean size of a receive several are fetched by one system call.
const SMALL: usize = 8 * 1024;
/// How many are fetched by the first system call; by the next ones all that there is room for.
const FIRST: usize = 16;
/// Fewer datagrams than this are no burst of which more may be on its way.
const BURST: usize = 4;

/// A data message, found in a receive.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    at: usize,
    len: usize,
    lane: usize,
    counter: u64,
    hop: Hop,
}

/// An authentic inner packet.
#[derive(Debug, Clone, Copy)]
struct Opened {
    order: (u64, u64),
    lane: usize,
    at: usize,
    len: usize,
}

/// Where a run of packets goes, and by which verdict.
#[derive(Debug)]
struct Goal {
    verdict: Verdict,
    ports: Ports,
}

#[derive(Debug)]
enum Ports {
    None,
    One(Arc<Port>),
    Many(Vec<Arc<Port>>),
}

/// The receiving part of a thread: buffers, and lists that are used again.
#[derive(Debug)]
pub(crate) struct Receive {
    buffer: Box<[u8]>,
    messages: Vec<Message>,
    batch: usize,
    lanes: Vec<Arc<Lane>>,
    arrived: Vec<Arrived>,
    opened: Vec<Opened>,
    whole: Vec<(usize, Vec<u8>)>,
    coalescer: Coalescer,
    goals: Vec<Goal>,
    gather: Gather,
    standing: Standing,
    /// All that comes is marked.
    flooded: bool,
    thread: usize,
}

impl Receive {
    /// What the thread with this number receives with.
    pub(crate) fn of_thread(thread: usize) -> Self {
        Self {
            thread,
            buffer: vec![0; SLOT * RECEIVE_BATCH].into_boxed_slice(),
            messages: Vec::with_capacity(RECEIVE_BATCH),
            batch: FIRST,
            lanes: Vec::new(),
            arrived: Vec::new(),
            opened: Vec::new(),
            whole: Vec::new(),
            coalescer: Coalescer::default(),
            goals: Vec::new(),
            gather: Gather::default(),
            standing: Standing::default(),
            flooded: false,
        }
    }

    /// Receives a burst and handles it; returns whether there may be more.
    ///
    /// Datagrams that come one by one come faster than they are opened when their sender's kernel has
    /// cut them from one: those that came meanwhile are fetched until there are none or no room is
    /// left, so that they are joined again to what they were cut from, and written as that.
    pub(crate) fn run(
        &mut self,
        cx: &Context<'_>,
        socket: &UdpSocket,
        scratch: &mut Scratch,
    ) -> io::Result<bool> {
        self.begin();
        let first = match self.fetch(cx, socket, self.batch) {
            Ok(0) => return Ok(false),
            Ok(first) => first,
            // An ICMP error about something sent earlier: reported once, and gone.
            Err(error) if error.raw_os_error() == Some(libc::ECONNREFUSED) => return Ok(true),
            Err(error) => return Err(error),
        };
        let mut more = first == self.batch;
        if first >= BURST {
            // An error is met again by the next receive, after what came before it.
            while let Ok(next) = self.fetch(cx, socket, RECEIVE_BATCH) {
                more = next > 0;
                if !more || self.messages.len() == RECEIVE_BATCH {
                    break;
                }
            }
        }
        let bytes: usize = self.messages.iter().map(|message| message.len).sum();
        self.batch = if bytes / self.messages.len() < SMALL { FIRST } else { 1 };
        self.flooded = more && self.standing.stands() && socket.is_flooded();
        self.deliver_all(cx, scratch);
        Ok(more)
    }

    /// Fetches up to so many messages by one system call, as far as there is room, and opens what
    /// they bring; returns how many there were.
    fn fetch(&mut self, cx: &Context<'_>, socket: &UdpSocket, most: usize) -> io::Result<usize> {
        let known = self.messages.len();
        let room = &mut self.buffer[known * SLOT..];
        match socket.receive(room, most, &mut self.messages) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            other => other?,
        };
        self.take_in(cx, known);
        Ok(self.messages.len() - known)
    }

    /// A socket was read until nothing was left.
    pub(crate) fn emptied(&mut self) {
        self.standing.emptied();
    }

    /// A socket was left with something in it.
    pub(crate) fn left(&mut self, now: u64) {
        self.standing.left(now);
    }

    /// Handles what carriers brought.
    pub(crate) fn carried(
        &mut self,
        cx: &Context<'_>,
        arrivals: &Mutex<Waiting>,
        scratch: &mut Scratch,
    ) {
        loop {
            self.begin();
            for slot in self.buffer.chunks_exact_mut(SLOT).take(FIRST) {
                let Some((from, batch)) = arrivals.lock().pop() else { break };
                let len = batch.contents.len().min(MAX_DATAGRAM);
                slot[..len].copy_from_slice(&batch.contents[..len]);
                self.messages.push(Message { from, len, stride: batch.stride.max(1), ecn: 0 });
            }
            if self.messages.is_empty() {
                return;
            }
            self.take_in(cx, 0);
            self.deliver_all(cx, scratch);
        }
    }

    /// Forgets what was handed on.
    fn begin(&mut self) {
        self.flooded = false;
        self.messages.clear();
        self.lanes.clear();
        self.opened.clear();
    }

    /// Opens what the messages from this one on brought.
    fn take_in(&mut self, cx: &Context<'_>, from: usize) {
        self.sort_out(cx, from);
        self.open(cx);
    }

    /// Tells data messages from QUIC, in the messages from this one on.
    fn sort_out(&mut self, cx: &Context<'_>, from: usize) {
        self.arrived.clear();
        let messages = std::mem::take(&mut self.messages);
        for (message, base) in messages.iter().zip((0..).step_by(SLOT)).skip(from) {
            let end = base + message.len;
            let mut at = base;
            while at < end {
                let len = message.stride.min(end - at);
                let first = self.buffer[at];
                let hop = Hop::Direct(message.from);
                if first == TYPE_DATA {
                    self.arrive(cx, at, len, hop);
                    at += len;
                } else if first == TYPE_RELAYED && cx.core.forward.is_enabled() {
                    let rest = &self.buffer[at..end];
                    at += cx.core.forward.run(cx, &mut self.gather, rest, message);
                } else if first == TYPE_RELAYED {
                    self.relayed(cx, at, len, message);
                    at += len;
                } else if first == TYPE_RELAY_CONTROL && cx.core.forward.is_enabled() {
                    let datagram = &self.buffer[at..at + len];
                    cx.core.forward.control(cx, datagram, message.from);
                    at += len;
                } else if is_for_quic(first) {
                    let stop = self.end_of_quic(at, end, message.stride);
                    self.hand_over(cx, at..stop, message.stride, hop, message.ecn);
                    at = stop;
                } else {
                    cx.counters.drop(Drop::Unrecognised, 1);
                    at += len;
                }
            }
        }
        self.messages = messages;
    }

    /// Where a row of datagrams for the QUIC lane ends.
    fn end_of_quic(&self, mut at: usize, end: usize, stride: usize) -> usize {
        while at < end && is_for_quic(self.buffer[at]) {
            at = (at + stride).min(end);
        }
        at
    }

    fn relayed(&mut self, cx: &Context<'_>, at: usize, len: usize, message: &Message) {
        let datagram = &self.buffer[at..at + len];
        let Some(session) = relayed(datagram).filter(|_| len > RELAY_HEADER) else {
            cx.counters.drop(Drop::Unrecognised, 1);
            return;
        };
        let hop = Hop::Relay { relay: message.from, session };
        let (first, inner) = (datagram[RELAY_HEADER], at + RELAY_HEADER..at + len);
        if first == TYPE_DATA {
            self.arrive(cx, inner.start, inner.len(), hop);
        } else if is_for_quic(first) && first != TYPE_RELAY_CONTROL {
            self.hand_over(cx, inner.clone(), inner.len(), hop, message.ecn);
        } else {
            cx.counters.drop(Drop::Unrecognised, 1);
        }
    }

    fn hand_over(
        &self,
        cx: &Context<'_>,
        range: std::ops::Range<usize>,
        stride: usize,
        hop: Hop,
        ecn: u8,
    ) {
        let contents = BytesMut::from(&self.buffer[range]);
        if cx.core.datagrams.try_send(ReceivedDatagram { hop, contents, stride, ecn }).is_err() {
            cx.counters.drop(Drop::DatagramQueueFull, 1);
        }
    }

    #[inline]
    fn arrive(&mut self, cx: &Context<'_>, at: usize, len: usize, hop: Hop) {
        let Some(header) = DataHeader::parse(&self.buffer[at..at + len]) else {
            cx.counters.drop(Drop::Unrecognised, 1);
            return;
        };
        let known = self.lanes.iter().rposition(|lane| lane.local_index == header.index);
        let lane = match known {
            Some(lane) => lane,
            None => match cx.core.lanes.get(header.index) {
                Some(lane) => {
                    self.lanes.push(lane);
                    self.lanes.len() - 1
                }
                None => {
                    cx.counters.drop(Drop::UnknownLane, 1);
                    return;
                }
            },
        };
        self.arrived.push(Arrived { at, len, lane, counter: header.counter, hop });
    }

    /// Opens all data messages; each lane's receiving side is locked once for a row of them.
    fn open(&mut self, cx: &Context<'_>) {
        let arrived = std::mem::take(&mut self.arrived);
        let lanes = std::mem::take(&mut self.lanes);
        for row in arrived.chunk_by(|a, b| a.lane == b.lane && a.hop == b.hop) {
            let lane = &lanes[row[0].lane];
            let mut inbound = lane.inbound.lock();
            let (mut packets, mut bytes) = (0, 0);
            for message in row {
                if self.open_one(cx, lane, &mut inbound, message) {
                    packets += 1;
                    bytes += message.len as u64;
                }
            }
            drop(inbound);
            if packets == 0 {
                continue;
            }
            lane.packets_received.fetch_add(packets, Relaxed);
            lane.bytes_received.fetch_add(bytes, Relaxed);
            let peer = &lane.slot.peer;
            if peer.note_heard(row[0].hop, packets, cx.now) {
                cx.core.raise(Event::Heard { peer: peer.node, hop: row[0].hop });
            }
        }
        self.arrived = arrived;
        self.lanes = lanes;
    }

    /// Opens one message; whether it is authentic and new.
    #[inline]
    fn open_one(
        &mut self,
        cx: &Context<'_>,
        lane: &Lane,
        inbound: &mut Inbound,
        message: &Arrived,
    ) -> bool {
        if let Err(error) = inbound.window.check(message.counter) {
            cx.counters.drop(replay(error), 1);
            return false;
        }
        let datagram = &mut self.buffer[message.at..message.at + message.len];
        let Ok(plaintext) = lane.opener.open_in_place(message.counter, datagram) else {
            cx.counters.drop(Drop::Forged, 1);
            return false;
        };
        if let Err(error) = inbound.window.accept(message.counter) {
            cx.counters.drop(replay(error), 1);
            return false;
        }
        match plaintext.first() {
            // An empty message only says that its sender is there.
            None => {}
            Some(first) if first & 0x70 != 0 => self.opened.push(Opened {
                order: (lane.sequence, message.counter),
                lane: message.lane,
                at: message.at + HEADER_LEN,
                len: message.len - HEADER_LEN - TAG_LEN,
            }),
            Some(&fragment::FRAGMENT) => match inbound.reassembly.add(message.counter, plaintext) {
                Outcome::Waiting(0) => {}
                Outcome::Waiting(given_up) => cx.counters.drop(Drop::Fragment, given_up),
                Outcome::Whole(packet) => self.whole.push((message.lane, packet)),
                Outcome::Refused => cx.counters.drop(Drop::Fragment, 1),
            },
            Some(_) if !inbound.admit_probe(cx.now) => cx.counters.drop(Drop::ProbeFlood, 1),
            Some(_) => cx.core.raise(Event::Probe {
                peer: lane.slot.peer.node,
                hop: message.hop,
                bytes: plaintext.to_vec(),
            }),
        }
        true
    }

    /// Hands on what was opened, and what a relay gathered.
    fn deliver_all(&mut self, cx: &Context<'_>, scratch: &mut Scratch) {
        cx.core.forward.flush(cx, &mut self.gather);
        if !self.opened.is_sorted_by_key(|packet| packet.order) {
            self.opened.sort_by_key(|packet| packet.order);
        }
        let opened = std::mem::take(&mut self.opened);
        let mut lanes = std::mem::take(&mut self.lanes);
        let mut buffer = std::mem::take(&mut self.buffer);
        for row in opened.chunk_by(|a, b| a.lane == b.lane) {
            self.deliver(cx, &lanes[row[0].lane], &mut buffer, row, scratch);
        }
        for (lane, mut packet) in std::mem::take(&mut self.whole) {
            let row = [Opened { order: (0, 0), lane, at: 0, len: packet.len() }];
            self.deliver(cx, &lanes[lane], &mut packet, &row, scratch);
        }
        // A thread that sleeps holds on to nothing: neither keys nor vNICs.
        lanes.clear();
        self.goals.clear();
        self.buffer = buffer;
        self.opened = opened;
        self.lanes = lanes;
    }

    /// Joins one lane's packets where they go to the same place, and writes them there.
    fn deliver(
        &mut self,
        cx: &Context<'_>,
        lane: &Lane,
        buffer: &mut [u8],
        row: &[Opened],
        scratch: &mut Scratch,
    ) {
        let refuse = |reason| cx.counters.drop(reason, row.len() as u64);
        let Some(network) = &lane.slot.network else { return refuse(Drop::Malformed) };
        let state = network.state.load();
        let Some(state) = state.as_deref() else { return refuse(Drop::NotAMember) };
        let Some(node) = state.table.node_ix(&lane.slot.peer.node) else {
            return refuse(Drop::NotAMember);
        };
        self.coalescer.clear();
        self.goals.clear();
        for packet in row {
            let checksum = match buffer[packet.at] & PARTIAL {
                0 => Checksum::Full,
                _ => Checksum::Partial,
            };
            buffer[packet.at] &= !PARTIAL;
            let bytes = &buffer[packet.at..packet.at + packet.len];
            let Some(outline) = Packet::parse(bytes) else {
                cx.counters.drop(Drop::Malformed, 1);
                continue;
            };
            let join = cx.core.coalesce;
            match self.coalescer.push(buffer, packet.at, outline, checksum, join) {
                Placed::Joined(_) => {}
                Placed::New(run) => {
                    let bytes = &buffer[packet.at..packet.at + outline.len];
                    let goal = goal(cx, state, node, bytes);
                    if !matches!(&goal.ports, Ports::One(port) if port.takes_super_packets()) {
                        self.coalescer.close(run);
                    }
                    self.goals.push(goal);
                }
            }
        }
        for run in 0..self.coalescer.runs().len() {
            self.write_run(cx, state, run, buffer, scratch);
        }
    }

    fn write_run(
        &mut self,
        cx: &Context<'_>,
        state: &State,
        index: usize,
        buffer: &mut [u8],
        scratch: &mut Scratch,
    ) {
        let goal = &self.goals[index];
        let ports = match &goal.ports {
            Ports::None => return,
            Ports::One(port) => std::slice::from_ref(port),
            Ports::Many(ports) => ports,
        };
        let run = &self.coalescer.runs()[index];
        let packets = run.count() as u64;
        let bytes = run.len() as u64 + (packets - 1) * run.header_len() as u64;
        let head = &buffer[run.at()..run.at() + run.header_len()];
        if !state.table.admit(head, &goal.verdict, bytes, packets, cx.nanos) {
            cx.counters.switch_drop(DropReason::RateLimited, packets);
            return;
        }
        let hdr = self.coalescer.finish(index, buffer);
        let head = hdr.to_bytes();
        let run = &self.coalescer.runs()[index];
        let inner = &mut buffer[run.at()..run.at() + run.header_len()];
        if (self.flooded || self.standing.is_due(cx.nanos)) && mark_congestion(inner) {
            self.standing.marked(cx.nanos);
            cx.counters.marked.fetch_add(1, Relaxed);
        }
        for port in ports {
            let mut parts = [IoSlice::new(&[]); MAX_RUN + 2];
            parts[0] = IoSlice::new(&head);
            parts[1] = IoSlice::new(&buffer[run.at()..run.at() + run.header_len()]);
            let mut used = 2;
            for (at, len) in self.coalescer.pieces(index) {
                parts[used] = IoSlice::new(&buffer[at..at + len]);
                used += 1;
            }
            port.fed_by(self.thread);
            port.deliver(&hdr, &parts[..used], packets, scratch, cx.counters);
        }
    }
}

/// Where the switch sends a packet that came from a peer.
fn goal(cx: &Context<'_>, state: &State, node: NodeIx, packet: &[u8]) -> Goal {
    let verdict = state.table.from_peer(node, packet);
    let ports = match &verdict {
        Verdict::Deliver(member) => match (state.tap(packet), state.target(*member)) {
            (Some(port), _) | (None, Target::Port(port)) => Ports::One(Arc::clone(port)),
            _ => {
                cx.counters.drop(Drop::NoPort, 1);
                Ports::None
            }
        },
        Verdict::Replicate(targets) => Ports::Many(
            targets
                .local()
                .iter()
                .filter_map(|member| match state.target(*member) {
                    Target::Port(port) => Some(Arc::clone(port)),
                    _ => None,
                })
                .collect(),
        ),
        Verdict::Answer => {
            cx.counters.drop(Drop::NoPort, 1);
            Ports::None
        }
        Verdict::Drop(reason) => {
            cx.counters.switch_drop(*reason, 1);
            Ports::None
        }
    };
    Goal { verdict, ports }
}

fn replay(error: ReplayError) -> Drop {
    match error {
        ReplayError::Duplicate => Drop::Replayed,
        ReplayError::TooOld => Drop::TooOld,
    }
}
