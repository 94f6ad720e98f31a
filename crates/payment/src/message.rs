//! What the ledgers of two nodes tell each other, and the events that clients collect.

use chrono::{DateTime, Utc};
use gvpn_model::NodeId;
use serde::{Deserialize, Serialize};

use crate::{Amount, Document, Kind, Payment, Rejection};

/// A message between the ledgers of a provider and a requestor. The sender is the peer that the
/// connection proves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentMessage {
    /// Provider: this is due.
    Send(Document),
    /// Provider: it is not, after all.
    Cancel {
        /// Which kind.
        kind: Kind,
        /// Which document.
        id: String,
    },
    /// Requestor: I will pay.
    Accept {
        /// Which kind.
        kind: Kind,
        /// Which document.
        id: String,
        /// How much.
        amount: Amount,
    },
    /// Requestor: I will not pay.
    Reject {
        /// Which kind.
        kind: Kind,
        /// Which document.
        id: String,
        /// Why.
        rejection: Rejection,
    },
    /// Requestor: paid.
    Paid {
        /// Which kind.
        kind: Kind,
        /// Which document.
        id: String,
        /// The payment.
        payment: Payment,
    },
}

/// A message to send, and to whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Transmit {
    /// The receiver.
    pub to: NodeId,
    /// The message.
    pub message: PaymentMessage,
}

/// What happened to a document, without its kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It came from the provider.
    Received,
    /// The requestor will pay.
    Accepted,
    /// The requestor will not pay.
    Rejected(Rejection),
    /// The provider took it back.
    Cancelled,
    /// Paid.
    Settled,
}

impl Change {
    /// The event's name for a kind of document, such as `InvoiceReceivedEvent`.
    pub fn event_type(&self, kind: Kind) -> String {
        let document = match kind {
            Kind::DebitNote => "DebitNote",
            Kind::Invoice => "Invoice",
        };
        let change = match self {
            Self::Received => "Received",
            Self::Accepted => "Accepted",
            Self::Rejected(_) => "Rejected",
            Self::Cancelled => "Cancelled",
            Self::Settled => "Settled",
        };
        format!("{document}{change}Event")
    }
}

/// An event about a document, as clients collect it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentEvent {
    /// When.
    pub date: DateTime<Utc>,
    /// Which kind.
    pub kind: Kind,
    /// Which document.
    pub id: String,
    /// What happened.
    pub change: Change,
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for DocumentEvent {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
        let date = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        ObjectBuilder::new()
            .description(Some(
                "An event about a debit note or an invoice: one of the ids is there.",
            ))
            .property("eventType", String::schema())
            .required("eventType")
            .property("eventDate", date)
            .required("eventDate")
            .property("debitNoteId", String::schema())
            .property("invoiceId", String::schema())
            .property("rejection", Rejection::schema())
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for DocumentEvent {
    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
        <Rejection as utoipa::ToSchema>::schemas(schemas);
    }
}

impl Serialize for DocumentEvent {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = s.serialize_map(None)?;
        map.serialize_entry("eventType", &self.change.event_type(self.kind))?;
        map.serialize_entry("eventDate", &self.date)?;
        let id = match self.kind {
            Kind::DebitNote => "debitNoteId",
            Kind::Invoice => "invoiceId",
        };
        map.serialize_entry(id, &self.id)?;
        if let Change::Rejected(rejection) = &self.change {
            map.serialize_entry("rejection", rejection)?;
        }
        map.end()
    }
}
