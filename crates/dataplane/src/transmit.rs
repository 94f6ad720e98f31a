//! From a vNIC to the wire: cut, seal, send.

use std::{io, net::SocketAddr, sync::Arc};

use gvpn_packet::{
    Packet, Segments, Transport, VnetHdr, clamp_mss, complete_checksum, transport_is_valid,
};
use gvpn_path::{Hop, carrier_id};
use gvpn_session::{HEADER_LEN, OVERHEAD, TAG_LEN, write_header};

use crate::{
    Drop, Event, Route,
    control::release,
    core::Core,
    counters::Counters,
    fragment,
    message::{PARTIAL, write_relay_header},
    peer::{Lane, Slot},
    port::packets_in,
    udp::{MAX_SEGMENTS, MAX_SEND, UdpSocket},
};

/// What fills so much of the buffer is sent without waiting for more.
const SEND_AT: usize = 16 * 1024;

/// Every vNIC carries packets of this size, whatever the path.
const MIN_MTU: usize = 1280;

/// How long a full socket is waited for before its packets are dropped.
const FULL_MS: i32 = 2;

/// What a thread's parts share while they handle an event.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) core: &'a Core,
    pub(crate) sockets: &'a [UdpSocket],
    pub(crate) counters: &'a Counters,
    /// Milliseconds.
    pub(crate) now: u64,
    /// The same moment, for the switch.
    pub(crate) nanos: u64,
}

impl Context<'_> {
    /// Hands datagrams to a carrier.
    pub(crate) fn carry(&self, to: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<()> {
        self.core.carriers.send((self.counters, self.nanos), to, bytes, segment)
    }

    pub(crate) fn socket(&self, to: SocketAddr) -> Option<&UdpSocket> {
        self.sockets.iter().find(|socket| socket.local_addr().is_ipv4() == to.is_ipv4())
    }
}

/// What became of a packet that was too large.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is on its way, or was dropped and counted.
    Done,
    /// It was dropped; its sender should hear this.
    Tell(Vec<u8>),
}

/// Datagrams of one size for one peer, gathered until a system call sends them.
#[derive(Debug)]
pub(crate) struct Transmit {
    out: Box<[u8]>,
    len: usize,
    segment: usize,
    count: usize,
    ended: bool,
    lane: Option<Arc<Lane>>,
    route: Option<Route>,
    whole: Box<[u8]>,
}

impl Default for Transmit {
    fn default() -> Self {
        Self {
            out: vec![0; MAX_SEND].into_boxed_slice(),
            len: 0,
            segment: 0,
            count: 0,
            ended: false,
            lane: None,
            route: None,
            whole: vec![0; gvpn_packet::MAX_PACKET].into_boxed_slice(),
        }
    }
}

impl Transmit {
    /// Seals a packet or super-packet for the peer of `slot`. It is sent by the next
    /// [`flush`](Self::flush) at the latest.
    #[inline]
    pub(crate) fn packet(
        &mut self,
        cx: &Context<'_>,
        slot: &Arc<Slot>,
        hdr: &VnetHdr,
        packet: &mut [u8],
    ) -> Outcome {
        let lane = slot.active.load();
        let route = slot.peer.route.load();
        let (Some(lane), Some(route)) = (lane.as_ref(), route.as_deref()) else {
            hold(cx, slot, hdr, packet);
            return Outcome::Done;
        };
        let room = room(route);
        match Segments::new(hdr, packet, room) {
            Ok(Some(segments)) if segments.packet_len() <= room => {
                self.segments(cx, lane, route, &segments, packet);
                if self.len >= SEND_AT {
                    self.flush(cx);
                }
                Outcome::Done
            }
            Ok(Some(segments)) => self.oversized_datagrams(cx, lane, route, &segments),
            Ok(None) => self.single(cx, lane, route, hdr, packet),
            Err(_) => {
                cx.counters.drop(Drop::BadFrame, packets_in(hdr, packet));
                Outcome::Done
            }
        }
    }

    /// Sends what has been gathered.
    pub(crate) fn flush(&mut self, cx: &Context<'_>) {
        let (Some(lane), Some(route)) = (self.lane.take(), self.route) else { return };
        let to = route.hop.wire_addr();
        let result = match cx.socket(to) {
            _ if carrier_id(to).is_some() => cx.carry(to, &self.out[..self.len], self.segment),
            Some(socket) => send(socket, to, &self.out[..self.len], self.segment),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        let packets = self.count as u64;
        let peer = &lane.slot.peer;
        match result {
            Ok(()) => {
                lane.bytes_sent.fetch_add(self.len as u64, std::sync::atomic::Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                cx.counters.drop(Drop::SocketFull, packets);
            }
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                cx.counters.drop(Drop::TooBig, packets);
                if peer.note_too_small(cx.now) {
                    cx.core
                        .raise(Event::PathTooSmall { peer: peer.node, size: self.segment as u16 });
                }
            }
            Err(error) => {
                tracing::debug!(%error, %to, "datagrams were not sent");
                cx.counters.drop(Drop::SendFailed, packets);
            }
        }
        if peer.note_sent(packets, cx.now) {
            cx.core.raise(Event::Active { peer: peer.node });
        }
        if lane.note_use(cx.now) {
            cx.core.raise(Event::LaneAging { local_index: lane.local_index });
        }
        self.len = 0;
        self.count = 0;
        self.ended = false;
    }

    /// The packets of a super-packet, each sealed straight into the send buffer.
    #[inline]
    fn segments(
        &mut self,
        cx: &Context<'_>,
        lane: &Arc<Lane>,
        route: &Route,
        segments: &Segments<'_>,
        packet: &[u8],
    ) {
        let count = segments.count();
        let Some(first) = lane.sealer.reserve(count as u64) else {
            cx.counters.drop(Drop::LaneExhausted, count as u64);
            return;
        };
        let headers = segments.header_len();
        for index in 0..count {
            let payload = segments.payload(index);
            let counter = first + index as u64;
            let text = self.room_for(cx, lane, route, headers + payload.len(), counter);
            segments.write_header(index, &mut text[..headers]);
            text[0] |= PARTIAL;
            lane.sealer.seal_scatter(counter, text, headers, &packet[payload]);
        }
    }

    fn single(
        &mut self,
        cx: &Context<'_>,
        lane: &Arc<Lane>,
        route: &Route,
        hdr: &VnetHdr,
        packet: &mut [u8],
    ) -> Outcome {
        let Some(outline) = Packet::parse(packet) else {
            cx.counters.drop(Drop::BadFrame, 1);
            return Outcome::Done;
        };
        let packet = &mut packet[..outline.len];
        let room = room(route);
        clamp_mss(packet, &outline, room, hdr.is_partial());
        let plain_place = usize::from(hdr.csum_start) == outline.transport_at
            && outline.transport.checksum_offset() == Some(usize::from(hdr.csum_offset));
        let partial = hdr.is_partial() && plain_place;
        if hdr.is_partial() && !plain_place {
            complete_checksum(packet, hdr);
        }
        if packet.len() > room {
            return self.oversized(cx, lane, route, packet, outline, partial);
        }
        let mark = if partial { PARTIAL } else { 0 };
        let Some(counter) = lane.sealer.reserve(1) else {
            cx.counters.drop(Drop::LaneExhausted, 1);
            return Outcome::Done;
        };
        let text = self.room_for(cx, lane, route, packet.len(), counter);
        text[..packet.len()].copy_from_slice(packet);
        text[0] |= mark;
        lane.sealer.seal_scatter(counter, text, packet.len(), &[]);
        Outcome::Done
    }

    /// A UDP super-packet of datagrams that are too large for the path.
    fn oversized_datagrams(
        &mut self,
        cx: &Context<'_>,
        lane: &Arc<Lane>,
        route: &Route,
        segments: &Segments<'_>,
    ) -> Outcome {
        let mut outcome = Outcome::Done;
        let mut whole = std::mem::take(&mut self.whole);
        for index in 0..segments.count() {
            let len = segments.write_packet(index, &mut whole);
            let hdr = VnetHdr::default();
            if let Outcome::Tell(message) = self.single(cx, lane, route, &hdr, &mut whole[..len]) {
                outcome = Outcome::Tell(message);
            }
        }
        self.whole = whole;
        outcome
    }

    /// A packet that is larger than the path's datagrams: TCP is cut finer; others are sent in
    /// parts as far as every path must carry them, or may be by their own word; else their sender
    /// is told.
    fn oversized(
        &mut self,
        cx: &Context<'_>,
        lane: &Arc<Lane>,
        route: &Route,
        packet: &mut [u8],
        outline: Packet,
        partial: bool,
    ) -> Outcome {
        let room = room(route);
        let sound = outline.transport == Transport::Tcp
            && (partial || transport_is_valid(packet, &outline));
        if sound && let Ok(segments) = Segments::of_tcp(packet, outline, room) {
            self.segments(cx, lane, route, &segments, packet);
            return Outcome::Done;
        }
        let mtu = room.max(MIN_MTU);
        let may_fragment = packet[0] >> 4 == 4 && packet[6] & 0x40 == 0;
        if packet.len() > mtu && !may_fragment {
            cx.counters.drop(Drop::TooBig, 1);
            return gvpn_packet::too_big(packet, mtu).map_or(Outcome::Done, Outcome::Tell);
        }
        if partial {
            packet[0] |= PARTIAL;
        }
        self.fragments(cx, lane, route, packet);
        Outcome::Done
    }

    fn fragments(&mut self, cx: &Context<'_>, lane: &Arc<Lane>, route: &Route, packet: &[u8]) {
        let part = room(route).saturating_sub(fragment::FRAGMENT_HEADER);
        let count = packet.len().div_ceil(part.max(1));
        if part == 0 || count > fragment::MAX_PARTS || packet.len() > fragment::MAX_PACKET {
            cx.counters.drop(Drop::TooBig, 1);
            return;
        }
        let Some(first) = lane.sealer.reserve(count as u64) else {
            cx.counters.drop(Drop::LaneExhausted, 1);
            return;
        };
        for (index, bytes) in packet.chunks(part).enumerate() {
            let counter = first + index as u64;
            let len = fragment::FRAGMENT_HEADER + bytes.len();
            let text = self.room_for(cx, lane, route, len, counter);
            let head = fragment::header(index, count);
            text[..head.len()].copy_from_slice(&head);
            lane.sealer.seal_scatter(counter, text, head.len(), bytes);
        }
    }

    /// Room for a message of `text` plaintext bytes with its header written: plaintext and tag.
    /// Sends what has been gathered if the message cannot go with it.
    #[inline]
    fn room_for(
        &mut self,
        cx: &Context<'_>,
        lane: &Arc<Lane>,
        route: &Route,
        text: usize,
        counter: u64,
    ) -> &mut [u8] {
        let hop = route.hop.header_len();
        let size = hop + text + OVERHEAD;
        let fits = self.count > 0
            && !self.ended
            && size <= self.segment
            && self.count < MAX_SEGMENTS
            && self.len + size <= MAX_SEND
            && self.route.as_ref() == Some(route)
            && self.lane.as_ref().is_some_and(|other| Arc::ptr_eq(other, lane));
        if !fits {
            self.flush(cx);
            self.lane = Some(Arc::clone(lane));
            self.route = Some(*route);
            self.segment = size;
        }
        self.ended = size < self.segment;
        let datagram = &mut self.out[self.len..self.len + size];
        self.len += size;
        self.count += 1;
        let datagram = match route.hop {
            Hop::Relay { session, .. } => {
                let (head, datagram) = datagram.split_at_mut(hop);
                write_relay_header(head, session);
                datagram
            }
            _ => datagram,
        };
        let (head, text) = datagram.split_at_mut(HEADER_LEN);
        if let Some(head) = head.first_chunk_mut() {
            write_header(head, lane.remote_index, counter);
        }
        text
    }
}

/// The largest packet that one message on a route carries.
fn room(route: &Route) -> usize {
    usize::from(route.mtu)
        .saturating_sub(route.hop.header_len() + HEADER_LEN + TAG_LEN)
        .min(MAX_SEND - OVERHEAD - 8)
}

/// Sends, waiting a little for a full socket.
fn send(socket: &UdpSocket, to: SocketAddr, bytes: &[u8], segment: usize) -> io::Result<()> {
    match socket.send(to, bytes, segment, 0) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            socket.wait_writable(FULL_MS);
            socket.send(to, bytes, segment, 0)
        }
        other => other,
    }
}

/// Keeps a packet until there is a lane, and asks for one.
fn hold(cx: &Context<'_>, slot: &Arc<Slot>, hdr: &VnetHdr, packet: &[u8]) {
    let outcome = slot.held.lock().hold(*hdr, packet, cx.now);
    if outcome.dropped > 0 {
        cx.counters.drop(Drop::NoLane, outcome.dropped);
    }
    if let (true, Some(network)) = (outcome.ask, &slot.network) {
        cx.core.raise(Event::LaneWanted { peer: slot.peer.node, network: network.id });
    }
    // A lane and a route that came just now, after they were looked for, may have found nothing held.
    if slot.active.load().is_some() && slot.peer.route.load().is_some() {
        release(cx.core, [Arc::clone(slot)]);
    }
}
