//! The provider's part: documents written, sent, taken back.

use chrono::{DateTime, Utc};
use gvpn_model::whole_micros;

use super::{Contract, Entry, Ledger, MAX_DOCUMENTS, PaymentError, Role};
use crate::{
    Amount, Change, DebitNote, Document, DocumentStatus, Invoice, Kind, NewDebitNote, NewInvoice,
    PaymentMessage,
};

impl Ledger {
    /// What is to be asked for work whose price by its offer is `cost`: the driver decides.
    pub fn due(&self, cost: Amount) -> Amount {
        self.driver.due(cost)
    }

    /// Writes a debit note. It is sent by [`send`](Self::send).
    ///
    /// # Errors
    /// [`PaymentError`] if this node is not the agreement's provider.
    pub fn write_debit_note(
        &mut self,
        now: DateTime<Utc>,
        contract: &Contract,
        new: NewDebitNote,
    ) -> Result<DebitNote, PaymentError> {
        self.check_payee(contract)?;
        let previous = self
            .documents(Kind::DebitNote, None, usize::MAX)
            .into_iter()
            .rfind(|d| matches!(d, Document::DebitNote(d) if d.activity_id == new.activity_id))
            .map(|d| d.id().to_owned());
        let note = DebitNote {
            debit_note_id: self.new_id(),
            issuer_id: contract.provider,
            recipient_id: contract.requestor,
            payee_addr: contract.payee_addr.clone(),
            payer_addr: contract.payer_addr.clone(),
            payment_platform: contract.platform.clone(),
            previous_debit_note_id: previous,
            timestamp: whole_micros(now),
            agreement_id: contract.agreement_id.clone(),
            activity_id: new.activity_id,
            total_amount_due: new.total_amount_due,
            usage_counter_vector: new.usage_counter_vector,
            payment_due_date: new.payment_due_date.map(whole_micros),
            status: DocumentStatus::Issued,
        };
        self.put(Document::DebitNote(note.clone()), Role::Payee, contract);
        Ok(note)
    }

    /// Writes an invoice. It is sent by [`send`](Self::send).
    ///
    /// # Errors
    /// [`PaymentError`] if this node is not the agreement's provider, or has sent an invoice.
    pub fn write_invoice(
        &mut self,
        now: DateTime<Utc>,
        contract: &Contract,
        new: NewInvoice,
    ) -> Result<Invoice, PaymentError> {
        self.check_payee(contract)?;
        let another = self.entries.values().any(|e| {
            e.document.kind() == Kind::Invoice
                && e.document.agreement() == contract.agreement_id
                && e.document.status() != DocumentStatus::Cancelled
        });
        if another {
            return Err(PaymentError::Conflict(format!(
                "agreement {} has an invoice already",
                contract.agreement_id
            )));
        }
        let invoice = Invoice {
            invoice_id: self.new_id(),
            issuer_id: contract.provider,
            recipient_id: contract.requestor,
            payee_addr: contract.payee_addr.clone(),
            payer_addr: contract.payer_addr.clone(),
            payment_platform: contract.platform.clone(),
            timestamp: whole_micros(now),
            agreement_id: contract.agreement_id.clone(),
            activity_ids: new.activity_ids.unwrap_or_default(),
            amount: new.amount,
            payment_due_date: whole_micros(new.payment_due_date),
            status: DocumentStatus::Issued,
        };
        self.put(Document::Invoice(invoice.clone()), Role::Payee, contract);
        Ok(invoice)
    }

    /// Sends a document to the requestor; repeating it changes nothing.
    ///
    /// # Errors
    /// [`PaymentError`] if there is none, it is not this node's, or it was taken back.
    pub fn send(&mut self, kind: Kind, id: &str) -> Result<(), PaymentError> {
        let entry = self.own(Role::Payee, kind, id)?;
        match entry.document.status() {
            DocumentStatus::Issued => {}
            DocumentStatus::Cancelled => {
                return Err(PaymentError::Conflict(format!("`{id}` was taken back")));
            }
            _ => return Ok(()),
        }
        let key = (kind, id.to_owned());
        self.change_entry(&key, |e| e.document.set_status(DocumentStatus::Received));
        let document = self.entry(kind, id)?.document.clone();
        self.tell(&key, PaymentMessage::Send(document));
        Ok(())
    }

    /// Takes a document back that has not been accepted.
    ///
    /// # Errors
    /// [`PaymentError`] if there is none, it is not this node's, or it was accepted.
    pub fn cancel(&mut self, now: DateTime<Utc>, kind: Kind, id: &str) -> Result<(), PaymentError> {
        let sent = match self.own(Role::Payee, kind, id)?.document.status() {
            DocumentStatus::Issued => false,
            DocumentStatus::Received | DocumentStatus::Rejected => true,
            DocumentStatus::Cancelled => return Ok(()),
            DocumentStatus::Accepted | DocumentStatus::Settled | DocumentStatus::Failed => {
                return Err(PaymentError::Conflict(format!("`{id}` was accepted already")));
            }
        };
        let key = (kind, id.to_owned());
        self.change_entry(&key, |e| e.document.set_status(DocumentStatus::Cancelled));
        if sent {
            self.tell(&key, PaymentMessage::Cancel { kind, id: id.to_owned() });
        }
        self.log(now, &key, Change::Cancelled);
        Ok(())
    }

    pub(super) fn put(&mut self, document: Document, role: Role, contract: &Contract) {
        let key = (document.kind(), document.id().to_owned());
        let session = contract.session.clone();
        let entry = Entry { document, role, session, allocation: None, unsent: Vec::new() };
        self.entries.insert(key.clone(), entry);
        self.keep(&key);
    }

    pub(super) fn is_full(&self, agreement: &str) -> bool {
        self.entries.values().filter(|e| e.document.agreement() == agreement).count()
            >= MAX_DOCUMENTS
    }

    fn check_payee(&self, contract: &Contract) -> Result<(), PaymentError> {
        if contract.provider != self.me {
            return Err(PaymentError::Invalid(format!(
                "this node is not the provider of agreement {}",
                contract.agreement_id
            )));
        }
        if self.is_full(&contract.agreement_id) {
            return Err(PaymentError::TooMany(format!(
                "agreement {} has {MAX_DOCUMENTS} documents already",
                contract.agreement_id
            )));
        }
        Ok(())
    }
}
