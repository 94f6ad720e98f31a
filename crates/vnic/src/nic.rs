//! vNICs as the data path sees them: a file descriptor and how packets look on it.

use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// How packets are framed on a vNIC's file descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NicKind {
    /// TUN with `virtio_net_hdr` (10 bytes) before each IP packet: super-packets.
    TunVnet,
    /// TUN with bare IP packets.
    Tun,
    /// Stream socket, Ethernet frames behind a 4-byte big-endian length (QEMU, passt).
    Stream,
    /// Stream socket, Ethernet frames behind a 2-byte native-endian length (Golem's runtimes).
    Stream2,
    /// Datagram or sequenced-packet socket, one Ethernet frame a message.
    Dgram,
    /// Stream socket, connected or listening, to a virtual machine monitor that shares the machine's memory
    /// (vhost-user): super-packets. It can be attached once.
    VhostUser,
}

/// A vNIC to be attached to the data path.
#[derive(Debug)]
pub struct Nic {
    /// The data path's end.
    pub fd: OwnedFd,
    /// Its further queues, where a TUN has several.
    pub queues: Vec<OwnedFd>,
    /// Framing on it.
    pub kind: NicKind,
}

impl Nic {
    /// One of a single queue.
    pub fn new(fd: OwnedFd, kind: NicKind) -> Self {
        Self { fd, queues: vec![], kind }
    }
}

/// A TUN device to be made in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TunSpec {
    /// Name of the interface, at most 15 bytes.
    pub name: String,
    /// Largest packet, at least 1280 where IPv6 is to work.
    pub mtu: u16,
    /// Most segments in one super-packet.
    pub gso_max_segs: u32,
    /// Most bytes in one super-packet.
    pub gso_max_size: u32,
    /// Packets (or super-packets) that the kernel queues for the reader, in each of its queues.
    pub queue: u32,
    /// Queues of a device that carries super-packets, 1 to 8. With several, a flow that fills its
    /// queue does not delay those in others.
    pub queues: u32,
}

impl TunSpec {
    /// The usual device: super-packets of at most 44 segments and 60,000 bytes, so that one of them,
    /// sealed, fits one UDP GSO send; one queue.
    pub fn new(name: impl Into<String>, mtu: u16) -> Self {
        let gso_max_size = (44 * u32::from(mtu)).min(60_000);
        Self { name: name.into(), mtu, gso_max_segs: 44, gso_max_size, queue: 1000, queues: 1 }
    }

    /// The same with so many queues.
    #[must_use]
    pub fn with_queues(self, queues: u32) -> Self {
        Self { queues, ..self }
    }
}

/// A TUN device made in a namespace.
#[derive(Debug)]
pub struct TunDevice {
    /// The device, or its first queue.
    pub fd: OwnedFd,
    /// Its further queues: as many as wanted, or none where the kernel has only one.
    pub queues: Vec<OwnedFd>,
    /// Whether packets carry a `virtio_net_hdr` (checksum and TCP segmentation offload).
    pub vnet_hdr: bool,
    /// Whether UDP segmentation offload is on too.
    pub uso: bool,
}

impl From<TunDevice> for Nic {
    fn from(tun: TunDevice) -> Self {
        let kind = if tun.vnet_hdr { NicKind::TunVnet } else { NicKind::Tun };
        Self { fd: tun.fd, queues: tun.queues, kind }
    }
}
