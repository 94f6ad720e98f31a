//! A port: one vNIC and what goes out of it.

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicI64, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use gvpn_model::MemberId;
use gvpn_packet::{Gso, Packet, Segments, VnetHdr, complete_checksum};
use gvpn_switch::{MemberIx, Table, capture::Direction, ethernet::EthernetEdge};
use parking_lot::Mutex;

use crate::{
    Drop, Nic, PortId,
    balance::Tag,
    counters::Counters,
    home::Home,
    network::Network,
    nic::{NicIo, SendError},
    poll::Poll,
    standing::Standing,
};

/// Who a port stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    Member(MemberId),
    Pair { local: IpAddr, remote: IpAddr },
}

/// How often a payload is asked for its MAC address while packets wait for it.
const SOLICIT_EVERY_MS: u64 = 200;

/// An attached vNIC.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) id: PortId,
    pub(crate) network: Arc<Network>,
    pub(crate) owner: Owner,
    pub(crate) nic: NicIo,
    pub(crate) kind: &'static str,
    /// Those of all threads.
    polls: Box<[Arc<Poll>]>,
    reader: AtomicUsize,
    /// The thread that brought the last packet from a peer.
    pub(crate) feeder: AtomicUsize,
    /// Whether it is watched; held while that changes, or by whom.
    watched: Mutex<bool>,
    pub(crate) home: Mutex<Home>,
    uso: AtomicBool,
    armed: AtomicBool,
    solicited: AtomicU64,
    /// What the payload sends.
    queues: Box<[Queue]>,
    /// What the payload has sent, beside the thread's other ports.
    pub(crate) tag: Tag,
    /// Packets marked because of a standing queue.
    pub(crate) marked: AtomicU64,
    pub(crate) packets_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) packets_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

/// One queue of what a payload sends; only the port's own thread looks.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// What it sent beyond its share in its last turn, in bytes.
    pub(crate) overdrawn: AtomicI64,
    /// How long it has not been empty.
    pub(crate) standing: Mutex<Standing>,
}

impl Port {
    pub(crate) fn new(
        id: PortId,
        network: Arc<Network>,
        owner: Owner,
        nic: Nic,
        polls: Box<[Arc<Poll>]>,
    ) -> io::Result<Self> {
        let kind = nic.kind();
        let nic = NicIo::open(nic)?;
        let zero = || AtomicU64::new(0);
        Ok(Self {
            id,
            network,
            owner,
            uso: AtomicBool::new(true),
            queues: (0..nic.queues()).map(|_| Queue::default()).collect(),
            nic,
            kind,
            reader: AtomicUsize::new(id.0 as usize % polls.len()),
            feeder: AtomicUsize::new(id.0 as usize % polls.len()),
            watched: Mutex::default(),
            home: Mutex::default(),
            polls,
            armed: AtomicBool::new(false),
            solicited: zero(),
            tag: Tag::default(),
            marked: zero(),
            packets_in: zero(),
            bytes_in: zero(),
            packets_out: zero(),
            bytes_out: zero(),
        })
    }

    /// Waits for what the payload sends.
    pub(crate) fn watch(&self) -> io::Result<()> {
        let mut watched = self.watched.lock();
        self.add()?;
        *watched = true;
        Ok(())
    }

    /// Waits no longer, for good.
    pub(crate) fn unwatch(&self) {
        *self.watched.lock() = false;
        self.remove();
    }

    /// The thread that reads it.
    pub(crate) fn reader(&self) -> usize {
        self.reader.load(Relaxed)
    }

    /// Takes note of the thread that brings it something from a peer.
    pub(crate) fn fed_by(&self, thread: usize) {
        if self.feeder.load(Relaxed) != thread {
            self.feeder.store(thread, Relaxed);
        }
    }

    /// Lets another thread read it from now on. Only the one that reads it may, when all that it has
    /// read is on its way. Vnics whose other end a thread talks with (Ethernet) stay where they are.
    pub(crate) fn hand_to(&self, thread: usize) -> io::Result<()> {
        let watched = self.watched.lock();
        if !*watched || !self.nic.is_tun() {
            return Ok(());
        }
        self.remove();
        self.reader.store(thread, Relaxed);
        self.add()
    }

    fn poll(&self) -> &Poll {
        &self.polls[self.reader()]
    }

    fn add(&self) -> io::Result<()> {
        (0..self.queues.len())
            .try_for_each(|queue| self.poll().add_port(self.nic.raw(queue), self.id.0, queue))
    }

    fn remove(&self) {
        (0..self.queues.len()).for_each(|queue| self.poll().remove(self.nic.raw(queue)));
    }

    pub(crate) fn queue(&self, queue: usize) -> Option<&Queue> {
        self.queues.get(queue)
    }

    /// Whether packets should be joined for it.
    pub(crate) fn takes_super_packets(&self) -> bool {
        self.nic.takes_super_packets()
    }

    pub(crate) fn note_in(&self, packets: u64, bytes: u64) {
        self.packets_in.fetch_add(packets, Relaxed);
        self.bytes_in.fetch_add(bytes, Relaxed);
    }

    /// Gives a packet or super-packet to the vNIC: `parts[0]` is the header's
    /// bytes, `parts[1]` begins with the IP header. `packets` is how many packets it stands for.
    pub(crate) fn deliver(
        &self,
        hdr: &VnetHdr,
        parts: &[IoSlice<'_>],
        packets: u64,
        scratch: &mut Scratch,
        counters: &Counters,
    ) {
        if self.network.captures.any() {
            self.network.captures.note(Direction::Inbound, &parts[1..]);
        }
        let bytes: usize = parts[1..].iter().map(|part| part.len()).sum();
        let whole = self.nic.takes_super_packets()
            && (self.uso.load(Relaxed) || hdr.gso() != Ok(Some(Gso::Udp)));
        let result = if whole {
            match self.nic.send_super(hdr, parts) {
                Err(SendError::Invalid) if hdr.gso() == Ok(Some(Gso::Udp)) => {
                    self.uso.store(false, Relaxed);
                    tracing::info!(port = %self.id, "this vNIC takes no UDP super-packets; sending one packet at a time");
                    self.deliver_singly(hdr, &parts[1..], scratch)
                }
                other => other,
            }
        } else {
            self.deliver_singly(hdr, &parts[1..], scratch)
        };
        match result {
            Ok(()) => {
                self.packets_out.fetch_add(packets, Relaxed);
                self.bytes_out.fetch_add(bytes as u64, Relaxed);
            }
            Err(SendError::NoNeighbour) => {
                counters.drop(Drop::NoNeighbour, packets);
                self.solicit();
            }
            Err(SendError::Full) => counters.drop(Drop::PortFull, packets),
            Err(SendError::Invalid | SendError::Gone) => counters.drop(Drop::PortFailed, packets),
        }
    }

    /// Sends a frame of the switch's own.
    pub(crate) fn send_frame(&self, frame: &[u8]) {
        if self.nic.send_frame(frame) == Ok(true) {
            self.arm();
        }
    }

    /// Tells the payload where its gateways are and makes it tell its MAC address.
    pub(crate) fn introduce(&self) {
        self.send_frames(|edge, table, member| {
            let mut frames = edge.announcements(table, member);
            frames.extend(edge.solicitations(table, member));
            frames
        });
    }

    /// Sends what waited for the vNIC to take more.
    pub(crate) fn flush(&self) {
        if !self.armed.load(Relaxed) {
            return;
        }
        if matches!(self.nic.flush(), Ok(true)) {
            return;
        }
        self.armed.store(false, SeqCst);
        self.poll().watch_port(self.nic.raw(0), self.id.0, false);
        // What another thread left between the two is looked for once more.
        if matches!(self.nic.flush(), Ok(true)) {
            self.arm();
        }
    }

    fn arm(&self) {
        if !self.armed.swap(true, SeqCst) {
            self.poll().watch_port(self.nic.raw(0), self.id.0, true);
        }
    }

    fn solicit(&self) {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64);
        if now.abs_diff(self.solicited.swap(now, Relaxed)) >= SOLICIT_EVERY_MS {
            self.send_frames(EthernetEdge::solicitations);
        }
    }

    fn send_frames(&self, frames: impl Fn(&EthernetEdge, &Table, MemberIx) -> Vec<Vec<u8>>) {
        let state = self.network.state.load();
        let (Some(edge), Some(state)) = (self.nic.edge(), state.as_deref()) else { return };
        let Some(member) = state.member(self.owner) else { return };
        let frames = frames(&edge.lock(), &state.table, member);
        frames.iter().for_each(|frame| self.send_frame(frame));
    }

    fn send_packet(&self, packet: &[u8]) -> Result<(), SendError> {
        if self.nic.send_packet(packet)? {
            self.arm();
        }
        Ok(())
    }

    /// One packet at a time, with whole checksums.
    fn deliver_singly(
        &self,
        hdr: &VnetHdr,
        parts: &[IoSlice<'_>],
        scratch: &mut Scratch,
    ) -> Result<(), SendError> {
        let mut len = 0;
        for part in parts {
            let room = scratch.packet.get_mut(len..len + part.len()).ok_or(SendError::Invalid)?;
            room.copy_from_slice(part);
            len += part.len();
        }
        let packet = &mut scratch.packet[..len];
        match Segments::new(hdr, packet, usize::MAX) {
            Ok(None) => {
                if hdr.is_partial() {
                    complete_checksum(packet, hdr);
                }
                self.send_packet(packet)
            }
            Ok(Some(segments)) => (0..segments.count()).try_for_each(|index| {
                let len = segments.write_packet(index, &mut scratch.segment[..]);
                self.send_packet(&scratch.segment[..len])
            }),
            Err(_) => Err(SendError::Invalid),
        }
    }
}

/// Room for taking super-packets apart.
#[derive(Debug)]
pub(crate) struct Scratch {
    packet: Box<[u8]>,
    segment: Box<[u8]>,
}

impl Default for Scratch {
    fn default() -> Self {
        let room = || vec![0; gvpn_packet::MAX_PACKET].into_boxed_slice();
        Self { packet: room(), segment: room() }
    }
}

/// How many packets a packet with this header stands for.
pub(crate) fn packets_in(hdr: &VnetHdr, bytes: &[u8]) -> u64 {
    match hdr.gso() {
        Ok(Some(_)) if hdr.gso_size > 0 => {
            let headers = Packet::parse(bytes).map_or(0, |outline| outline.payload_at);
            bytes.len().saturating_sub(headers).div_ceil(usize::from(hdr.gso_size)).max(1) as u64
        }
        _ => 1,
    }
}

/// How many bytes a packet or super-packet that stands for `packets` will be, headers and all.
pub(crate) fn bytes_on_wire(bytes: &[u8], packets: u64) -> u64 {
    let headers = match packets {
        1 => 0,
        _ => Packet::parse(bytes).map_or(0, |outline| outline.payload_at),
    };
    bytes.len() as u64 + (packets - 1) * headers as u64
}
