//! What nodes say to each other, above Golem Net's streams.
//!
//! A service is a name; a request is one stream. The caller sends one JSON message, the callee
//! answers with one JSON message: `{"Ok": ..}` or `{"Err": {"kind", "message"}}`. Some requests
//! carry raw frames or a stream of further messages after that, as their types say. A message is
//! preceded by its length (4 bytes, big-endian). `docs/node-protocol.md` tells the whole.

mod activity;
mod agreement;
mod file;
mod roster;
mod wire;

pub use activity::{ActivityReply, ActivityRequest, ActivityUpdate, Numbered};
pub use agreement::{AgreementReply, AgreementRequest};
pub use file::{FileReply, FileRequest};
pub use roster::{RosterReply, RosterRequest, UpdateKind};
pub use wire::{MAX_FRAME, receive, receive_frame, send, send_frame};

/// Rosters from owners to members.
pub const ROSTER: &str = "gvpn.roster.1";
/// Agreements.
pub const AGREEMENT: &str = "gvpn.agreement.1";
/// Activities.
pub const ACTIVITY: &str = "gvpn.activity.1";
/// Files.
pub const FILE: &str = "gvpn.file.1";
