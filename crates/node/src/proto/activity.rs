//! Messages of the activity service.

use chrono::{DateTime, Utc};
use gvpn_model::{
    ActivityId, AgreementId, BatchEvent, BatchId, CommandResult, ExeScript, NetworkId, StatePair,
};
use serde::{Deserialize, Serialize};

use crate::{ActivitySpec, Usage};

/// From a requestor to the provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ActivityRequest {
    /// Start an ExeUnit.
    Create {
        /// The activity's id, given by the requestor.
        id: ActivityId,
        /// Its agreement.
        agreement: AgreementId,
        /// What it shall be.
        spec: ActivitySpec,
    },
    /// Run a script.
    Exec {
        /// The activity.
        id: ActivityId,
        /// The batch's id, given by the requestor; repeating one changes nothing.
        batch: BatchId,
        /// The script.
        script: ExeScript,
    },
    /// Join a network, or leave it, while the payload runs.
    Network {
        /// The activity.
        id: ActivityId,
        /// The network.
        network: NetworkId,
        /// The address to have there; `None` to leave.
        ip: Option<std::net::IpAddr>,
    },
    /// End it.
    Destroy {
        /// The activity.
        id: ActivityId,
        /// Why; the provider keeps the first 300 characters.
        why: String,
    },
    /// What has it used?
    Usage {
        /// The activity.
        id: ActivityId,
    },
    /// Everything that happens to it, from entry `from` of its log on. After the answer
    /// [`Numbered`] updates follow until the activity has ended.
    Watch {
        /// The activity.
        id: ActivityId,
        /// Number of the first update that is wanted.
        from: u64,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ActivityReply {
    /// It stands.
    Created {
        /// Its state.
        state: StatePair,
    },
    /// Done.
    Done,
    /// What it has used.
    Usage(Usage),
    /// Updates follow.
    Watching,
}

/// An entry of an activity's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Numbered {
    /// Its number, from 0; `None` for one that is not kept, such as a sign of life.
    pub number: Option<u64>,
    /// What happened.
    pub update: ActivityUpdate,
}

/// What happened to an activity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ActivityUpdate {
    /// Its state changed.
    State {
        /// The state.
        state: StatePair,
        /// Why it ended, when it did.
        reason: Option<String>,
        /// When.
        at: DateTime<Utc>,
    },
    /// Something happened in a batch.
    Event(BatchEvent),
    /// A command ended.
    Result {
        /// Its batch.
        batch: BatchId,
        /// How.
        result: CommandResult,
    },
    /// The provider is there.
    Alive,
}
