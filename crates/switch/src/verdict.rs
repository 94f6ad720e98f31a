//! What becomes of a packet.

use std::sync::Arc;

use crate::{MemberIx, NodeIx};

/// What to do with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Give it to this member: to its port if it is local, else to its node.
    Deliver(MemberIx),
    /// Give it to all of these, except the port that it came from.
    Replicate(Targets),
    /// It is for the switch itself: ask [`Table::answer`](crate::Table::answer) for the reply.
    Answer,
    /// Forget it and count it.
    Drop(DropReason),
}

/// The receivers of a multicast or broadcast packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets(pub(crate) Arc<TargetList>);

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TargetList {
    pub(crate) local: Vec<MemberIx>,
    pub(crate) nodes: Vec<NodeIx>,
}

impl Targets {
    /// The members on this node; the sender may be among them.
    pub fn local(&self) -> &[MemberIx] {
        &self.0.local
    }

    /// The other nodes: each gets one copy, and hands it to its members.
    pub fn nodes(&self) -> &[NodeIx] {
        &self.0.nodes
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.0.local.is_empty() && self.0.nodes.is_empty()
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a packet is dropped.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason's name in metrics; it never changes.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

drop_reasons! {
    /// Not an IP packet, or a damaged one.
    Malformed = "malformed",
    /// The source is not an address of the member whose port it came from, or of a member on the
    /// node that it came from.
    SpoofedSource = "spoofed_source",
    /// No member has the destination.
    NoSuchMember = "no_such_member",
    /// A peer sent it here, but the destination is on another node.
    NotHere = "not_here",
    /// The policy forbids it.
    Denied = "denied",
    /// The sender or the receiver is quarantined.
    Quarantined = "quarantined",
    /// The sender is over its limit.
    RateLimited = "rate_limited",
    /// Multicast and broadcast are off.
    MulticastOff = "multicast_off",
    /// Nobody listens to the multicast group.
    NoListener = "no_listener",
    /// A message that ends at the switch and needs no reply.
    Consumed = "consumed",
    /// The member or the node is not in the roster (any more).
    UnknownSender = "unknown_sender",
}

impl std::fmt::Display for DropReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
