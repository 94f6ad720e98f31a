//! What clients collect about their offers and demands.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{Agreement, Proposal, Reason};

/// An event of one subscription.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "eventType", rename_all_fields = "camelCase")]
pub enum MarketEvent {
    /// A proposal of the other side.
    ProposalEvent {
        /// When it came.
        event_date: DateTime<Utc>,
        /// The proposal.
        proposal: Proposal,
    },
    /// The other side turned a proposal down.
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
    AgreementEvent {
        /// When it came.
        event_date: DateTime<Utc>,
        /// The agreement.
        agreement: Box<Agreement>,
    },
}
