//! What is asked and told about an activity.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use gvpn_model::{
    ActivityId, ActivityState, AgreementId, BatchEvent, CommandResult, NodeId, StatePair,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// What a new activity shall be, beyond its agreement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, rename_all = "camelCase")]
pub struct ActivitySpec {
    /// Replaces the agreement's image.
    pub image: Option<String>,
}

/// An activity as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    #[cfg_attr(feature = "openapi", schema(value_type = (ActivityState, Option<ActivityState>)))]
    pub state: StatePair,
    /// Why it ended.
    pub reason: Option<String>,
    /// When it was created.
    pub created: DateTime<Utc>,
    /// When it ended.
    #[serde(default)]
    pub ended: Option<DateTime<Utc>>,
}

impl ActivityInfo {
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.state.0 == ActivityState::Terminated
    }

    /// Notes its end, once.
    pub(crate) fn end(&mut self, reason: Option<String>) {
        if !self.is_over() {
            self.state = (ActivityState::Terminated, None);
            self.reason = reason;
            self.ended = Some(gvpn_model::whole_micros(Utc::now()));
        }
    }
}

/// What an activity has used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// In the order of [`Usage::COUNTERS`].
    pub current_usage: Vec<f64>,
    /// Seconds since 1970.
    pub timestamp: i64,
    /// Everything that is counted, by name: those of `current_usage` and more.
    #[serde(default)]
    pub counters: BTreeMap<String, f64>,
}

/// Bytes that a payload's vNICs have carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Sent by the payload.
    pub(crate) sent: u64,
    /// Received by it.
    pub(crate) received: u64,
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.sent += more.sent;
        self.received += more.received;
    }
}

impl Usage {
    /// What the numbers mean.
    pub const COUNTERS: [&'static str; 2] = ["golem.usage.duration_sec", "golem.usage.cpu_sec"];
}

impl Default for Usage {
    /// Nothing yet.
    fn default() -> Self {
        Self::new(gvpn_exeunit::Usage::default(), Traffic::default())
    }
}

impl Usage {
    /// Now, by the ExeUnit's word and the data path's.
    pub(crate) fn new(usage: gvpn_exeunit::Usage, traffic: Traffic) -> Self {
        let counters = [
            (Self::COUNTERS[0], usage.duration_sec),
            (Self::COUNTERS[1], usage.cpu_sec),
            ("gvpn.usage.memory-bytes", usage.memory as f64),
            ("gvpn.usage.network.sent-bytes", traffic.sent as f64),
            ("gvpn.usage.network.received-bytes", traffic.received as f64),
        ];
        Self {
            current_usage: vec![usage.duration_sec, usage.cpu_sec],
            timestamp: Utc::now().timestamp(),
            counters: counters.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }
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
