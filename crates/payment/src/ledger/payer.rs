//! The requestor's part: documents accepted, rejected, paid.

use chrono::{DateTime, Utc};
use gvpn_model::whole_micros;

use super::{Ledger, PaymentError, Record, Role};
use crate::{
    Acceptance, ActivityPayment, AgreementPayment, Amount, Change, Document, DocumentStatus, Kind,
    Payment, PaymentMessage, PaymentOrder, Progress, Rejection,
};

impl Ledger {
    /// Accepts a document and has the driver pay it; repeating it changes nothing.
    ///
    /// # Errors
    /// [`PaymentError`] if there is none, it is not to be paid by this node, the amount is not what
    /// is due, the allocation does not hold so much, or the driver refuses. Nothing changes then.
    pub fn accept(
        &mut self,
        now: DateTime<Utc>,
        kind: Kind,
        id: &str,
        acceptance: &Acceptance,
    ) -> Result<(), PaymentError> {
        let document = self.own(Role::Payer, kind, id)?.document.clone();
        match document.status() {
            DocumentStatus::Received | DocumentStatus::Failed | DocumentStatus::Rejected => {}
            DocumentStatus::Accepted | DocumentStatus::Settled => return Ok(()),
            DocumentStatus::Cancelled | DocumentStatus::Issued => {
                return Err(PaymentError::Conflict(format!("`{id}` was taken back")));
            }
        }
        let due = document.amount();
        if acceptance.total_amount_accepted != due {
            return Err(PaymentError::Invalid(format!(
                "`{id}` is about {due}, not {}: accept that much or reject it",
                acceptance.total_amount_accepted
            )));
        }
        let mut allocation = self.allocation(now, &acceptance.allocation_id)?;
        if allocation.payment_platform != document.platform() {
            return Err(PaymentError::Invalid(format!(
                "`{id}` is to be paid on {}, the allocation is for {}",
                document.platform(),
                allocation.payment_platform
            )));
        }
        let open = self.open_amount(&document);
        let left = allocation.remaining_amount.checked_sub(open).ok_or_else(|| {
            PaymentError::Invalid(format!(
                "{open} is to be paid, and the allocation has {} left: raise it",
                allocation.remaining_amount
            ))
        })?;
        let progress = self.pay(&document, open)?;
        allocation.remaining_amount = left;
        allocation.spent_amount =
            allocation.spent_amount.checked_add(open).unwrap_or(allocation.total_amount);
        let allocation_id = allocation.allocation_id.clone();
        self.put_allocation(allocation);
        self.count_accepted(&document);
        let key = (kind, id.to_owned());
        self.change_entry(&key, |e| {
            e.document.set_status(DocumentStatus::Accepted);
            e.allocation = Some(allocation_id);
        });
        self.tell(&key, PaymentMessage::Accept { kind, id: id.to_owned(), amount: due });
        self.log(now, &key, Change::Accepted);
        if let Progress::Done(details) = progress {
            self.paid(now, kind, id, open, details)?;
        }
        Ok(())
    }

    /// The driver has made the payment of an accepted document.
    ///
    /// # Errors
    /// [`PaymentError`] if there is no such document.
    pub fn paid(
        &mut self,
        now: DateTime<Utc>,
        kind: Kind,
        id: &str,
        amount: Amount,
        details: String,
    ) -> Result<(), PaymentError> {
        let entry = self.own(Role::Payer, kind, id)?;
        let document = &entry.document;
        let allocation_id = entry.allocation.clone();
        let (payer_addr, payee_addr) = document.addresses();
        let (mut agreement_payments, mut activity_payments) = (Vec::new(), Vec::new());
        match document {
            Document::Invoice(d) => agreement_payments.push(AgreementPayment {
                agreement_id: d.agreement_id.clone(),
                amount,
                allocation_id,
            }),
            Document::DebitNote(d) => activity_payments.push(ActivityPayment {
                activity_id: d.activity_id.clone(),
                amount,
                allocation_id,
            }),
        }
        let mut payment = Payment {
            payment_id: String::new(),
            payer_id: document.recipient(),
            payee_id: document.issuer(),
            payer_addr: payer_addr.to_owned(),
            payee_addr: payee_addr.to_owned(),
            payment_platform: document.platform().to_owned(),
            amount,
            timestamp: whole_micros(now),
            agreement_payments,
            activity_payments,
            details,
        };
        payment.payment_id = self.new_id();
        let key = (kind, id.to_owned());
        self.change_entry(&key, |e| e.document.set_status(DocumentStatus::Settled));
        self.put_payment(now, payment.clone());
        self.tell(&key, PaymentMessage::Paid { kind, id: id.to_owned(), payment });
        self.log(now, &key, Change::Settled);
        Ok(())
    }

    /// Rejects a document.
    ///
    /// # Errors
    /// [`PaymentError`] if there is none, it is not to be paid by this node, or was accepted.
    pub fn reject(
        &mut self,
        now: DateTime<Utc>,
        kind: Kind,
        id: &str,
        rejection: Rejection,
    ) -> Result<(), PaymentError> {
        match self.own(Role::Payer, kind, id)?.document.status() {
            DocumentStatus::Received => {}
            DocumentStatus::Rejected => return Ok(()),
            _ => {
                return Err(PaymentError::Conflict(format!(
                    "`{id}` was accepted or taken back already"
                )));
            }
        }
        let key = (kind, id.to_owned());
        self.change_entry(&key, |e| e.document.set_status(DocumentStatus::Rejected));
        let change = Change::Rejected(rejection.clone());
        self.tell(&key, PaymentMessage::Reject { kind, id: id.to_owned(), rejection });
        self.log(now, &key, change);
        Ok(())
    }

    pub(super) fn put_payment(&mut self, now: DateTime<Utc>, mut payment: Payment) {
        payment.timestamp = self.payments.push(now, payment.clone());
        self.records.push_back(Record::Payment(payment));
    }

    pub(super) fn count_accepted(&mut self, document: &Document) {
        let key = (document.agreement().to_owned(), activity_of(document));
        let so_far = self.accepted.entry(key).or_default();
        *so_far = (*so_far).max(document.amount());
    }

    /// What is still to be paid for a document: notes of an activity add up, and the invoice
    /// contains what its notes have asked for.
    fn open_amount(&self, document: &Document) -> Amount {
        let activity = activity_of(document);
        let before = self
            .accepted
            .iter()
            .filter(|((agreement, a), _)| {
                agreement == document.agreement() && (activity.is_none() || *a == activity)
            })
            .filter_map(|((_, a), amount)| (a.is_some() || activity.is_none()).then_some(*amount))
            .fold(Amount::ZERO, |sum, amount| sum.checked_add(amount).unwrap_or(sum));
        document.amount().checked_sub(before).unwrap_or(Amount::ZERO)
    }

    fn pay(&mut self, document: &Document, amount: Amount) -> Result<Progress, PaymentError> {
        let (payer, payee) = document.addresses();
        let order = PaymentOrder {
            platform: document.platform().to_owned(),
            payer: payer.to_owned(),
            payee: payee.to_owned(),
            amount,
        };
        self.driver.pay(&order).map_err(|e| PaymentError::Invalid(e.to_string()))
    }
}

fn activity_of(document: &Document) -> Option<String> {
    match document {
        Document::DebitNote(d) => Some(d.activity_id.clone()),
        Document::Invoice(_) => None,
    }
}
