//! Agreements and what happens to them.

use chrono::{DateTime, Utc};
use gvpn_model::{AgreementId, NodeId};
use serde::{Deserialize, Serialize};

use crate::{Demand, Offer, Reason, Side};

/// Life of an agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = market::AgreementState))]
pub enum AgreementState {
    /// Written, not sent to the provider.
    Proposal,
    /// Sent; the provider has not answered.
    Pending,
    /// Taken back by the requestor before the provider answered.
    Cancelled,
    /// Turned down by the provider, or it could not be reached.
    Rejected,
    /// In force.
    Approved,
    /// Not approved in time.
    Expired,
    /// Ended by one side.
    Terminated,
}

impl AgreementState {
    /// Whether nothing can change any more.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Proposal | Self::Pending | Self::Approved)
    }
}

/// An agreement, as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = market::Agreement))]
#[serde(rename_all = "camelCase")]
pub struct Agreement {
    /// Its id.
    pub agreement_id: AgreementId,
    /// What the requestor said last.
    pub demand: Demand,
    /// What the provider said last.
    pub offer: Offer,
    /// The latest time for the provider's approval.
    pub valid_to: DateTime<Utc>,
    /// When the provider approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_date: Option<DateTime<Utc>>,
    /// Where it stands.
    pub state: AgreementState,
    /// When it was written.
    pub timestamp: DateTime<Utc>,
    /// The client session that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_session_id: Option<String>,
    /// The requestor's signature over the terms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proposed_signature: Option<String>,
    /// The provider's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_signature: Option<String>,
}

impl Agreement {
    /// The node on one side.
    pub fn party(&self, side: Side) -> NodeId {
        match side {
            Side::Requestor => self.demand.requestor_id,
            Side::Provider => self.offer.provider_id,
        }
    }

    /// Which side `node` is; `None` if it has no part in the agreement. A node that rents from
    /// itself is the requestor.
    pub fn side_of(&self, node: NodeId) -> Option<Side> {
        [Side::Requestor, Side::Provider].into_iter().find(|side| self.party(*side) == node)
    }

    /// When the requestor wants the work to be over (`golem.srv.comp.expiration`, milliseconds).
    pub fn work_expires(&self) -> Option<DateTime<Utc>> {
        let millis = self.demand.draft.properties.number("golem.srv.comp.expiration")?;
        DateTime::from_timestamp_millis(millis as i64)
    }
}

/// What both sides sign: everything that was agreed, nothing that changes later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// The agreement's id.
    pub agreement_id: AgreementId,
    /// What the requestor said last.
    pub demand: Demand,
    /// What the provider said last.
    pub offer: Offer,
    /// The latest time for the provider's approval.
    pub valid_to: DateTime<Utc>,
    /// When the agreement was written.
    pub timestamp: DateTime<Utc>,
}

/// A line of the list of agreements.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgreementListEntry {
    /// The agreement's id.
    pub id: AgreementId,
    /// When it was written.
    pub timestamp: DateTime<Utc>,
    /// When it was approved.
    pub approved_date: Option<DateTime<Utc>>,
    /// This node's side.
    pub role: Side,
}

/// What happened to an agreement, without its date.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "eventType")]
pub enum AgreementChange {
    /// The provider approved.
    AgreementApprovedEvent,
    /// The provider turned it down.
    AgreementRejectedEvent {
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
    },
    /// The requestor took it back.
    AgreementCancelledEvent {
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
    },
    /// One side ended it.
    AgreementTerminatedEvent {
        /// Which side.
        terminator: Side,
        /// Its signature over the end.
        signature: String,
        /// Why.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<Reason>,
    },
}

/// An event about an agreement, as clients collect it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgreementEvent {
    /// When.
    pub event_date: DateTime<Utc>,
    /// About which agreement.
    pub agreement_id: AgreementId,
    /// What happened.
    #[serde(flatten)]
    pub change: AgreementChange,
}
