//! What a data plane is started with.

use std::{io, net::SocketAddr};

/// How to start a [`DataPlane`](crate::DataPlane).
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to listen on; port 0 takes any free one. With an IPv4 and an IPv6 address that
    /// both ask for port 0 the second takes the first one's port where it is free.
    pub listen: Vec<SocketAddr>,
    /// Threads; 0 for as many as there are cores, four at most.
    pub workers: usize,
    /// Kernel offloads that may be used. Those that the kernel lacks are not used in any case.
    pub offloads: Offloads,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: Vec::new(), workers: 0, offloads: Offloads::ALL }
    }
}

/// Kernel offloads, in use or allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    /// One system call sends many datagrams of one size (`UDP_SEGMENT`).
    pub udp_gso: bool,
    /// One system call receives many datagrams of one size (`UDP_GRO`).
    pub udp_gro: bool,
    /// Packets to a vNIC are joined into super-packets where it takes them.
    pub coalesce: bool,
}

impl Offloads {
    /// Everything.
    pub const ALL: Self = Self { udp_gso: true, udp_gro: true, coalesce: true };
    /// A packet at a time.
    pub const NONE: Self = Self { udp_gso: false, udp_gro: false, coalesce: false };
}

/// Why a data plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No address to listen on was given.
    #[error("no address to listen on: give at least one, such as 0.0.0.0:0")]
    NoAddress,
    /// An address cannot be listened on.
    #[error(
        "cannot listen on UDP {addr}: {source}; choose another port, or stop the program that holds it"
    )]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A system resource is missing.
    #[error("cannot start a data-plane thread: {0}")]
    Thread(#[source] io::Error),
}
