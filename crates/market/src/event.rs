//! What clients collect about their offers and demands.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{Agreement, Proposal, Reason};

/// An event of one subscription.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "eventType")]
pub enum MarketEvent {
    /// A proposal of the other side.
    #[serde(rename_all = "camelCase")]
    ProposalEvent {
        /// When it came.
        event_date: DateTime<Utc>,
        /// The proposal.
        proposal: Proposal,
    },
    /// The other side turned a proposal down.
    #[serde(rename_all = "camelCase")]
    ProposalRejectedEvent {
        /// When.
        event_date: DateTime<Utc>,
        /// The receiver's proposal.
        proposal_id: String,
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
    },
    /// A requestor wants to make an agreement; only providers see this.
    #[serde(rename_all = "camelCase")]
    AgreementEvent {
        /// When it came.
        event_date: DateTime<Utc>,
        /// The agreement.
        agreement: Box<Agreement>,
    },
}
