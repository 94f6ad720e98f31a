//! A port: one vNIC and what goes out of it.

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    os::fd::RawFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use gvpn_model::MemberId;
use gvpn_packet::{Gso, Packet, Segments, VnetHdr, complete_checksum};
use gvpn_switch::capture::Direction;

use crate::{
    Drop, Nic, PortId,
    counters::Counters,
    network::Network,
    nic::{NicIo, SendError},
};

/// Who a port stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owner {
    Member(MemberId),
    Pair { local: IpAddr, remote: IpAddr },
}

/// An attached vNIC.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) id: PortId,
    pub(crate) network: Arc<Network>,
    pub(crate) owner: Owner,
    pub(crate) nic: NicIo,
    pub(crate) kind: &'static str,
    uso: AtomicBool,
    pub(crate) packets_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) packets_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
}

impl Port {
    pub(crate) fn new(
        id: PortId,
        network: Arc<Network>,
        owner: Owner,
        nic: Nic,
    ) -> io::Result<Self> {
        let kind = nic.kind();
        let nic = NicIo::open(nic)?;
        let zero = || AtomicU64::new(0);
        Ok(Self {
            id,
            network,
            owner,
            uso: AtomicBool::new(nic.takes_super_packets()),
            nic,
            kind,
            packets_in: zero(),
            bytes_in: zero(),
            packets_out: zero(),
            bytes_out: zero(),
        })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.nic.raw()
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
            match self.nic.send_super(parts) {
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
            Err(SendError::Full) => counters.drop(Drop::PortFull, packets),
            Err(SendError::Invalid | SendError::Gone) => counters.drop(Drop::PortFailed, packets),
        }
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
                self.nic.send_packet(packet)
            }
            Ok(Some(segments)) => (0..segments.count()).try_for_each(|index| {
                let len = segments.write_packet(index, &mut scratch.segment[..]);
                self.nic.send_packet(&scratch.segment[..len])
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
