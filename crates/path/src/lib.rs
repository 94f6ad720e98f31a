//! The path agent: which way bytes reach a peer (direct or relayed), measured and promoted. Sans-IO.
//!
//! A [`Hop`] is one way for a datagram to leave this node towards a peer. An [`Agent`] knows all
//! hops of one peer, measures them with sealed probes while the peer is in use, and says which
//! one to use. It has no clock and no socket: its driver tells it what happens and when
//! ([`Agent::handle_probe`], [`Agent::handle_heard`], ..), sends what [`Agent::poll_transmit`]
//! gives, and calls [`Agent::handle_timeout`] at [`Agent::poll_timeout`].
//!
//! `docs/paths.md` describes the rules and what they achieve.

mod agent;
mod candidate;
mod hop;
mod mtu;
mod nature;
mod probe;
mod report;
mod timing;

pub use agent::{Agent, Event, Transmit};
pub use candidate::Source;
pub use hop::{Hop, Tier, carrier_addr, carrier_id, is_socket, socket_addr};
pub use mtu::{MIN_MTU, QUIC_MTU};
pub use nature::Nature;
pub use probe::{MIN_PROBE, Message, TYPE_PROBE, TYPE_REPLY};
pub use report::{HopReport, Report};
pub use timing::Timing;

/// The largest number of hops that an agent keeps.
pub const MAX_HOPS: usize = 16;
