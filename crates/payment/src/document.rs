//! Debit notes, invoices and payments, in the JSON that Golem's clients read and write.

use chrono::{DateTime, Utc};
use gvpn_model::NodeId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Amount;

/// Life of a debit note or an invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "UPPERCASE")]
pub enum DocumentStatus {
    /// Written by the provider, not sent.
    Issued,
    /// With the requestor.
    Received,
    /// The requestor will pay.
    Accepted,
    /// The requestor will not pay.
    Rejected,
    /// The payment failed.
    Failed,
    /// Paid.
    Settled,
    /// Taken back by the provider.
    Cancelled,
}

/// What is due for an activity so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct DebitNote {
    /// Its id.
    pub debit_note_id: String,
    /// The provider.
    pub issuer_id: NodeId,
    /// The requestor.
    pub recipient_id: NodeId,
    /// Where the money goes.
    pub payee_addr: String,
    /// Where it comes from.
    pub payer_addr: String,
    /// Driver, network and token, such as `erc20-holesky-tglm`.
    pub payment_platform: String,
    /// The note before this one for the same activity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_debit_note_id: Option<String>,
    /// When it was written.
    pub timestamp: DateTime<Utc>,
    /// The agreement.
    pub agreement_id: String,
    /// The activity.
    pub activity_id: String,
    /// What is due since the activity began, not only since the last note.
    pub total_amount_due: Amount,
    /// The usage that it is due for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_counter_vector: Option<Value>,
    /// Until when to pay; none when the invoice will ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_due_date: Option<DateTime<Utc>>,
    /// Where it stands.
    pub status: DocumentStatus,
}

/// What is due for an agreement that is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Invoice {
    /// Its id.
    pub invoice_id: String,
    /// The provider.
    pub issuer_id: NodeId,
    /// The requestor.
    pub recipient_id: NodeId,
    /// Where the money goes.
    pub payee_addr: String,
    /// Where it comes from.
    pub payer_addr: String,
    /// Driver, network and token, such as `erc20-holesky-tglm`.
    pub payment_platform: String,
    /// When it was written.
    pub timestamp: DateTime<Utc>,
    /// The agreement.
    pub agreement_id: String,
    /// The agreement's activities.
    pub activity_ids: Vec<String>,
    /// What is due for all of them.
    pub amount: Amount,
    /// Until when to pay.
    pub payment_due_date: DateTime<Utc>,
    /// Where it stands.
    pub status: DocumentStatus,
}

/// What a provider's client sends to write a debit note.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NewDebitNote {
    /// The activity.
    pub activity_id: String,
    /// What is due since it began.
    pub total_amount_due: Amount,
    /// The usage that it is due for.
    #[serde(default)]
    pub usage_counter_vector: Option<Value>,
    /// Until when to pay.
    #[serde(default)]
    pub payment_due_date: Option<DateTime<Utc>>,
}

/// What a provider's client sends to write an invoice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct NewInvoice {
    /// The agreement.
    pub agreement_id: String,
    /// Its activities.
    #[serde(default)]
    pub activity_ids: Option<Vec<String>>,
    /// What is due.
    pub amount: Amount,
    /// Until when to pay.
    pub payment_due_date: DateTime<Utc>,
}

/// The requestor will pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Acceptance {
    /// How much of it.
    pub total_amount_accepted: Amount,
    /// Out of which allocation.
    pub allocation_id: String,
}

/// The requestor will not pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// Why.
    pub rejection_reason: RejectionReason,
    /// How much of it is accepted all the same.
    pub total_amount_accepted: Amount,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Why a document is rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RejectionReason {
    /// Nobody asked for this.
    UnsolicitedService,
    /// It was not done as agreed.
    BadService,
    /// It costs less.
    IncorrectAmount,
}

/// A payment that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Payment {
    /// Its id.
    pub payment_id: String,
    /// The requestor.
    pub payer_id: NodeId,
    /// The provider.
    pub payee_id: NodeId,
    /// Where the money came from.
    pub payer_addr: String,
    /// Where it went.
    pub payee_addr: String,
    /// Driver, network and token.
    pub payment_platform: String,
    /// How much.
    pub amount: Amount,
    /// When.
    pub timestamp: DateTime<Utc>,
    /// What it pays of which agreements.
    pub agreement_payments: Vec<AgreementPayment>,
    /// What it pays of which activities.
    pub activity_payments: Vec<ActivityPayment>,
    /// The driver's proof.
    pub details: String,
}

/// A part of a payment that is for an agreement's invoice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgreementPayment {
    /// The agreement.
    pub agreement_id: String,
    /// How much.
    pub amount: Amount,
    /// Out of which allocation; only the payer knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation_id: Option<String>,
}

/// A part of a payment that is for an activity's debit note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ActivityPayment {
    /// The activity.
    pub activity_id: String,
    /// How much.
    pub amount: Amount,
    /// Out of which allocation; only the payer knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocation_id: Option<String>,
}

/// Which kind of document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A debit note.
    DebitNote,
    /// An invoice.
    Invoice,
}

/// A document of either kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Document {
    /// A debit note.
    DebitNote(DebitNote),
    /// An invoice.
    Invoice(Invoice),
}

impl Document {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::DebitNote(_) => Kind::DebitNote,
            Self::Invoice(_) => Kind::Invoice,
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        match self {
            Self::DebitNote(d) => &d.debit_note_id,
            Self::Invoice(d) => &d.invoice_id,
        }
    }

    /// The provider.
    pub fn issuer(&self) -> NodeId {
        match self {
            Self::DebitNote(d) => d.issuer_id,
            Self::Invoice(d) => d.issuer_id,
        }
    }

    /// The requestor.
    pub fn recipient(&self) -> NodeId {
        match self {
            Self::DebitNote(d) => d.recipient_id,
            Self::Invoice(d) => d.recipient_id,
        }
    }

    /// The agreement it is about.
    pub fn agreement(&self) -> &str {
        match self {
            Self::DebitNote(d) => &d.agreement_id,
            Self::Invoice(d) => &d.agreement_id,
        }
    }

    /// What is due.
    pub fn amount(&self) -> Amount {
        match self {
            Self::DebitNote(d) => d.total_amount_due,
            Self::Invoice(d) => d.amount,
        }
    }

    /// When it was written.
    pub fn timestamp(&self) -> DateTime<Utc> {
        match self {
            Self::DebitNote(d) => d.timestamp,
            Self::Invoice(d) => d.timestamp,
        }
    }

    /// Driver, network and token.
    pub fn platform(&self) -> &str {
        match self {
            Self::DebitNote(d) => &d.payment_platform,
            Self::Invoice(d) => &d.payment_platform,
        }
    }

    /// Payer's and payee's address.
    pub fn addresses(&self) -> (&str, &str) {
        match self {
            Self::DebitNote(d) => (&d.payer_addr, &d.payee_addr),
            Self::Invoice(d) => (&d.payer_addr, &d.payee_addr),
        }
    }

    /// Where it stands.
    pub fn status(&self) -> DocumentStatus {
        match self {
            Self::DebitNote(d) => d.status,
            Self::Invoice(d) => d.status,
        }
    }

    /// Puts it elsewhere.
    pub fn set_status(&mut self, status: DocumentStatus) {
        match self {
            Self::DebitNote(d) => d.status = status,
            Self::Invoice(d) => d.status = status,
        }
    }
}
