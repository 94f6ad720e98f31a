//! Activities: the requestor's handles and the provider's ExeUnits.

use chrono::{DateTime, Utc};
use gvpn_model::{
    ActivityId, AgreementId, BatchEvent, BatchId, CommandResult, ExeScript, NodeId, StatePair,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::NodeError;

/// The activity service.
pub struct Activities {}

/// What a new activity shall be, beyond its agreement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ActivitySpec {
    /// Replaces the agreement's image.
    pub image: Option<String>,
}

/// An activity as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActivityInfo {
    /// Its id.
    pub id: ActivityId,
    /// Its agreement.
    pub agreement: AgreementId,
    /// The node that runs it.
    pub provider: NodeId,
    /// The node that asked for it.
    pub requestor: NodeId,
    /// Present state and, during a change, the next.
    pub state: StatePair,
    /// Why it ended.
    pub reason: Option<String>,
    /// When it was created.
    pub created: DateTime<Utc>,
}

/// What an activity has used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// In the order of [`Usage::COUNTERS`].
    pub current_usage: Vec<f64>,
    /// Seconds since 1970.
    pub timestamp: i64,
}

impl Usage {
    /// What the numbers mean.
    pub const COUNTERS: [&'static str; 2] = ["golem.usage.duration_sec", "golem.usage.cpu_sec"];
}

/// Results of a batch so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BatchResults {
    /// From index 0 on, without gaps.
    pub results: Vec<CommandResult>,
    /// Whether no further one will come.
    pub finished: bool,
}

/// Events of a batch from its beginning, then live; ends after the last one.
pub type EventStream = mpsc::Receiver<BatchEvent>;

impl Activities {
    /// Asks the agreement's provider for an activity. It is `Initialized` when this returns.
    ///
    /// # Errors
    /// `NotFound` for the agreement, `Gone` when it has ended, `Refused`, `Unreachable`.
    pub async fn create(
        &self,
        _agreement: AgreementId,
        _spec: ActivitySpec,
    ) -> Result<ActivityInfo, NodeError> {
        unimplemented!()
    }

    /// Activities this node requested, ended ones too, oldest first.
    pub fn requested(&self) -> Vec<ActivityInfo> {
        unimplemented!()
    }

    /// Activities this node runs for others, ended ones too, oldest first.
    pub fn running(&self) -> Vec<ActivityInfo> {
        unimplemented!()
    }

    /// One activity of either side.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, _id: ActivityId) -> Result<ActivityInfo, NodeError> {
        unimplemented!()
    }

    /// Sends a script. The rosters it names are with the provider before the script is.
    ///
    /// # Errors
    /// `NotFound`, `Gone`, `Unreachable`.
    pub async fn exec(&self, _id: ActivityId, _script: ExeScript) -> Result<BatchId, NodeError> {
        unimplemented!()
    }

    /// Results of a batch as they are now.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn results(&self, _id: ActivityId, _batch: BatchId) -> Result<BatchResults, NodeError> {
        unimplemented!()
    }

    /// Waits until the batch has finished, or has a result at `index`, or the activity ended.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn wait(
        &self,
        _id: ActivityId,
        _batch: BatchId,
        _index: Option<u32>,
    ) -> Result<BatchResults, NodeError> {
        unimplemented!()
    }

    /// Events of a batch, from its first.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn events(&self, _id: ActivityId, _batch: BatchId) -> Result<EventStream, NodeError> {
        unimplemented!()
    }

    /// Present state.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn state(&self, _id: ActivityId) -> Result<StatePair, NodeError> {
        unimplemented!()
    }

    /// What it has used.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn usage(&self, _id: ActivityId) -> Result<Usage, NodeError> {
        unimplemented!()
    }

    /// Ends it; repeating it changes nothing.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable` when the provider cannot be told (it is told when it is back).
    pub async fn destroy(&self, _id: ActivityId) -> Result<(), NodeError> {
        unimplemented!()
    }
}
