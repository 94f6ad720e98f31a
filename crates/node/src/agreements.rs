//! Agreements: a requestor's contract with one provider.

use chrono::{DateTime, Utc};
use gvpn_model::{AgreementId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::NodeError;

/// The agreement service, requestor's and provider's side.
pub struct Agreements {}

/// What the requestor asks for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AgreementSpec {
    /// Which runtime; the provider's first when missing.
    pub runtime: Option<String>,
    /// The image of its payloads: a path or URL that the provider understands.
    pub image: Option<String>,
    /// CPU cores.
    pub cpu_cores: Option<f64>,
    /// Memory in GiB.
    pub mem_gib: Option<f64>,
    /// Storage in GiB.
    pub storage_gib: Option<f64>,
    /// Whatever a market wrote into it; opaque here.
    pub terms: serde_json::Value,
}

/// Which side of an agreement this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgreementRole {
    /// It asked.
    Requestor,
    /// It was asked.
    Provider,
}

/// Life of an agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgreementState {
    /// Both sides are bound.
    Approved,
    /// One side ended it.
    Terminated,
}

/// An agreement as both sides keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agreement {
    /// Its id, given by the requestor.
    pub id: AgreementId,
    /// The requestor.
    pub requestor: NodeId,
    /// The provider.
    pub provider: NodeId,
    /// This node's side.
    pub role: AgreementRole,
    /// What was agreed.
    pub spec: AgreementSpec,
    /// Where it is in its life.
    pub state: AgreementState,
    /// Why it ended.
    pub reason: Option<String>,
    /// When it was made.
    pub created: DateTime<Utc>,
    /// When it ended.
    pub ended: Option<DateTime<Utc>>,
}

/// Something happened to an agreement.
#[derive(Debug, Clone, PartialEq)]
pub struct AgreementEvent {
    /// The agreement as it is now.
    pub agreement: Agreement,
}

impl Agreements {
    /// Asks `provider` for an agreement and waits for its answer.
    ///
    /// # Errors
    /// `Refused` with the provider's reason; `Unreachable`.
    pub async fn propose(
        &self,
        _provider: NodeId,
        _spec: AgreementSpec,
    ) -> Result<Agreement, NodeError> {
        unimplemented!()
    }

    /// As [`propose`](Self::propose), under an id that a market gave.
    ///
    /// # Errors
    /// As there; `Conflict` for an id in use.
    pub async fn propose_as(
        &self,
        _id: AgreementId,
        _provider: NodeId,
        _spec: AgreementSpec,
    ) -> Result<Agreement, NodeError> {
        unimplemented!()
    }

    /// Every agreement known, ended ones too, oldest first.
    pub fn list(&self) -> Vec<Agreement> {
        unimplemented!()
    }

    /// One agreement.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, _id: AgreementId) -> Result<Agreement, NodeError> {
        unimplemented!()
    }

    /// Ends an agreement and its activities; repeating it changes nothing.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn terminate(
        &self,
        _id: AgreementId,
        _reason: Option<String>,
    ) -> Result<(), NodeError> {
        unimplemented!()
    }

    /// Every change from now on, of both roles.
    pub fn subscribe(&self) -> broadcast::Receiver<AgreementEvent> {
        unimplemented!()
    }
}
