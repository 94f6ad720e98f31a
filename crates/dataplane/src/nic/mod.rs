//! File descriptors of vNICs.

pub(crate) mod ethernet;
mod tun;
mod tun_queues;
mod vhost;

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use gvpn_packet::{VNET_LEN, VnetHdr};
use gvpn_switch::ethernet::EthernetEdge;
use parking_lot::Mutex;

use self::{
    ethernet::{Ethernet, Framing},
    tun_queues::TunQueues,
    vhost::Vhost,
};
use crate::Nic;

/// Why a packet did not go to a vNIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendError {
    /// No room for now.
    Full,
    /// The vNIC does not take such a packet.
    Invalid,
    /// The vNIC is gone.
    Gone,
    /// The payload's MAC address is not known yet.
    NoNeighbour,
}

/// A vNIC, ready to move packets.
#[derive(Debug)]
pub(crate) enum NicIo {
    TunVnet(TunQueues),
    Tun(OwnedFd),
    Ethernet(Ethernet),
    Vhost(Vhost),
}

impl Nic {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::TunVnet(_) | Self::TunQueues(_) => "tun-vnet",
            Self::Tun(_) => "tun",
            Self::Stream(_) => "stream",
            Self::Stream2(_) => "stream2",
            Self::Dgram(_) => "dgram",
            Self::VhostUser(_) => "vhost-user",
        }
    }
}

impl NicIo {
    /// Checks the descriptor and makes it non-blocking.
    pub(crate) fn open(nic: Nic) -> io::Result<Self> {
        let io = match nic {
            Nic::TunVnet(fd) => Self::TunVnet(TunQueues::open(vec![fd])?),
            Nic::TunQueues(fds) => Self::TunVnet(TunQueues::open(fds)?),
            Nic::Tun(fd) => {
                tun::check(&fd, false)?;
                Self::Tun(fd)
            }
            Nic::Stream(fd) => Self::Ethernet(Ethernet::new(fd, Framing::Length4)?),
            Nic::Stream2(fd) => Self::Ethernet(Ethernet::new(fd, Framing::Length2)?),
            Nic::Dgram(fd) => Self::Ethernet(Ethernet::new(fd, Framing::Message)?),
            Nic::VhostUser(fd) => Self::Vhost(Vhost::new(fd)?),
        };
        if !matches!(io, Self::Vhost(_)) {
            (0..io.queues()).try_for_each(|queue| set_nonblocking(io.raw(queue)))?;
        }
        Ok(io)
    }

    /// How many queues there are to read.
    pub(crate) fn queues(&self) -> usize {
        match self {
            Self::TunVnet(tun) => tun.len(),
            Self::Tun(_) | Self::Ethernet(_) | Self::Vhost(_) => 1,
        }
    }

    /// The descriptor of a queue.
    pub(crate) fn raw(&self, queue: usize) -> RawFd {
        match self {
            Self::TunVnet(tun) => tun.raw(queue),
            Self::Tun(fd) => fd.as_raw_fd(),
            Self::Ethernet(nic) => nic.raw(),
            Self::Vhost(nic) => nic.raw(),
        }
    }

    /// Whether it is a device of the kernel's.
    pub(crate) fn is_tun(&self) -> bool {
        matches!(self, Self::TunVnet(_) | Self::Tun(_))
    }

    pub(crate) fn takes_super_packets(&self) -> bool {
        match self {
            Self::TunVnet(_) => true,
            Self::Tun(_) | Self::Ethernet(_) => false,
            Self::Vhost(nic) => nic.takes_super_packets(),
        }
    }

    /// The switch's end of the vNIC's Ethernet, where it has one.
    pub(crate) fn edge(&self) -> Option<&Mutex<EthernetEdge>> {
        match self {
            Self::TunVnet(_) | Self::Tun(_) => None,
            Self::Ethernet(nic) => Some(&nic.edge),
            Self::Vhost(nic) => Some(&nic.edge),
        }
    }

    /// Sends a frame of the switch's own; returns whether bytes wait until the vNIC takes more.
    pub(crate) fn send_frame(&self, frame: &[u8]) -> Result<bool, SendError> {
        match self {
            Self::TunVnet(_) | Self::Tun(_) => Ok(false),
            Self::Ethernet(nic) => nic.send_frame(&[], frame),
            Self::Vhost(nic) => nic.send_frame(frame).map(|()| false),
        }
    }

    /// Sends what waits; returns whether there is still more.
    pub(crate) fn flush(&self) -> Result<bool, SendError> {
        match self {
            Self::Ethernet(nic) => nic.flush(),
            Self::TunVnet(_) | Self::Tun(_) | Self::Vhost(_) => Ok(false),
        }
    }

    /// Sends a super-packet; `parts[0]` is its header's bytes.
    pub(crate) fn send_super(&self, hdr: &VnetHdr, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        match self {
            Self::Vhost(nic) => nic.send_packet(hdr, parts.get(1..).unwrap_or_default()),
            Self::TunVnet(tun) => tun::write(tun.raw(tun.queue_of(&parts[1])), parts),
            Self::Tun(_) | Self::Ethernet(_) => Err(SendError::Invalid),
        }
    }

    /// Sends one packet with whole checksums; returns whether bytes wait until the vNIC takes more.
    pub(crate) fn send_packet(&self, packet: &[u8]) -> Result<bool, SendError> {
        match self {
            Self::TunVnet(tun) => {
                let head = [0; VNET_LEN];
                let parts = [IoSlice::new(&head), IoSlice::new(packet)];
                tun::write(tun.raw(tun.queue_of(packet)), &parts).map(|()| false)
            }
            Self::Tun(fd) => tun::write(fd.as_raw_fd(), &[IoSlice::new(packet)]).map(|()| false),
            Self::Ethernet(nic) => {
                let head = nic.edge.lock().header_out(packet).ok_or(SendError::NoNeighbour)?;
                nic.send_frame(&head, packet)
            }
            Self::Vhost(nic) => {
                let parts = [IoSlice::new(packet)];
                nic.send_packet(&VnetHdr::default(), &parts).map(|()| false)
            }
        }
    }

    /// Reads the next packet or super-packet of a queue (from an Ethernet vNIC: the next frame) into
    /// `buffer`; `Ok(None)` for one that is none.
    pub(crate) fn read<'a>(
        &self,
        queue: usize,
        buffer: &'a mut [u8],
    ) -> io::Result<Option<(VnetHdr, &'a mut [u8])>> {
        match self {
            Self::Ethernet(nic) => {
                let n = nic.read_frame(buffer)?;
                return Ok(Some((VnetHdr::default(), &mut buffer[..n])));
            }
            Self::Vhost(nic) => return nic.read_frame(buffer),
            Self::TunVnet(_) | Self::Tun(_) => {}
        }
        let n = tun::read(self.raw(queue), buffer)?;
        match self {
            Self::TunVnet(_) => Ok(buffer[..n]
                .split_first_chunk_mut::<VNET_LEN>()
                .map(|(head, packet)| (VnetHdr::read(head), packet))),
            _ => Ok(Some((VnetHdr::default(), &mut buffer[..n]))),
        }
    }
}

fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: fcntl on a descriptor that the caller owns, with integer arguments.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: as above.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
