//! The relays that a node is at, and which of them is its home. Sans-IO.
//!
//! A [`Home`] decides which relays are called and when, whether one is still there, what it is told
//! (this node's record, the sessions that it knew), which one is home, whom to ask for a peer, and
//! what becomes of a forwarding session that a relay has forgotten. It has no clock and no socket:
//! its driver tells it what happens and when ([`Home::handle_connected`], [`Home::handle_found`],
//! ..), carries out what [`Home::poll_action`] gives, and calls [`Home::handle_timeout`] at
//! [`Home::poll_timeout`].
//!
//! `docs/relay.md` describes what nodes and relays say to each other, `docs/paths.md` how this is
//! simulated.

mod action;
mod agent;
mod look_up;
mod record;
mod relay;
mod sessions;
mod timing;

pub use action::{Action, Request};
pub use agent::Home;
pub use look_up::Answer;
pub use relay::Activity;
pub use timing::Timing;

/// The most relays that a node names in its record, and takes from another's.
pub const MAX_RELAYS: usize = 16;
