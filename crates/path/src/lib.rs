//! The path agent: which way bytes reach a peer (direct or relayed), measured and promoted. Sans-IO.
//!
//! A [`Hop`] is one way for a datagram to leave this node towards a peer.

mod hop;

pub use hop::{Hop, Tier};
