//! Messages of other nodes.

use chrono::{DateTime, Utc};
use gvpn_model::NodeId;

use super::{Contract, Ledger, Role};
use crate::{
    Amount, Change, Document, DocumentStatus, Kind, PaymentMessage, Rejection, RejectionReason,
    Transmit,
};

impl PaymentMessage {
    /// The document that it is about.
    pub fn subject(&self) -> (Kind, String) {
        match self {
            Self::Send(document) => (document.kind(), document.id().to_owned()),
            Self::Cancel { kind, id }
            | Self::Accept { kind, id, .. }
            | Self::Reject { kind, id, .. }
            | Self::Paid { kind, id, .. } => (*kind, id.clone()),
        }
    }

    /// The agreement that a new document is about; other messages are about known ones.
    pub fn agreement(&self) -> Option<&str> {
        match self {
            Self::Send(document) => Some(document.agreement()),
            _ => None,
        }
    }
}

impl Ledger {
    /// Takes a message of another node. `contract` is the agreement that the message names, if this
    /// node knows it. Repeated messages change nothing; what makes no sense is ignored, never obeyed.
    pub fn handle_message(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        message: PaymentMessage,
        contract: Option<&Contract>,
    ) {
        let key = message.subject();
        match message {
            PaymentMessage::Send(document) => self.on_document(now, from, document, contract),
            PaymentMessage::Cancel { .. } => {
                if self.concerns(
                    &key,
                    Role::Payer,
                    from,
                    &[DocumentStatus::Received, DocumentStatus::Rejected],
                ) {
                    self.change_entry(&key, |e| e.document.set_status(DocumentStatus::Cancelled));
                    self.log(now, &key, Change::Cancelled);
                }
            }
            PaymentMessage::Accept { .. } => {
                if self.concerns(
                    &key,
                    Role::Payee,
                    from,
                    &[DocumentStatus::Received, DocumentStatus::Rejected],
                ) {
                    self.change_entry(&key, |e| e.document.set_status(DocumentStatus::Accepted));
                    self.log(now, &key, Change::Accepted);
                }
            }
            PaymentMessage::Reject { rejection, .. } => {
                if self.concerns(&key, Role::Payee, from, &[DocumentStatus::Received]) {
                    self.change_entry(&key, |e| e.document.set_status(DocumentStatus::Rejected));
                    self.log(now, &key, Change::Rejected(rejection));
                }
            }
            PaymentMessage::Paid { payment, .. } => {
                if self.concerns(&key, Role::Payee, from, &[DocumentStatus::Accepted]) {
                    self.change_entry(&key, |e| e.document.set_status(DocumentStatus::Settled));
                    self.put_payment(now, payment);
                    self.log(now, &key, Change::Settled);
                }
            }
        }
    }

    fn on_document(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        mut document: Document,
        contract: Option<&Contract>,
    ) {
        if document.issuer() != from || document.recipient() != self.me {
            return;
        }
        let key = (document.kind(), document.id().to_owned());
        if self.entries.contains_key(&key) {
            return;
        }
        let fits = |c: &&Contract| {
            c.provider == from
                && c.requestor == self.me
                && c.agreement_id == document.agreement()
                && !self.is_full(&c.agreement_id)
        };
        let Some(contract) = contract.filter(fits) else {
            let (kind, id) = key;
            let rejection = Rejection {
                rejection_reason: RejectionReason::UnsolicitedService,
                total_amount_accepted: Amount::ZERO,
                message: Some("there is no such agreement".to_owned()),
            };
            let message = PaymentMessage::Reject { kind, id, rejection };
            self.transmits.push_back(Transmit { to: from, message });
            return;
        };
        document.set_status(DocumentStatus::Received);
        self.put(document, Role::Payer, contract);
        self.log(now, &key, Change::Received);
    }

    fn concerns(
        &self,
        key: &(Kind, String),
        role: Role,
        from: NodeId,
        states: &[DocumentStatus],
    ) -> bool {
        self.entries.get(key).is_some_and(|e| {
            e.role == role && e.other(self.me) == from && states.contains(&e.document.status())
        })
    }
}
