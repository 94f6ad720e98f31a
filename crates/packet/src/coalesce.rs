//! Joining packets of one flow into super-packets.

use crate::{
    Gso, IpVersion, MAX_PACKET, Packet, Sum, Transport, VnetHdr, ipv4_header_checksum, partial,
    segment::{put, sequence, word},
    transport_is_valid,
};

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
const CWR: u8 = 0x80;

/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;

/// At most this many packets are joined.
pub const MAX_RUN: usize = 64;

/// How many flows are kept open for joining at a time.
const OPEN: usize = 8;

/// What a packet's transport checksum field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checksum {
    /// The sum over the pseudo-header, to be completed by whoever needs it whole. The transport
    /// header is where [`Packet`] finds it.
    Partial,
    /// What the packet's sender put there, right or wrong.
    Full,
}

/// A packet, or several joined ones: the headers are those of the first, the payloads follow in
/// order.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// A label for the caller's use.
    pub tag: u32,
    outline: Packet,
    at: usize,
    first: u32,
    last: u32,
    count: u32,
    total: usize,
    size: usize,
    checksum: Checksum,
    verified: Option<bool>,
    constant_id: bool,
    flags: u8,
}

impl Run {
    /// How many packets it joins.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// Its length as one packet.
    pub fn len(&self) -> usize {
        self.outline.payload_at + self.total
    }

    /// Whether it holds no bytes; it never does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Length of its headers.
    pub fn header_len(&self) -> usize {
        self.outline.payload_at
    }

    /// The outline of its first packet.
    pub fn outline(&self) -> &Packet {
        &self.outline
    }

    /// Where its first packet begins in the caller's buffer.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What its checksum field holds.
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// Whether it may grow by a packet of this size.
    fn has_room(&self, outline: &Packet) -> bool {
        let len = outline.len - outline.payload_at;
        len <= self.size && self.count() < MAX_RUN && self.len() + len <= MAX_PACKET
    }
}

/// Where a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It begins a run of this number.
    New(usize),
    /// It was joined to the run of this number.
    Joined(usize),
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    at: usize,
    len: usize,
    next: u32,
}

/// Joins the packets of a batch. Packets of one flow stay in order; a run never leaves a packet
/// of its own flow behind. It is used again for each batch, and allocates nothing once warm.
#[derive(Debug, Default)]
pub struct Coalescer {
    runs: Vec<Run>,
    pieces: Vec<Piece>,
    open: Vec<u32>,
}

impl Coalescer {
    /// Forgets all packets.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.pieces.clear();
        self.open.clear();
    }

    /// Adds the packet at `at..at + outline.len` of `buffer`. Packets are joined only when `join`.
    #[inline]
    pub fn push(
        &mut self,
        buffer: &[u8],
        at: usize,
        outline: Packet,
        checksum: Checksum,
        join: bool,
    ) -> Placed {
        let bytes = &buffer[at..at + outline.len];
        if join
            && checksum == Checksum::Partial
            && let Some(&newest) = self.open.last()
            && self.is_next(newest, buffer, bytes, &outline)
        {
            self.append(self.open.len() - 1, at, bytes, &outline);
            return Placed::Joined(newest as usize);
        }
        let joinable = join && is_joinable(bytes, &outline);
        if joinable && let Some(placed) = self.join(buffer, at, &outline, checksum) {
            return placed;
        }
        self.begin(at, outline, checksum, joinable && !ends_run(bytes, &outline))
    }

    /// The runs, in an order that keeps each flow's.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Sets a run's label.
    pub fn set_tag(&mut self, run: usize, tag: u32) {
        self.runs[run].tag = tag;
    }

    /// Nothing more is joined to a run.
    pub fn close(&mut self, run: usize) {
        self.open.retain(|open| *open as usize != run);
    }

    /// The payload pieces of a run as `(at, len)` in the caller's buffer, without empty ones.
    pub fn pieces(&self, run: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let mut next = self.runs[run].first;
        std::iter::from_fn(move || {
            let piece = self.pieces.get(next as usize)?;
            next = piece.next;
            Some((piece.at, piece.len))
        })
        .filter(|(_, len)| *len > 0)
    }

    /// Rewrites the headers of a run's first packet to stand for all of it, and returns what goes
    /// before it on a vNIC that takes super-packets.
    pub fn finish(&self, run: usize, buffer: &mut [u8]) -> VnetHdr {
        let run = &self.runs[run];
        let Some(offset) = run.outline.transport.checksum_offset() else {
            return VnetHdr::default();
        };
        let start = run.outline.transport_at as u16;
        if run.count == 1 {
            return match run.checksum {
                Checksum::Partial => VnetHdr::needs_checksum(start, offset as u16),
                Checksum::Full => VnetHdr::default(),
            };
        }
        let header = &mut buffer[run.at..run.at + run.outline.payload_at];
        write_lengths(header, &run.outline, run.len());
        if run.outline.transport == Transport::Tcp {
            header[run.outline.transport_at + 13] |= run.flags;
        }
        let ecn = run.outline.transport == Transport::Tcp
            && header[run.outline.transport_at + 13] & CWR != 0;
        let kind = match (run.outline.transport, run.outline.version) {
            (Transport::Tcp, IpVersion::V4) => Gso::Tcp4,
            (Transport::Tcp, IpVersion::V6) => Gso::Tcp6,
            _ => Gso::Udp,
        };
        VnetHdr::needs_checksum(start, offset as u16).with_gso(
            kind,
            run.size as u16,
            run.outline.payload_at as u16,
            ecn,
        )
    }

    fn begin(&mut self, at: usize, outline: Packet, checksum: Checksum, open: bool) -> Placed {
        let piece = self.pieces.len() as u32;
        let len = outline.len - outline.payload_at;
        self.pieces.push(Piece { at: at + outline.payload_at, len, next: u32::MAX });
        let index = self.runs.len();
        self.runs.push(Run {
            tag: 0,
            outline,
            at,
            first: piece,
            last: piece,
            count: 1,
            total: len,
            size: len,
            checksum,
            verified: (checksum == Checksum::Partial).then_some(true),
            constant_id: false,
            flags: 0,
        });
        if open {
            if self.open.len() == OPEN {
                self.open.remove(0);
            }
            self.open.push(index as u32);
        }
        Placed::New(index)
    }

    /// Joins a packet to its flow's open run; `None` if there is none that it continues, in which
    /// case that flow's run is closed.
    #[inline]
    fn join(
        &mut self,
        buffer: &[u8],
        at: usize,
        outline: &Packet,
        checksum: Checksum,
    ) -> Option<Placed> {
        let bytes = &buffer[at..at + outline.len];
        let slot = self.open.iter().rposition(|&run| {
            let run = &self.runs[run as usize];
            same_flow(&buffer[run.at..], &run.outline, bytes, outline)
        })?;
        let index = self.open[slot] as usize;
        let run = &mut self.runs[index];
        let fits = continues(&buffer[run.at..], run, bytes, outline);
        let sound = fits
            && run.has_room(outline)
            && (checksum == Checksum::Partial || transport_is_valid(bytes, outline))
            && *run.verified.get_or_insert_with(|| {
                transport_is_valid(&buffer[run.at..run.at + run.outline.len], &run.outline)
            });
        if !sound {
            self.open.remove(slot);
            return None;
        }
        run.constant_id =
            run.outline.version == IpVersion::V4 && word(&buffer[run.at..], 4) == word(bytes, 4);
        self.append(slot, at, bytes, outline);
        Some(Placed::Joined(index))
    }

    /// Whether a packet continues a run as nearly all do: TCP without options of IP, identifiers
    /// that count, checksums left open. `false` says nothing.
    #[inline]
    fn is_next(&self, run: u32, buffer: &[u8], bytes: &[u8], outline: &Packet) -> bool {
        let run = &self.runs[run as usize];
        let head = &buffer[run.at..run.at + run.outline.payload_at];
        let alike = run.checksum == Checksum::Partial
            && outline.transport == Transport::Tcp
            && run.outline.transport == Transport::Tcp
            && run.outline.version == outline.version
            && run.outline.transport_at == outline.transport_at
            && run.outline.payload_at == outline.payload_at
            && outline.len > outline.payload_at
            && run.has_room(outline);
        alike
            && match (outline.version, outline.transport_at) {
                (IpVersion::V4, 20) => {
                    let counted = word(head, 4).wrapping_add(run.count as u16);
                    (run.count == 1 || !run.constant_id)
                        && word(bytes, 4) == counted
                        && follows(head, bytes, &SAME_TCP4, run.total)
                }
                (IpVersion::V6, 40) => follows(head, bytes, &SAME_TCP6, run.total),
                _ => false,
            }
    }

    /// Appends a packet to the run that is open in this slot.
    #[inline]
    fn append(&mut self, slot: usize, at: usize, bytes: &[u8], outline: &Packet) {
        let run = &mut self.runs[self.open[slot] as usize];
        let len = outline.len - outline.payload_at;
        let piece = self.pieces.len() as u32;
        self.pieces.push(Piece { at: at + outline.payload_at, len, next: u32::MAX });
        self.pieces[run.last as usize].next = piece;
        run.last = piece;
        run.count += 1;
        run.total += len;
        if outline.transport == Transport::Tcp {
            run.flags |= bytes[outline.transport_at + 13] & (FIN | PSH);
        }
        if len < run.size || ends_run(bytes, outline) {
            self.open.remove(slot);
        }
    }
}

/// What must be the same in the headers (IPv4 and TCP without options) of a packet and the one it
/// follows: all but length, identifier, sequence, checksums, FIN and PSH.
const SAME_TCP4: [u8; 40] = {
    let mut mask = [0xff; 40];
    let mut at = 0;
    while at < VARYING_4.len() {
        mask[VARYING_4[at]] = 0;
        at += 1;
    }
    mask[20 + 13] = !(FIN | PSH);
    mask
};
const VARYING_4: [usize; 12] = [2, 3, 4, 5, 10, 11, 24, 25, 26, 27, 36, 37];

/// The same for IPv6.
const SAME_TCP6: [u8; 60] = {
    let mut mask = [0xff; 60];
    let mut at = 0;
    while at < VARYING_6.len() {
        mask[VARYING_6[at]] = 0;
        at += 1;
    }
    mask[40 + 13] = !(FIN | PSH);
    mask
};
const VARYING_6: [usize; 8] = [4, 5, 44, 45, 46, 47, 56, 57];

/// Whether the headers of `bytes` are those of `head`, `total` bytes further on in the flow: `N` bytes
/// of headers and what options TCP has.
#[inline]
fn follows<const N: usize>(head: &[u8], bytes: &[u8], mask: &[u8; N], total: usize) -> bool {
    let Some((a, options)) = head.split_first_chunk::<N>() else { return false };
    let Some((b, rest)) = bytes.split_first_chunk::<N>() else { return false };
    let sequence = |header: &[u8; N]| sequence(header, N - TCP_HEADER);
    b[N - TCP_HEADER + 13] & CWR == 0
        && agree(a, b, mask)
        && sequence(b) == sequence(a).wrapping_add(total as u32)
        && rest.starts_with(options)
}

/// Whether both are the same in what the mask shows; four bytes at a time.
#[inline]
fn agree<const N: usize>(a: &[u8; N], b: &[u8; N], mask: &[u8; N]) -> bool {
    let (a, b, mask) = (a.as_chunks::<4>().0, b.as_chunks::<4>().0, mask.as_chunks::<4>().0);
    let word = |bytes: &[u8; 4]| u32::from_ne_bytes(*bytes);
    let differing = |at: usize| (word(&a[at]) ^ word(&b[at])) & word(&mask[at]);
    (0..N / 4).fold(0, |all, at| all | differing(at)) == 0
}

/// Whether a packet may be part of a super-packet.
#[inline]
fn is_joinable(bytes: &[u8], outline: &Packet) -> bool {
    let plain = match outline.version {
        // No options, not a fragment.
        IpVersion::V4 => bytes[0] == 0x45 && word(bytes, 6) & 0xbfff == 0,
        // No extension headers.
        IpVersion::V6 => outline.transport_at == 40,
    };
    let payload = outline.len > outline.payload_at;
    plain
        && payload
        && match outline.transport {
            Transport::Tcp => bytes[outline.transport_at + 13] & !(FIN | PSH | CWR | 0x40) == ACK,
            Transport::Udp => {
                usize::from(word(bytes, outline.transport_at + 4))
                    == outline.len - outline.transport_at
                    && word(bytes, outline.transport_at + 6) != 0
            }
            Transport::Other(_) => false,
        }
}

/// Whether nothing may follow a packet in a super-packet.
#[inline]
fn ends_run(bytes: &[u8], outline: &Packet) -> bool {
    outline.transport == Transport::Tcp && bytes[outline.transport_at + 13] & (FIN | PSH) != 0
}

#[inline]
fn same_flow(head: &[u8], a: &Packet, bytes: &[u8], b: &Packet) -> bool {
    if a.version != b.version || a.transport != b.transport || a.transport_at != b.transport_at {
        return false;
    }
    let at = a.transport_at;
    let addresses = match a.version {
        IpVersion::V4 => 12..20,
        IpVersion::V6 => 8..40,
    };
    head[at..at + 4] == bytes[at..at + 4] && head[addresses.clone()] == bytes[addresses]
}

/// Whether a packet of the run's flow comes right after it, with headers that differ only in what
/// segmentation makes differ.
#[inline]
fn continues(head: &[u8], run: &Run, bytes: &[u8], outline: &Packet) -> bool {
    let at = outline.transport_at;
    if run.outline.payload_at != outline.payload_at {
        return false;
    }
    let ip = match outline.version {
        IpVersion::V4 => {
            let (first, id) = (word(head, 4), word(bytes, 4));
            let counts = id == first.wrapping_add(run.count as u16);
            let constant = id == first && bytes[6] & 0x40 != 0;
            let ids = if run.count == 1 {
                counts || constant
            } else {
                [counts, constant][usize::from(run.constant_id)]
            };
            // Type of service, flags and fragment offset, time to live.
            bytes[1] == head[1] && bytes[6..9] == head[6..9] && ids
        }
        // Traffic class and flow label, hop limit.
        IpVersion::V6 => bytes[..4] == head[..4] && bytes[7] == head[7],
    };
    if !ip || outline.transport == Transport::Udp {
        return ip;
    }
    let next = sequence(head, at).wrapping_add(run.total as u32);
    let flags = (bytes[at + 13] ^ head[at + 13]) & !(FIN | PSH | CWR);
    sequence(bytes, at) == next
        && flags == 0
        && bytes[at + 13] & CWR == 0
        && bytes[at + 8..at + 13] == head[at + 8..at + 13]
        && bytes[at + 14..at + 16] == head[at + 14..at + 16]
        && bytes[at + 18..outline.payload_at] == head[at + 18..outline.payload_at]
}

/// Rewrites lengths and checksums of `header` for a packet of `len` bytes.
fn write_lengths(header: &mut [u8], outline: &Packet, len: usize) {
    let at = outline.transport_at;
    match outline.version {
        IpVersion::V4 => {
            put(header, 2, len as u16);
            let sum = ipv4_header_checksum(&header[..20]);
            put(header, 10, sum);
        }
        IpVersion::V6 => put(header, 4, (len - 40) as u16),
    }
    let protocol = outline.transport.protocol();
    let sum: Sum = partial(header, outline.version, protocol, len - at);
    match outline.transport {
        Transport::Tcp => put(header, at + 16, sum.folded()),
        _ => {
            put(header, at + 4, (len - at) as u16);
            put(header, at + 6, sum.folded());
        }
    }
}
