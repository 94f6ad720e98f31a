//! The header before each frame, and what was negotiated about it.

use gvpn_packet::{Gso, VNET_LEN, VnetHdr};

/// Length of a header with the number of buffers that a frame fills.
pub(crate) const LONG: usize = VNET_LEN + 2;
/// Length of an Ethernet header: the card's offsets count from it, ours from behind it.
const ETHERNET: u16 = 14;

const CSUM: u64 = 1 << 0;
const GUEST_CSUM: u64 = 1 << 1;
const GUEST_TSO4: u64 = 1 << 7;
const GUEST_TSO6: u64 = 1 << 8;
const GUEST_ECN: u64 = 1 << 9;
const HOST_TSO4: u64 = 1 << 11;
const HOST_TSO6: u64 = 1 << 12;
const HOST_ECN: u64 = 1 << 13;
const MERGE: u64 = 1 << 15;
const INDIRECT: u64 = 1 << 28;
pub(crate) const EVENT_INDEX: u64 = 1 << 29;
/// vhost-user's own: there are protocol features.
pub(crate) const PROTOCOL: u64 = 1 << 30;
const VERSION_1: u64 = 1 << 32;
const GUEST_USO4: u64 = 1 << 54;
const GUEST_USO6: u64 = 1 << 55;
const HOST_USO: u64 = 1 << 56;

/// What a machine must have taken to be given super-packets.
const SUPER: u64 = GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | GUEST_ECN | MERGE;

/// Everything that this card can do.
pub(crate) const FEATURES: u64 = SUPER
    | CSUM
    | HOST_TSO4
    | HOST_TSO6
    | HOST_ECN
    | INDIRECT
    | EVENT_INDEX
    | PROTOCOL
    | VERSION_1
    | GUEST_USO4
    | GUEST_USO6
    | HOST_USO;

/// Features that a machine has taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Features(pub(crate) u64);

impl Features {
    fn has(self, wanted: u64) -> bool {
        self.0 & wanted == wanted
    }

    /// Length of the header before each frame.
    pub(crate) fn header_len(self) -> usize {
        if self.0 & (VERSION_1 | MERGE) == 0 { VNET_LEN } else { LONG }
    }

    /// Whether a frame may fill several buffers.
    pub(crate) fn merges(self) -> bool {
        self.has(MERGE)
    }

    pub(crate) fn has_event_index(self) -> bool {
        self.has(EVENT_INDEX)
    }

    /// Whether the machine takes super-packets, those of UDP apart.
    pub(crate) fn takes_super_packets(self) -> bool {
        self.has(SUPER)
    }

    /// Whether the machine takes a packet with this header as it is.
    pub(crate) fn takes(self, hdr: &VnetHdr) -> bool {
        let open = !hdr.is_partial() || self.has(GUEST_CSUM);
        open && match hdr.gso() {
            Ok(None) => true,
            Ok(Some(Gso::Udp)) => self.has(SUPER | GUEST_USO4 | GUEST_USO6),
            Ok(Some(_)) => self.takes_super_packets(),
            Err(_) => false,
        }
    }
}

/// The header that a machine put before a frame of `len` bytes, as it is for the packet in it. `None`
/// where it makes no sense.
pub(crate) fn from_machine(bytes: &[u8; VNET_LEN], len: usize) -> Option<VnetHdr> {
    let said = VnetHdr::read(bytes);
    said.gso().ok()?;
    // Other flags tell what a receiver may assume; a machine's word is not taken for that.
    if !said.is_partial() {
        return (said.gso() == Ok(None)).then(VnetHdr::default);
    }
    let end = usize::from(said.csum_start) + usize::from(said.csum_offset) + 2;
    if end > len {
        return None;
    }
    let open = VnetHdr::needs_checksum(said.csum_start.checked_sub(ETHERNET)?, said.csum_offset);
    Some(VnetHdr {
        gso_type: said.gso_type,
        gso_size: said.gso_size,
        hdr_len: said.hdr_len.saturating_sub(ETHERNET),
        ..open
    })
}

/// The same for a machine; `buffers` is how many the frame fills.
pub(crate) fn for_machine(hdr: &VnetHdr, buffers: u16) -> [u8; LONG] {
    let mut told = *hdr;
    if told.is_partial() {
        told.csum_start += ETHERNET;
    }
    if told.hdr_len > 0 {
        told.hdr_len += ETHERNET;
    }
    let mut bytes = [0; LONG];
    bytes[..VNET_LEN].copy_from_slice(&told.to_bytes());
    bytes[VNET_LEN..].copy_from_slice(&buffers.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_the_frame_or_from_the_packet() {
        let hdr = VnetHdr::needs_checksum(20, 16).with_gso(Gso::Tcp4, 1348, 52, false);
        let bytes = for_machine(&hdr, 3);
        assert_eq!(bytes[VNET_LEN..], [3, 0]);
        let (head, _) = bytes.split_first_chunk().unwrap();
        assert_eq!(VnetHdr::read(head).csum_start, 34);
        assert_eq!(from_machine(head, 60_000), Some(hdr));
        assert_eq!(for_machine(&VnetHdr::default(), 1)[..VNET_LEN], [0; VNET_LEN]);
    }

    #[test]
    fn lies_are_refused() {
        let said = |hdr: VnetHdr, len| from_machine(&hdr.to_bytes(), len);
        let open = VnetHdr::needs_checksum(34, 16);
        assert!(said(open, 52).is_some());
        assert_eq!(said(open, 51), None);
        assert_eq!(said(VnetHdr::needs_checksum(13, 0), 60), None);
        assert_eq!(said(VnetHdr::needs_checksum(u16::MAX, u16::MAX), 60), None);
        assert_eq!(said(VnetHdr { gso_type: 3, ..open }, 60), None);
        assert_eq!(said(VnetHdr { gso_type: 1, ..VnetHdr::default() }, 60), None);
        assert_eq!(said(VnetHdr { flags: 2, ..VnetHdr::default() }, 60), Some(VnetHdr::default()));
    }

    #[test]
    fn a_machine_is_given_what_it_took() {
        let plain = VnetHdr::default();
        let tcp = VnetHdr::needs_checksum(20, 16).with_gso(Gso::Tcp4, 1348, 52, false);
        let udp = VnetHdr::needs_checksum(20, 6).with_gso(Gso::Udp, 1348, 28, false);
        let none = Features(VERSION_1);
        assert!(none.takes(&plain) && !none.takes(&tcp) && !none.takes(&udp));
        let older = Features(FEATURES & !(GUEST_USO4 | GUEST_USO6 | HOST_USO));
        assert!(older.takes(&plain) && older.takes(&tcp) && !older.takes(&udp));
        assert!(Features(FEATURES).takes(&udp));
        assert_eq!((Features(0).header_len(), none.header_len()), (10, 12));
    }
}
