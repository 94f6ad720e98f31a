//! The signed list of a network's members. Sans-IO: no clock, no socket, no randomness.
//!
//! A network has one owner. The owner keeps an [`OwnerBook`]: every change that it accepts makes a
//! new **epoch** of the [`Roster`], and every epoch has a signed [`Head`]: network, epoch, hash of
//! the whole roster. A member's node keeps a [`Replica`] and follows with a [`Snapshot`] (head and
//! everything) or a [`Delta`] (head and what changed since an epoch). Both prove themselves: what
//! does not add up to the hash that the owner signed is refused, whoever brought it, and changes
//! nothing. So updates may be lost, repeated, reordered or passed on by anybody.
//!
//! A network's id follows from its owner and a salt ([`network_id`]), so nobody else can sign for it.

mod book;
mod delta;
mod digest;
mod edit;
mod error;
mod head;
mod log;
mod member;
mod policy;
mod replica;
mod roster;
mod ula;

pub use book::{NetworkSpec, OwnerBook, RestoreError};
pub use delta::{Change, Delta, Snapshot};
pub use digest::RosterHash;
pub use edit::{MemberEdit, MemberSpec, SettingsEdit};
pub use error::BookError;
pub use head::{Head, SignedHead, network_id};
pub use member::{Limit, Member, Service, check_name};
pub use policy::{Action, Policy, PortRange, Protocol, Rule, RuleId, Selector};
pub use replica::{Applied, Fork, Replica, ReplicaError};
pub use roster::{Roster, Route, Settings, Subnet};
pub use ula::{derived_address, generate_ula};

/// The most members that a network may have.
pub const MAX_MEMBERS: usize = 65_536;
/// The most addresses that one member may have.
pub const MAX_ADDRESSES: usize = 16;
/// The most prefixes that a network may have.
pub const MAX_SUBNETS: usize = 16;
/// The most routes that a network may have.
pub const MAX_ROUTES: usize = 256;
/// The most rules that a network's policy may have.
pub const MAX_RULES: usize = 1024;
