//! Network cards whose rings are in a machine's memory.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
};

use gvpn_packet::VnetHdr;
use gvpn_switch::ethernet::EthernetEdge;
use gvpn_vhost::Card;
use parking_lot::Mutex;

use super::SendError;

/// The Ethernet header, a packet's own headers, and pieces of its payload.
const MAX_PARTS: usize = 2 + gvpn_packet::MAX_RUN;

/// A card, and the switch's end of its Ethernet.
#[derive(Debug)]
pub(crate) struct Vhost {
    card: Card,
    pub(crate) edge: Mutex<EthernetEdge>,
}

impl Vhost {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { card: Card::new(socket)?, edge: Mutex::default() })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.card.as_fd().as_raw_fd()
    }

    pub(crate) fn takes_super_packets(&self) -> bool {
        self.card.takes_super_packets()
    }

    /// Copies the next frame into `buffer`; `Ok(None)` for one that is none.
    pub(crate) fn read_frame<'a>(
        &self,
        buffer: &'a mut [u8],
    ) -> io::Result<Option<(VnetHdr, &'a mut [u8])>> {
        Ok(self.card.receive(buffer)?.map(|(hdr, len)| (hdr, &mut buffer[..len])))
    }

    /// Sends a frame of the switch's own.
    pub(crate) fn send_frame(&self, frame: &[u8]) -> Result<(), SendError> {
        Ok(self.card.send(&VnetHdr::default(), &[IoSlice::new(frame)])?)
    }

    /// Sends a packet that begins with the first of `parts`.
    pub(crate) fn send_packet(
        &self,
        hdr: &VnetHdr,
        parts: &[IoSlice<'_>],
    ) -> Result<(), SendError> {
        let first = parts.first().ok_or(SendError::Invalid)?;
        let head = self.edge.lock().header_out(first).ok_or(SendError::NoNeighbour)?;
        let mut all = [IoSlice::new(&[]); MAX_PARTS];
        let (count, rest) = (parts.len(), &mut all[1..]);
        rest.get_mut(..count).ok_or(SendError::Invalid)?.copy_from_slice(parts);
        all[0] = IoSlice::new(&head);
        Ok(self.card.send(hdr, &all[..=count])?)
    }
}

impl From<gvpn_vhost::SendError> for SendError {
    fn from(error: gvpn_vhost::SendError) -> Self {
        match error {
            gvpn_vhost::SendError::Full => Self::Full,
            gvpn_vhost::SendError::Invalid => Self::Invalid,
            gvpn_vhost::SendError::Gone => Self::Gone,
        }
    }
}
