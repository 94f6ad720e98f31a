//! Forwarding for a relay: datagrams of a session go from one end to the other as they are, a
//! whole batch of one size in one system call.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use gvpn_path::carrier_id;
use parking_lot::RwLock;

use crate::{
    Drop,
    message::{RELAY_HEADER, TYPE_RELAY_CONTROL, relayed},
    mirror::{self, Allowance},
    transmit::Context,
    udp::{MAX_SEGMENTS, MAX_SEND, Message},
};

const SHARDS: usize = 64;
/// What a meter lets through at once, in nanoseconds of its rate.
const BURST: u64 = 100_000_000;
/// How many ends are told in a second that their session is not known.
const COMPLAINTS: u64 = 1000;
/// How many are told in a second where they are seen.
const ANSWERS: u64 = 10_000;

/// The relay does not know the session.
pub const CONTROL_UNKNOWN_SESSION: u8 = 1;
/// The relay was started anew: a client should see whether it is still registered.
pub const CONTROL_RESTARTED: u8 = 2;
/// A client asked the relay to send this to a socket of its own, from a port that the socket has not
/// written to; in place of a session is the number that the client made up.
pub const CONTROL_KNOCK: u8 = 3;

/// A control message of a relay: its first byte, what it is about, two zero bytes, a session. It is
/// not authentic: no more than a reason to look.
pub fn control_message(kind: u8, session: u32) -> [u8; RELAY_HEADER] {
    let [a, b, c, d] = session.to_le_bytes();
    [TYPE_RELAY_CONTROL, kind, 0, 0, a, b, c, d]
}

/// Reads a [`control_message`].
pub fn read_control_message(message: &[u8]) -> Option<(u8, u32)> {
    let [TYPE_RELAY_CONTROL, kind, 0, 0, a, b, c, d] = *message.first_chunk()? else {
        return None;
    };
    Some((kind, u32::from_le_bytes([a, b, c, d])))
}

/// Limits how many bytes one client sends.
#[derive(Debug)]
pub struct Meter {
    bytes_per_second: u64,
    /// Until when what was let through is paid for.
    paid_until: AtomicU64,
}

impl Meter {
    /// A meter of this rate.
    pub fn new(bytes_per_second: u64) -> Arc<Self> {
        let bytes_per_second = bytes_per_second.max(1);
        Arc::new(Self { bytes_per_second, paid_until: AtomicU64::new(0) })
    }

    fn admit(&self, nanos: u64, bytes: u64) -> bool {
        let cost = bytes.saturating_mul(1_000_000_000) / self.bytes_per_second;
        let paid = self.paid_until.load(Relaxed).max(nanos);
        let admitted = paid - nanos < BURST;
        if admitted {
            // Threads that race here let a batch more through, once.
            self.paid_until.store(paid + cost, Relaxed);
        }
        admitted
    }
}

/// One end of a session.
#[derive(Debug, Clone)]
pub struct End {
    /// Where the client is, if that is known.
    pub addr: Option<SocketAddr>,
    /// Where it was before: what still comes from there is not lost while it moves.
    pub former: Option<SocketAddr>,
    /// What the client may send.
    pub meter: Arc<Meter>,
}

#[derive(Debug)]
struct Session {
    ends: [End; 2],
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Session {
    fn end_at(&self, from: SocketAddr) -> Option<usize> {
        let ends = &self.ends;
        let now = ends.iter().position(|end| end.addr == Some(from));
        now.or_else(|| ends.iter().position(|end| end.former == Some(from)))
    }
}

/// The sessions that a relay forwards.
#[derive(Debug)]
pub struct Forwarder {
    enabled: AtomicBool,
    shards: Vec<RwLock<HashMap<u32, Session>>>,
    complaints: Allowance,
    answers: Allowance,
    pub(crate) packets: AtomicU64,
    pub(crate) bytes: AtomicU64,
    sends: AtomicU64,
}

/// Where datagrams go together.
#[derive(Debug, Clone, Copy)]
struct Batch {
    to: SocketAddr,
    stride: usize,
    ecn: u8,
}

/// Datagrams that came one by one and leave in one system call.
#[derive(Debug, Default)]
pub(crate) struct Gather {
    batch: Option<Batch>,
    bytes: Vec<u8>,
    /// The last one was shorter: nothing may follow.
    ended: bool,
}

impl Gather {
    fn fits(&self, next: &Batch, len: usize) -> bool {
        let Some(batch) = &self.batch else { return false };
        let count = self.bytes.len() / batch.stride;
        (batch.to, batch.ecn) == (next.to, next.ecn)
            && !self.ended
            && len <= batch.stride
            && count < MAX_SEGMENTS
            && self.bytes.len() + len <= MAX_SEND
    }
}

impl Default for Forwarder {
    fn default() -> Self {
        Self {
            enabled: AtomicBool::new(false),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            complaints: Allowance::new(COMPLAINTS),
            answers: Allowance::new(ANSWERS),
            packets: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            sends: AtomicU64::new(0),
        }
    }
}

impl Forwarder {
    /// Makes this node a relay: relayed datagrams are forwarded, not received.
    pub fn enable(&self) {
        self.enabled.store(true, Relaxed);
    }

    /// Sets the ends of a session, new or known.
    pub fn set(&self, session: u32, ends: [End; 2]) {
        let mut shard = self.shard(session).write();
        match shard.get_mut(&session) {
            Some(known) => known.ends = ends,
            None => {
                let zero = || AtomicU64::new(0);
                shard.insert(session, Session { ends, packets: zero(), bytes: zero() });
            }
        }
    }

    /// Whether there is such a session.
    pub fn contains(&self, session: u32) -> bool {
        self.shard(session).read().contains_key(&session)
    }

    /// Forgets a session.
    pub fn remove(&self, session: u32) {
        self.shard(session).write().remove(&session);
    }

    /// Datagrams and bytes that a session has carried.
    pub fn carried(&self, session: u32) -> Option<(u64, u64)> {
        let shard = self.shard(session).read();
        shard.get(&session).map(|s| (s.packets.load(Relaxed), s.bytes.load(Relaxed)))
    }

    /// Datagrams and bytes forwarded in all.
    pub fn total(&self) -> (u64, u64) {
        (self.packets.load(Relaxed), self.bytes.load(Relaxed))
    }

    /// System calls that sent them: how well datagrams travel in batches.
    pub fn sends(&self) -> u64 {
        self.sends.load(Relaxed)
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Relaxed)
    }

    /// Forwards the datagrams at the front of `bytes` that belong to one session; returns how
    /// many bytes they are.
    pub(crate) fn run(
        &self,
        cx: &Context<'_>,
        gather: &mut Gather,
        bytes: &[u8],
        message: &Message,
    ) -> usize {
        let stride = message.stride;
        let length = run_length(bytes, stride);
        let run = &bytes[..length];
        let packets = length.div_ceil(stride) as u64;
        let first = &run[..stride.min(length)];
        let Some(session) = relayed(first).filter(|_| first.len() > RELAY_HEADER) else {
            cx.counters.drop(Drop::Unrecognised, packets);
            return length;
        };
        match self.other_end(cx, session, message.from, packets, length as u64) {
            Ok(to) => self.send(cx, gather, to, run, message),
            Err(reason) => {
                cx.counters.drop(reason, packets);
                if reason == Drop::UnknownSession {
                    self.complain(cx, session, message.from);
                }
            }
        }
        length
    }

    fn other_end(
        &self,
        cx: &Context<'_>,
        session: u32,
        from: SocketAddr,
        packets: u64,
        bytes: u64,
    ) -> Result<SocketAddr, Drop> {
        let shard = self.shard(session).read();
        let known = shard.get(&session).ok_or(Drop::UnknownSession)?;
        let at = known.end_at(from).ok_or(Drop::UnknownSession)?;
        if !known.ends[at].meter.admit(cx.nanos, bytes) {
            return Err(Drop::RelayLimit);
        }
        let to = known.ends[1 - at].addr.ok_or(Drop::NoRoute)?;
        known.packets.fetch_add(packets, Relaxed);
        known.bytes.fetch_add(bytes, Relaxed);
        Ok(to)
    }

    /// Sends a batch as it is; single datagrams are gathered with those that follow.
    fn send(&self, cx: &Context<'_>, gather: &mut Gather, to: SocketAddr, run: &[u8], m: &Message) {
        let batch = Batch { to, stride: m.stride, ecn: m.ecn };
        if run.len() > m.stride {
            self.flush(cx, gather);
            return self.send_batch(cx, &batch, run);
        }
        if !gather.fits(&batch, run.len()) {
            self.flush(cx, gather);
            gather.batch = Some(Batch { stride: run.len(), ..batch });
        }
        gather.ended = gather.batch.is_some_and(|batch| run.len() < batch.stride);
        gather.bytes.extend_from_slice(run);
    }

    /// Sends what has been gathered.
    pub(crate) fn flush(&self, cx: &Context<'_>, gather: &mut Gather) {
        if let Some(batch) = gather.batch.take() {
            self.send_batch(cx, &batch, &gather.bytes);
            gather.bytes.clear();
        }
    }

    fn send_batch(&self, cx: &Context<'_>, batch: &Batch, bytes: &[u8]) {
        let to = batch.to;
        let packets = bytes.len().div_ceil(batch.stride) as u64;
        let sent = match cx.socket(to) {
            _ if carrier_id(to).is_some() => cx.carry(to, bytes, batch.stride),
            Some(socket) => socket.send(to, bytes, batch.stride, batch.ecn),
            None => Err(std::io::ErrorKind::AddrNotAvailable.into()),
        };
        match sent {
            Ok(()) => {
                self.packets.fetch_add(packets, Relaxed);
                self.bytes.fetch_add(bytes.len() as u64, Relaxed);
                self.sends.fetch_add(1, Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                cx.counters.drop(Drop::SocketFull, packets);
            }
            Err(_) => cx.counters.drop(Drop::SendFailed, packets),
        }
    }

    /// Tells an end that its session is not known: a message no larger than what caused it.
    fn complain(&self, cx: &Context<'_>, session: u32, to: SocketAddr) {
        if !self.complaints.take(cx.now) {
            return;
        }
        let message = control_message(CONTROL_UNKNOWN_SESSION, session);
        // If it is lost, the next datagram causes another.
        let _ = match cx.socket(to) {
            _ if carrier_id(to).is_some() => cx.carry(to, &message, message.len()),
            Some(socket) => socket.send(to, &message, message.len(), 0),
            None => Ok(()),
        };
    }

    /// A control message came: who asks where it is seen is told.
    pub(crate) fn control(&self, cx: &Context<'_>, message: &[u8], from: SocketAddr) {
        let answer = mirror::answer(message, from).filter(|_| self.answers.take(cx.now));
        match answer.zip(cx.socket(from)) {
            // If it is lost, there will be another question.
            Some((answer, socket)) => drop(socket.send(from, &answer, answer.len(), 0)),
            None => cx.counters.drop(Drop::Unrecognised, 1),
        }
    }

    fn shard(&self, session: u32) -> &RwLock<HashMap<u32, Session>> {
        &self.shards[session as usize % SHARDS]
    }
}

/// How many bytes at the front are datagrams with the header of the first.
fn run_length(bytes: &[u8], stride: usize) -> usize {
    let header = &bytes[..RELAY_HEADER.min(bytes.len())];
    let same = bytes
        .chunks(stride)
        .take(MAX_SEGMENTS.min(MAX_SEND / stride).max(1))
        .take_while(|datagram| datagram.starts_with(header))
        .map(<[u8]>::len)
        .sum::<usize>();
    same.max(stride.min(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_lets_its_rate_through() {
        let meter = Meter::new(1_000_000);
        let mut passed = 0;
        for millisecond in 0..2000u64 {
            for _ in 0..5 {
                passed += if meter.admit(millisecond * 1_000_000, 1000) { 1000 } else { 0 };
            }
        }
        assert!((2_000_000..2_200_000).contains(&passed), "{passed}");
    }

    #[test]
    fn a_run_ends_where_the_session_does() {
        let datagram = |session: u32, len: usize| {
            let mut bytes = vec![0; len];
            crate::message::write_relay_header(&mut bytes, session);
            bytes
        };
        let batch =
            [datagram(1, 100), datagram(1, 100), datagram(2, 100), datagram(1, 40)].concat();
        assert_eq!(run_length(&batch, 100), 200);
        assert_eq!(run_length(&batch[200..], 100), 100);
        assert_eq!(run_length(&batch[300..], 100), 40);
        assert_eq!(run_length(&[5], 100), 1);
    }

    #[test]
    fn control_messages_round_trip() {
        let message = control_message(CONTROL_RESTARTED, 7 << 20);
        assert_eq!(read_control_message(&message), Some((CONTROL_RESTARTED, 7 << 20)));
        assert_eq!(read_control_message(&message[..7]), None);
        assert_eq!(read_control_message(&[0x40; 8]), None);
    }
}
