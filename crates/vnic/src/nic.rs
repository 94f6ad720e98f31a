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
}

/// A vNIC to be attached to the data path.
#[derive(Debug)]
pub struct Nic {
    /// The data path's end.
    pub fd: OwnedFd,
    /// Framing on it.
    pub kind: NicKind,
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
    /// Packets (or super-packets) that the kernel queues for the reader.
    pub queue: u32,
}

impl TunSpec {
    /// The usual device: super-packets of at most 44 segments and 60,000 bytes, so that one of them,
    /// sealed, fits one UDP GSO send; a short queue.
    pub fn new(name: impl Into<String>, mtu: u16) -> Self {
        let gso_max_size = (44 * u32::from(mtu)).min(60_000);
        Self { name: name.into(), mtu, gso_max_segs: 44, gso_max_size, queue: 256 }
    }
}

/// A TUN device made in a namespace.
#[derive(Debug)]
pub struct TunDevice {
    /// The device.
    pub fd: OwnedFd,
    /// Whether packets carry a `virtio_net_hdr` (checksum and TCP segmentation offload).
    pub vnet_hdr: bool,
    /// Whether UDP segmentation offload is on too.
    pub uso: bool,
}

impl From<TunDevice> for Nic {
    fn from(tun: TunDevice) -> Self {
        let kind = if tun.vnet_hdr { NicKind::TunVnet } else { NicKind::Tun };
        Self { fd: tun.fd, kind }
    }
}
