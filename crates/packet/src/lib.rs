//! Packets as bytes: the super-packet (`virtio_net_hdr` and up to 64 KiB), views of its headers,
//! checksums, segmentation and coalescing.
//!
//! Nothing here allocates on the way of a packet and nothing panics on any input: every length in
//! a header is checked against the bytes that are there.

mod checksum;
mod coalesce;
mod ecn;
mod icmp;
mod mss;
mod segment;
mod view;
mod vnet;

pub use checksum::{Sum, ipv4_header_checksum, partial, transport_checksum, transport_is_valid};
pub use coalesce::{Checksum, Coalescer, MAX_RUN, Placed, Run};
pub use ecn::{mark_congestion, understands_marks};
pub use icmp::{IPV6_MIN_MTU, too_big};
pub use mss::clamp_mss;
pub use segment::{SegmentError, Segments, complete_checksum};
pub use view::{IpVersion, Packet, Transport};
pub use vnet::{Gso, VNET_LEN, VnetHdr};

/// The longest packet or super-packet, without its `virtio_net_hdr`.
pub const MAX_PACKET: usize = 65_535;
