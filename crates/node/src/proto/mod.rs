//! What nodes say to each other, above Golem Net's streams.
//!
//! A service is a name; a request is one stream. The caller sends one JSON message, the callee
//! answers with one JSON message: `{"Ok": ..}` or `{"Err": {"kind", "message"}}`. Some requests
//! carry raw frames or a stream of further messages after that, as their types say. A message is
//! preceded by its length (4 bytes, big-endian). `docs/node-protocol.md` tells the whole.

mod activity;
mod agreement;
mod file;
mod live;
mod roster;
mod wire;

pub use activity::{ActivityReply, ActivityRequest, ActivityUpdate, Numbered};
pub use agreement::{AgreementReply, AgreementRequest};
pub use file::{FileReply, FileRequest};
pub use live::{
    CaptureRequest, GroupsRequest, GroupsUpdate, HitsReply, HitsRequest, TraceReply, TraceRequest,
};
pub use roster::{RosterReply, RosterRequest, UpdateKind};
pub use wire::{MAX_FRAME, receive, receive_frame, send, send_frame};

/// Rosters from owners to members.
pub const ROSTER: &str = "gvpn.roster.1";
/// Agreements.
pub const AGREEMENT: &str = "gvpn.agreement.1";
/// Activities.
pub const ACTIVITY: &str = "gvpn.activity.1";
/// Multicast groups: who listens to what.
pub const GROUPS: &str = "gvpn.groups.1";
/// What would happen to a packet that a node's payload sends.
pub const TRACE: &str = "gvpn.trace.1";
/// How often the rules of a network decided on a node, for its owner.
pub const HITS: &str = "gvpn.hits.1";
/// Packets of a network, for its owner.
pub const CAPTURE: &str = "gvpn.capture.1";
/// Files.
pub const FILE: &str = "gvpn.file.1";
/// The market: one [`gvpn_market::MarketMessage`] a request, answered with nothing.
pub const MARKET: &str = "gvpn.market.1";
/// Payment: one [`gvpn_payment::PaymentMessage`] a request, answered with nothing.
pub const PAYMENT: &str = "gvpn.payment.1";
