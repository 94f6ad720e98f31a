//! Why the owner's book refuses a change.

use std::net::IpAddr;

use gvpn_model::{MemberId, NodeId, addressing::AddressError};
use ipnet::IpNet;

/// A change that is refused; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// An address or a prefix that cannot be.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// An address in none of the network's prefixes.
    #[error("address {0} is in none of the network's prefixes ({1})")]
    Outside(IpAddr, String),
    /// An address that another member has.
    #[error("address {ip} is already held by member {member} on node {node}")]
    Taken {
        /// The address.
        ip: IpAddr,
        /// Who has it.
        member: MemberId,
        /// Where that is.
        node: NodeId,
    },
    /// A name that another member has.
    #[error("the name `{0}` is already taken by member {1}")]
    NameTaken(String, MemberId),
    /// A name that cannot be part of a DNS name.
    #[error("`{0}` is not a name: use up to 63 letters, digits and inner hyphens")]
    Name(String),
    /// No member has this id.
    #[error("the network has no member {0}")]
    UnknownMember(MemberId),
    /// No member is on this node.
    #[error("the network has no member on node {0}")]
    UnknownNode(NodeId),
    /// A member must have an address.
    #[error("a member needs at least one address; remove the member instead")]
    NoAddress,
    /// A prefix that overlaps one that the network has.
    #[error("prefix {0} overlaps {1}, which the network has already")]
    Overlap(IpNet, IpNet),
    /// A prefix that the network does not have.
    #[error("the network has no prefix {0}")]
    UnknownPrefix(IpNet),
    /// A prefix where members still have addresses.
    #[error("prefix {0} is in use: {1} members have addresses in it; change those first")]
    PrefixInUse(IpNet, usize),
    /// The last prefix of a network.
    #[error("prefix {0} is the network's only one; remove the network instead")]
    LastPrefix(IpNet),
    /// An MTU that cannot carry IPv6, or that no interface can have.
    #[error("an MTU of {0} is not possible: use 1280 to 9000")]
    Mtu(u16),
    /// A route into the network itself, or through nobody.
    #[error("the route to {0} is not possible: {1}")]
    Route(IpNet, &'static str),
    /// A rule that names nobody or says nothing.
    #[error("rule {0} is not valid: {1}")]
    Rule(u32, String),
    /// A prefix without a free address.
    #[error("prefix {0} has no free address left")]
    Full(IpNet),
    /// Too many of something.
    #[error("too many {what}: at most {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        limit: usize,
    },
    /// The owner's own member cannot move to another node or be removed.
    #[error("member {0} is the owner's own: it stays with the owner")]
    OwnersOwn(MemberId),
}
