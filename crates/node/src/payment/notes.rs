//! Documents that a provider writes by itself: debit notes while an agreement lasts, the invoice at
//! its end.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use gvpn_market::{Agreement, provider::price};
use gvpn_model::AgreementId;
use gvpn_payment::{Amount, Contract, Kind, NewDebitNote, NewInvoice, PaymentError};

use super::Payments;
use crate::{AgreementState, Usage};

/// The negotiated pause between debit notes; without it none are written.
const INTERVAL: &str = "golem.com.scheme.payu.debit-note.interval-sec?";
/// Notes are not written more often, whatever was negotiated.
const SHORTEST: f64 = 5.0;
/// Nor is a pause longer than a week told from none.
const LONGEST: f64 = 7.0 * 24.0 * 3600.0;

impl Payments {
    /// Writes debit notes for an agreement until it ends.
    pub(crate) fn follow(&self, agreement: &Agreement) {
        let Some(interval) = agreement.offer.draft.properties.number(INTERVAL) else { return };
        let interval = Duration::from_secs_f64(interval.clamp(SHORTEST, LONGEST));
        let this = self.clone();
        let agreement = agreement.clone();
        self.inner.core.spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                if !this.write_notes(&agreement).await {
                    return;
                }
            }
        });
    }

    /// Writes and sends the invoice of an agreement that has ended, once.
    pub(crate) fn settle(&self, contract: &Contract, activities: Vec<String>) {
        let due = Utc::now() + TimeDelta::seconds(120);
        let written = self.act(|ledger, now| {
            let new = NewInvoice {
                agreement_id: contract.agreement_id.clone(),
                activity_ids: Some(activities),
                amount: ledger.due(Amount::ZERO),
                payment_due_date: due,
            };
            let invoice = ledger.write_invoice(now, contract, new)?;
            ledger.send(Kind::Invoice, &invoice.invoice_id)
        });
        match written {
            // It has one already.
            Ok(()) | Err(PaymentError::Conflict(_)) => {}
            Err(error) => {
                tracing::error!(agreement = %contract.agreement_id, %error, "no invoice was written");
            }
        }
    }

    /// A note for each activity of the agreement; false once there can be no more.
    async fn write_notes(&self, agreement: &Agreement) -> bool {
        let id = agreement.agreement_id;
        let Some(contract) = self.contract(&id.to_string()) else { return false };
        if self.has_ended(id) {
            return false;
        }
        let running = self.inner.activities.hosted();
        for activity in running.into_iter().filter(|a| a.agreement == id && !a.is_over()) {
            let Ok(usage) = self.inner.activities.usage(activity.id).await else { continue };
            let note = self.write_note(&contract, agreement, activity.id.to_string(), &usage);
            if let Err(error) = note {
                tracing::warn!(agreement = %id, %error, "a debit note was not written");
            }
        }
        true
    }

    fn write_note(
        &self,
        contract: &Contract,
        agreement: &Agreement,
        activity_id: String,
        usage: &Usage,
    ) -> Result<(), PaymentError> {
        let cost = price(&agreement.offer.draft.properties, &usage.current_usage);
        let cost = cost.and_then(|c| format!("{c:.18}").parse().ok()).unwrap_or(Amount::ZERO);
        self.act(|ledger, now| {
            let new = NewDebitNote {
                activity_id,
                total_amount_due: ledger.due(cost),
                usage_counter_vector: Some(usage.current_usage.clone().into()),
                payment_due_date: None,
            };
            let note = ledger.write_debit_note(now, contract, new)?;
            ledger.send(Kind::DebitNote, &note.debit_note_id)
        })
    }

    fn has_ended(&self, id: AgreementId) -> bool {
        let contract = self.inner.agreements.get(id);
        !matches!(contract, Ok(c) if c.state == AgreementState::Approved)
    }
}
