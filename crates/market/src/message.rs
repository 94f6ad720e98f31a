//! What the markets of two nodes tell each other.

use chrono::{DateTime, Utc};
use gvpn_identity::Signature;
use gvpn_model::AgreementId;
use serde::{Deserialize, Serialize};

use crate::{Draft, ProposalId, Reason, SubscriptionId};

/// A message between the markets of a requestor and a provider. The sender is the peer that the
/// connection proves; no message names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MarketMessage {
    /// A new or counter-proposal.
    Propose(WireProposal),
    /// The receiver's proposal is turned down.
    RejectProposal {
        /// The receiver's proposal.
        proposal: ProposalId,
        /// Why.
        reason: Option<Reason>,
    },
    /// Requestor: let us agree on this.
    ProposeAgreement {
        /// The provider's proposal that the agreement is made of.
        proposal: ProposalId,
        /// [`Terms`](crate::Terms) as JSON, as signed.
        terms: String,
        /// The requestor's signature over the terms.
        signature: Signature,
    },
    /// Provider: agreed.
    ApproveAgreement {
        /// The agreement.
        agreement: AgreementId,
        /// When it was approved.
        date: DateTime<Utc>,
        /// The provider's signature over the same terms.
        signature: Signature,
    },
    /// Provider: no.
    RejectAgreement {
        /// The agreement.
        agreement: AgreementId,
        /// Why.
        reason: Option<Reason>,
    },
    /// Requestor: no longer wanted, before the provider has answered.
    CancelAgreement {
        /// The agreement.
        agreement: AgreementId,
        /// Why.
        reason: Option<Reason>,
    },
    /// Either side: it is over.
    TerminateAgreement {
        /// The agreement.
        agreement: AgreementId,
        /// Why.
        reason: Option<Reason>,
        /// The sender's signature over the agreement's id.
        signature: Signature,
    },
}

/// A proposal on its way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WireProposal {
    /// Its id.
    pub id: ProposalId,
    /// The receiver's proposal that it answers; none for the requestor's first.
    pub answers: Option<ProposalId>,
    /// The offer that is negotiated about.
    pub offer: SubscriptionId,
    /// The demand that is negotiated about.
    pub demand: SubscriptionId,
    /// When the demand was made.
    pub demand_made: DateTime<Utc>,
    /// When the proposal was made.
    pub made: DateTime<Utc>,
    /// What it says.
    pub draft: Draft,
}

/// A message to send, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Transmit {
    /// The receiver.
    pub to: gvpn_model::NodeId,
    /// The message.
    pub message: MarketMessage,
}
