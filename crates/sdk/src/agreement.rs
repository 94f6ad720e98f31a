//! Agreements.

use gvpn_model::{AgreementId, NodeId};
use serde::{Deserialize, Serialize};

/// What a requestor asks of a provider.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgreementRequest {
    /// The runtime; the provider's first when none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The image: a `gftp://` or `http(s)://` URL, or a name that the provider knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// CPU cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// Memory in GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_gib: Option<f64>,
    /// Storage in GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_gib: Option<f64>,
}

impl AgreementRequest {
    /// The provider's first runtime with this image.
    pub fn image(image: impl Into<String>) -> Self {
        Self { image: Some(image.into()), ..Self::default() }
    }
}

/// Life of an agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgreementState {
    /// In force.
    Approved,
    /// Ended.
    Terminated,
    /// Anything a newer daemon knows.
    #[serde(other)]
    Other,
}

/// An agreement.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agreement {
    /// Its id.
    pub id: AgreementId,
    /// Who asked.
    pub requestor: NodeId,
    /// Who provides.
    pub provider: NodeId,
    /// Where it stands.
    pub state: AgreementState,
    /// Why it was refused or ended.
    #[serde(default)]
    pub reason: Option<String>,
    /// What was agreed.
    #[serde(default)]
    pub spec: serde_json::Value,
    /// When it was made.
    #[serde(default)]
    pub created: Option<String>,
}
