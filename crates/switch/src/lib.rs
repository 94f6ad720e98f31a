//! The virtual switch of a network, as one node runs it: where a packet goes, and whether it may.
//!
//! Sans-IO: packets and the time come in, verdicts and packets go out. A [`Table`] is an immutable
//! snapshot of a roster, made for lookups; threads share it without locks. What outlives a roster's
//! epoch (multicast memberships, rate limits, counters) is in the [`Live`] that a table and the
//! tables rebuilt from it share.
//!
//! The payload is not trusted and neither is the peer: a payload may send only from its member's
//! addresses, a peer only from the addresses that the owner's roster gives to its members.
//!
//! The way of a packet from a port: [`Table::pacing`] says when it may go, then
//! [`Table::from_port`], then [`Table::admit`] for a verdict that sends it on; [`Table::answer`] for [`Verdict::Answer`]; [`Table::refusal`] for a drop. From a
//! peer: [`Table::from_peer`], then [`Table::admit`].

mod acl;
mod bucket;
pub mod capture;
mod checksum;
mod compose;
pub mod ethernet;
mod flat;
mod forward;
mod gateway;
mod groups;
mod header;
mod igmp;
mod limits;
mod live;
mod multicast;
mod names;
pub mod shaper;
mod table;
mod tcp_names;
pub mod trace;
mod verdict;

pub use bucket::{Bucket, Rate};
pub use gateway::Asked;
pub use groups::{MAX_GROUPS, MAX_NODE_GROUPS, MEMBERSHIP_LIFETIME};
pub use limits::Pacing;
pub use live::Live;
pub use table::{MemberIx, MemberRow, NodeIx, Table};
pub use tcp_names::{TcpNames, TcpQuestion};
pub use verdict::{DropReason, Targets, Verdict};
