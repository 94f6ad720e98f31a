//! Identifiers and documents that the other crates exchange.
//!
//! Everything here is plain data: no clock, no socket, no key. Types that travel between nodes
//! implement [`serde`] in two forms: text for people (JSON) and compact bytes for the wire.

mod event_log;
mod id;
mod moment;
mod script;

pub mod addressing;

pub use event_log::{EventLog, LongPoll, whole_micros};
pub use id::{ActivityId, AgreementId, BatchId, IdError, MemberId, NetworkId, NodeId};
pub use script::{
    ActivityState, BatchEvent, BatchEventKind, Capture, CommandResult, DeployArgs, DeployNetwork,
    ExeCommand, ExeScript, ResultKind, RunArgs, ScriptError, StartArgs, StatePair, StreamCapture,
    TransferArgs,
};
