//! The device's end of a vhost-user network card.
//!
//! A virtual machine monitor shares the machine's memory with whoever serves its network card and
//! tells it by messages over a Unix socket where in that memory the card's two rings are
//! ([vhost-user](https://qemu-project.gitlab.io/qemu/interop/vhost-user.html)). Frames then go from
//! ring to ring without the monitor, and with `virtio_net_hdr` before them (Virtio 1.2, section 5.1):
//! a machine that negotiates it sends and takes super-packets with checksums left open.
//!
//! [`Card`] is such a card with one pair of rings. It has one descriptor to wait for, never blocks,
//! and allocates nothing per frame.
//!
//! Nothing that a machine or its monitor says is believed. Memory is taken only from a memory file
//! that can no longer shrink, so that what is mapped stays there; ring indices, chains and lengths are
//! checked at each use by `virtio-queue` and `vm-memory`; a card that breaks a rule is an error from
//! then on.
//!
//! Why not the `vhost` crate: it refuses `SET_VRING_ENABLE` before `SET_FEATURES`, which is how QEMU
//! speaks.
//!
//! Not met: several pairs of rings, dirty logging (migration), postcopy, in-flight descriptors,
//! reconnection, a memory file of huge pages, an IOMMU in the machine.

mod card;
mod header;
#[cfg(test)]
mod hostile;
mod memory;
mod message;
mod ring;

pub use card::{Card, SendError};
