//! Ports: the vNICs of local members.

use std::{fmt, io, os::fd::OwnedFd};

use gvpn_model::{MemberId, NetworkId};

/// Most queues of one vNIC.
pub const MAX_QUEUES: usize = 8;

/// A vNIC as the data plane sees it: a file descriptor and the framing on it.
#[derive(Debug)]
pub enum Nic {
    /// A TUN (no packet information) opened with `IFF_VNET_HDR`: super-packets both ways.
    TunVnet(OwnedFd),
    /// The same, opened once for each of its queues (`IFF_MULTI_QUEUE`), at most
    /// [`MAX_QUEUES`]: a flow that fills its queue does not delay those in others.
    TunQueues(Vec<OwnedFd>),
    /// A TUN (no packet information) that carries a packet at a time.
    Tun(OwnedFd),
    /// A stream socket; each Ethernet frame after its length as four big-endian bytes.
    Stream(OwnedFd),
    /// A stream socket; each Ethernet frame after its length as two bytes of native order.
    Stream2(OwnedFd),
    /// A socket that keeps message borders; each message an Ethernet frame.
    Dgram(OwnedFd),
    /// A stream socket, connected or listening, to a machine's monitor, which speaks vhost-user:
    /// super-packets both ways where the machine agrees to them.
    VhostUser(OwnedFd),
}

/// A vNIC to attach.
#[derive(Debug)]
pub struct PortSpec {
    /// The network it belongs to. The network may become known later.
    pub network: NetworkId,
    /// The member whose vNIC it is.
    pub member: MemberId,
    /// The vNIC.
    pub nic: Nic,
}

/// A port's number; never used twice by one data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u64);

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a vNIC cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The member has one already.
    #[error("member {member} of network {network} has a vNIC already: detach it first")]
    Taken {
        /// The network.
        network: NetworkId,
        /// The member.
        member: MemberId,
    },
    /// The file descriptor is not what it was said to be.
    #[error("the file descriptor is no {kind} vNIC: {source}")]
    Unusable {
        /// What it should have been.
        kind: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The data plane has ended.
    #[error("the data plane has ended")]
    Ended,
}
