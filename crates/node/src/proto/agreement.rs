//! Messages of the agreement service.

use gvpn_model::AgreementId;
use serde::{Deserialize, Serialize};

use crate::AgreementSpec;

/// A request about an agreement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AgreementRequest {
    /// From a requestor: will you?
    Propose {
        /// Its id, given by the requestor.
        id: AgreementId,
        /// What it asks for.
        spec: AgreementSpec,
    },
    /// From either side: it is over.
    Terminate {
        /// Which.
        id: AgreementId,
        /// Why.
        reason: Option<String>,
    },
}

/// The answer; a refusal is an error of kind `refused`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum AgreementReply {
    /// The provider is bound by this specification, defaults filled in.
    Approved(AgreementSpec),
    /// Noted.
    Terminated,
}
