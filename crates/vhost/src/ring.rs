//! One ring: buffers that the machine makes available, and gets back used.

use std::{
    io::{self, IoSlice},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use gvpn_packet::{VNET_LEN, VnetHdr};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::{
    SendError,
    header::{Features, LONG, for_machine, from_machine},
    memory::Memory,
    message::{Place, wrong},
};

/// Most buffers that one frame fills.
const MOST_BUFFERS: usize = 128;
/// Most descriptors that are looked at for one frame. A machine must make no chain that is longer than its
/// ring (Virtio 1.2, section 2.7.5.2), in a table of its own neither; one that does could keep others waiting.
const MOST_DESCRIPTORS: usize = 1024;
/// The machine's flag that it wants no interrupts.
const NO_INTERRUPT: u16 = 1;

/// A ring.
#[derive(Debug)]
pub(crate) struct Ring {
    queue: Queue,
    memory: Option<Arc<Memory>>,
    place: Option<Place>,
    features: Features,
    enabled: bool,
    /// Wakes the machine.
    call: Option<OwnedFd>,
    /// How far the machine was told of used buffers.
    told: u16,
}

/// What was in the next buffer of a machine.
pub(crate) enum Taken {
    /// There is none.
    Nothing,
    /// Nothing that goes on.
    Bad,
    /// A frame of so many bytes.
    Frame(VnetHdr, usize),
}

impl Ring {
    pub(crate) fn new(size: u16) -> io::Result<Self> {
        let queue = Queue::new(size).map_err(io::Error::other)?;
        Ok(Self {
            queue,
            memory: None,
            place: None,
            features: Features::default(),
            enabled: false,
            call: None,
            told: 0,
        })
    }

    pub(crate) fn set_features(&mut self, features: Features) {
        self.features = features;
        self.queue.set_event_idx(features.has_event_index());
    }

    pub(crate) fn set_memory(&mut self, memory: Option<Arc<Memory>>) {
        self.memory = memory;
    }

    pub(crate) fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    pub(crate) fn set_call(&mut self, call: Option<OwnedFd>) {
        self.call = call;
    }

    pub(crate) fn set_size(&mut self, size: u32) -> io::Result<()> {
        let size = u16::try_from(size).map_err(|_| wrong("a ring is too large"))?;
        self.queue.try_set_size(size).map_err(io::Error::other)
    }

    pub(crate) fn set_base(&mut self, base: u32) {
        self.queue.set_next_avail(base as u16);
        self.queue.set_next_used(base as u16);
        self.told = base as u16;
    }

    pub(crate) fn set_place(&mut self, place: Place) {
        self.place = Some(place);
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it is not in the machine's memory.
    pub(crate) fn start(&mut self) -> io::Result<()> {
        let (Some(memory), Some(place)) = (&self.memory, self.place) else {
            return Err(wrong("a ring is started that has no place"));
        };
        let of = |address| {
            let address = memory.of_monitor(address).map(GuestAddress);
            address.ok_or_else(|| wrong("a ring is not in the machine's memory"))
        };
        let (descriptors, available) = (of(place.descriptors)?, of(place.available)?);
        let used = of(place.used)?;
        let queue = &mut self.queue;
        queue.try_set_desc_table_address(descriptors).map_err(io::Error::other)?;
        queue.try_set_avail_ring_address(available).map_err(io::Error::other)?;
        queue.try_set_used_ring_address(used).map_err(io::Error::other)?;
        queue.set_ready(true);
        if !queue.is_valid(&memory.map) {
            queue.set_ready(false);
            return Err(wrong("a ring is not in the machine's memory"));
        }
        // What was used before this ring had us.
        let used = queue.used_idx(&memory.map, Ordering::Acquire).map_err(io::Error::other)?;
        queue.set_next_used(used.0);
        self.told = used.0;
        Ok(())
    }

    /// Stops it; how far it came.
    pub(crate) fn stop(&mut self) -> u16 {
        self.queue.set_ready(false);
        self.queue.next_avail()
    }

    fn running(&self) -> Option<Arc<Memory>> {
        self.memory.clone().filter(|_| self.enabled && self.queue.ready())
    }

    /// Copies the next frame of the machine into `buffer`.
    ///
    /// # Errors
    /// When the machine broke the rules of the ring.
    pub(crate) fn take(&mut self, buffer: &mut [u8]) -> io::Result<Taken> {
        let Some(memory) = self.running() else { return Ok(Taken::Nothing) };
        let header_len = self.features.header_len();
        let mut chains = self.queue.iter(&memory.map).map_err(io::Error::other)?;
        let Some(chain) = chains.next() else { return Ok(Taken::Nothing) };
        let head = chain.head_index();
        let (mut header, mut at, mut len, mut fits) = ([0; LONG], 0, 0usize, true);
        for (looked_at, descriptor) in chain.enumerate() {
            if looked_at >= MOST_DESCRIPTORS {
                return Err(wrong("a frame in too many pieces"));
            }
            if descriptor.is_write_only() {
                continue;
            }
            let (mut from, mut left) = (descriptor.addr(), descriptor.len() as usize);
            if at < header_len {
                let part = left.min(header_len - at);
                read(&memory, &mut header[at..at + part], from)?;
                (at, left) = (at + part, left - part);
                from = GuestAddress(from.0.wrapping_add(part as u64));
            }
            match buffer.get_mut(len..len.saturating_add(left)) {
                Some(room) if fits => read(&memory, room, from)?,
                _ => fits = false,
            }
            len = len.saturating_add(left);
        }
        self.give_back(&memory, &[(head, 0)])?;
        let (known, _) =
            header.split_first_chunk::<VNET_LEN>().ok_or_else(|| wrong("no header"))?;
        if at < header_len || !fits {
            return Ok(Taken::Bad);
        }
        Ok(from_machine(known, len).map_or(Taken::Bad, |hdr| Taken::Frame(hdr, len)))
    }

    /// Has the machine tell of further buffers; whether there are some already.
    pub(crate) fn listen(&mut self) -> io::Result<bool> {
        let Some(memory) = self.running() else { return Ok(false) };
        self.queue.enable_notification(&memory.map).map_err(io::Error::other)
    }

    /// Gives the machine a frame.
    pub(crate) fn put(&mut self, hdr: &VnetHdr, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        let Some(memory) = self.running() else { return Err(SendError::Full) };
        if !self.features.takes(hdr) {
            return Err(SendError::Invalid);
        }
        let before = self.queue.next_avail();
        match self.fill(&memory, hdr, parts) {
            Ok(Some((buffers, count))) => {
                self.give_back(&memory, &buffers[..count]).map_err(|_| SendError::Gone)?;
                self.tell().map_err(|_| SendError::Gone)
            }
            Ok(None) => {
                self.queue.set_next_avail(before);
                Err(SendError::Full)
            }
            Err(_) => Err(SendError::Gone),
        }
    }

    /// Copies a frame into buffers: which, and how many bytes of each. `None` if there are too few.
    #[allow(clippy::type_complexity)]
    fn fill(
        &mut self,
        memory: &Memory,
        hdr: &VnetHdr,
        parts: &[IoSlice<'_>],
    ) -> io::Result<Option<([(u16, u32); MOST_BUFFERS], usize)>> {
        let most = if self.features.merges() { MOST_BUFFERS } else { 1 };
        let header_len = self.features.header_len();
        let (mut buffers, mut count) = ([(0, 0); MOST_BUFFERS], 0);
        let mut source = Source { parts, at: 0 };
        let (mut first, mut looked_at) = (None, 0);
        let chains = self.queue.iter(&memory.map).map_err(io::Error::other)?;
        for chain in chains.take(most) {
            let head = chain.head_index();
            let mut written = 0u32;
            for descriptor in chain {
                looked_at += 1;
                if looked_at > MOST_DESCRIPTORS {
                    return Err(wrong("buffers in too many pieces"));
                }
                if !descriptor.is_write_only() {
                    continue;
                }
                let (mut to, mut room) = (descriptor.addr(), descriptor.len() as usize);
                if first.is_none() {
                    // The header is written when it is known how many buffers there are.
                    first = Some(to);
                    room = room
                        .checked_sub(header_len)
                        .ok_or_else(|| wrong("no room for a header"))?;
                    to = GuestAddress(to.0.wrapping_add(header_len as u64));
                    written += header_len as u32;
                }
                written += source.copy(memory, to, room)? as u32;
            }
            buffers[count] = (head, written);
            count += 1;
            if source.parts.is_empty() {
                break;
            }
        }
        let Some(first) = first.filter(|_| source.parts.is_empty()) else { return Ok(None) };
        let header = for_machine(hdr, count as u16);
        memory.map.write_slice(&header[..header_len], first).map_err(io::Error::other)?;
        Ok(Some((buffers, count)))
    }

    /// Gives buffers back, all at once: the machine must not see a part of a frame.
    fn give_back(&mut self, memory: &Memory, buffers: &[(u16, u32)]) -> io::Result<()> {
        let Some(((last, len), others)) = buffers.split_last() else { return Ok(()) };
        let (size, used) = (self.queue.size(), self.queue.next_used());
        for (n, (head, len)) in others.iter().enumerate() {
            let slot = used.wrapping_add(n as u16) % size;
            let at = self.queue.used_ring().checked_add(4 + 8 * u64::from(slot));
            let at = at.ok_or_else(|| wrong("a ring beyond all addresses"))?;
            let entry = [u32::from(*head).to_le_bytes(), len.to_le_bytes()];
            let written = memory.map.write_slice(entry.as_flattened(), GuestAddress(at));
            written.map_err(io::Error::other)?;
        }
        self.queue.set_next_used(used.wrapping_add(others.len() as u16));
        self.queue.add_used(&memory.map, *last, *len).map_err(io::Error::other)
    }

    /// How many used buffers the machine has not been told of.
    pub(crate) fn untold(&self) -> u16 {
        self.queue.next_used().wrapping_sub(self.told)
    }

    /// Tells the machine of used buffers, if it wants to hear of them.
    pub(crate) fn tell(&mut self) -> io::Result<()> {
        let Some(memory) = self.running() else { return Ok(()) };
        let now = self.queue.next_used();
        let news = now.wrapping_sub(self.told);
        if news == 0 {
            return Ok(());
        }
        // What was used must be seen before it is asked whether anybody waits for it.
        fence(Ordering::SeqCst);
        let load = |offset: u64| {
            let at = GuestAddress(self.queue.avail_ring().wrapping_add(offset));
            memory.map.load(at, Ordering::Relaxed).map(u16::from_le).map_err(io::Error::other)
        };
        let wanted = if self.features.has_event_index() {
            let event = load(4 + 2 * u64::from(self.queue.size()))?;
            now.wrapping_sub(event).wrapping_sub(1) < news
        } else {
            load(0)? & NO_INTERRUPT == 0
        };
        self.told = now;
        if let (true, Some(call)) = (wanted, &self.call) {
            // A counter that is full wakes whoever looks at it.
            let _ = nix::unistd::write(call, &1u64.to_ne_bytes());
        }
        Ok(())
    }
}

/// The rest of a frame.
struct Source<'a> {
    parts: &'a [IoSlice<'a>],
    /// How much of the first part is gone.
    at: usize,
}

impl Source<'_> {
    /// Copies as much as there is room for; how much that was.
    fn copy(&mut self, memory: &Memory, to: GuestAddress, room: usize) -> io::Result<usize> {
        let mut copied = 0;
        while let Some((part, rest)) = self.parts.split_first() {
            let piece = &part[self.at..][..(part.len() - self.at).min(room - copied)];
            let at = GuestAddress(to.0.wrapping_add(copied as u64));
            memory.map.write_slice(piece, at).map_err(io::Error::other)?;
            copied += piece.len();
            self.at += piece.len();
            if self.at < part.len() {
                break;
            }
            (self.parts, self.at) = (rest, 0);
        }
        Ok(copied)
    }
}

fn read(memory: &Memory, into: &mut [u8], from: GuestAddress) -> io::Result<()> {
    memory.map.read_slice(into, from).map_err(io::Error::other)
}
