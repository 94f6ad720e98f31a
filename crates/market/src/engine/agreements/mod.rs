//! Agreements: made, approved, ended.

mod provider;
mod query;
mod requestor;

use chrono::{DateTime, Utc};
use gvpn_identity::Signature;
use gvpn_model::{AgreementId, NodeId};

use super::{Deal, Market, MarketError, Negotiation, Notice, unknown};
use crate::{
    Agreement, AgreementChange, AgreementState, Demand, MarketMessage, Offer, ProposalId, Reason,
    Side, Terms,
};
pub use query::AgreementFilter;
use query::over;

const PROPOSED: &str = "gvpn agreement proposed v1";
const APPROVED: &str = "gvpn agreement approved v1";
const TERMINATED: &str = "gvpn agreement terminated v1";

impl Market {
    /// Ends an agreement that is in force.
    ///
    /// # Errors
    /// [`MarketError`] if it is not this node's, or not in force.
    pub fn terminate(
        &mut self,
        now: DateTime<Utc>,
        id: AgreementId,
        reason: Option<Reason>,
    ) -> Result<(), MarketError> {
        let deal = self.deals.get(&id).ok_or_else(|| unknown("agreement", id))?;
        match deal.agreement.state {
            AgreementState::Approved => {}
            AgreementState::Proposal | AgreementState::Pending => {
                return Err(MarketError::Conflict(format!(
                    "agreement {id} is not in force: cancel it"
                )));
            }
            state => return Err(over(id, state)),
        }
        let (side, to) = (deal.side, deal.agreement.party(deal.side.other()));
        let signature = self.identity.sign(TERMINATED, id.as_bytes());
        let message = MarketMessage::TerminateAgreement {
            agreement: id,
            reason: reason.clone(),
            signature: signature.clone(),
        };
        self.send(to, message);
        self.ended(now, id, side, &signature, reason);
        Ok(())
    }

    pub(in crate::engine) fn on_terminated(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        id: AgreementId,
        reason: Option<Reason>,
        signature: &Signature,
    ) {
        let Some(deal) = self.deals.get(&id) else { return };
        let by = deal.side.other();
        let theirs = deal.agreement.party(by) == from
            && signature.verify(from, TERMINATED, id.as_bytes()).is_ok();
        match deal.agreement.state {
            AgreementState::Approved if theirs => self.ended(now, id, by, signature, reason),
            // Its approval did not arrive.
            AgreementState::Pending if theirs => self.on_agreement_rejected(now, from, id, reason),
            _ => {}
        }
    }

    pub(in crate::engine) fn expire_agreements(&mut self, now: DateTime<Utc>) {
        let expired: Vec<_> = self
            .deals
            .values()
            .map(|d| &d.agreement)
            .filter(|a| {
                matches!(a.state, AgreementState::Proposal | AgreementState::Pending)
                    && a.valid_to <= now
            })
            .map(|a| a.agreement_id)
            .collect();
        for id in expired {
            self.amend(id, |a| a.state = AgreementState::Expired);
        }
    }

    fn write_down(
        &mut self,
        terms: Terms,
        side: Side,
        proposal: Option<ProposalId>,
        state: AgreementState,
    ) -> Result<(), MarketError> {
        let text = serde_json::to_string(&terms)
            .map_err(|e| MarketError::Invalid(format!("the terms cannot be written: {e}")))?;
        let agreement = Agreement {
            agreement_id: terms.agreement_id,
            demand: terms.demand,
            offer: terms.offer,
            valid_to: terms.valid_to,
            approved_date: None,
            state,
            timestamp: terms.timestamp,
            app_session_id: None,
            proposed_signature: None,
            approved_signature: None,
        };
        let id = agreement.agreement_id;
        self.deals.insert(id, Deal { agreement, side, terms: text, proposal });
        self.keep(id);
        Ok(())
    }

    fn in_force(
        &mut self,
        now: DateTime<Utc>,
        id: AgreementId,
        date: DateTime<Utc>,
        signature: &Signature,
    ) {
        self.amend(id, |a| {
            a.state = AgreementState::Approved;
            a.approved_date = Some(date);
            a.approved_signature = Some(hex::encode(signature.as_bytes()));
        });
        self.log(now, id, AgreementChange::AgreementApprovedEvent);
        if let Some(deal) = self.deals.get(&id) {
            let agreement = Box::new(deal.agreement.clone());
            self.notices.push_back(Notice::Approved { agreement, side: deal.side });
        }
    }

    fn ended(
        &mut self,
        now: DateTime<Utc>,
        id: AgreementId,
        by: Side,
        signature: &Signature,
        reason: Option<Reason>,
    ) {
        self.amend(id, |a| a.state = AgreementState::Terminated);
        let signature = hex::encode(signature.as_bytes());
        let change = AgreementChange::AgreementTerminatedEvent {
            terminator: by,
            signature,
            reason: reason.clone(),
        };
        self.log(now, id, change);
        if let Some(deal) = self.deals.get(&id) {
            let (agreement, side) = (Box::new(deal.agreement.clone()), deal.side);
            self.notices.push_back(Notice::Terminated { agreement, side, by, reason });
        }
        self.offer_again(id);
        self.reconsider(now);
    }

    /// The provider of an agreement that is over may work for the same demand again.
    fn offer_again(&mut self, id: AgreementId) {
        let Some(Deal { agreement, side: Side::Requestor, .. }) = self.deals.get(&id) else {
            return;
        };
        let (demand, offer) = (&agreement.demand.demand_id, &agreement.offer.offer_id);
        let (demand, offer) = (demand.clone(), offer.clone());
        self.hold(&demand, &offer);
    }

    fn amend(&mut self, id: AgreementId, change: impl FnOnce(&mut Agreement)) {
        if let Some(deal) = self.deals.get_mut(&id) {
            change(&mut deal.agreement);
            self.keep(id);
        }
    }
}

impl Negotiation {
    /// The offer with what the provider said last.
    pub(super) fn as_offer(&self, provider: NodeId) -> Offer {
        Offer {
            offer_id: self.offer.clone(),
            provider_id: provider,
            timestamp: self.offer_made,
            draft: self.draft.clone(),
        }
    }

    /// The demand with what the requestor said last.
    pub(super) fn as_demand(&self, requestor: NodeId) -> Demand {
        Demand {
            demand_id: self.demand.clone(),
            requestor_id: requestor,
            timestamp: self.demand_made,
            draft: self.draft.clone(),
        }
    }
}
