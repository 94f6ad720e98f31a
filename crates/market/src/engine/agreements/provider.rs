//! Agreements on the provider's side.

use chrono::{DateTime, Utc};
use gvpn_identity::Signature;
use gvpn_model::{AgreementId, NodeId};

use super::{APPROVED, PROPOSED, query::over};
use crate::{
    AgreementChange, AgreementState, MarketEvent, MarketMessage, ProposalId, ProposalState, Reason,
    Side, Terms,
    engine::{Deal, Market, MarketError, micros},
};

impl Market {
    /// Agrees, as the provider.
    ///
    /// # Errors
    /// [`MarketError`] if the agreement does not wait for this provider's approval.
    pub fn approve(
        &mut self,
        now: DateTime<Utc>,
        id: AgreementId,
        session: Option<String>,
    ) -> Result<(), MarketError> {
        self.expire_agreements(now);
        let deal = self.deal(Side::Provider, id)?;
        match deal.agreement.state {
            AgreementState::Pending => {}
            AgreementState::Approved => {
                return Err(MarketError::Conflict(format!("agreement {id} is approved already")));
            }
            state => return Err(over(id, state)),
        }
        let (to, date) = (deal.agreement.demand.requestor_id, micros(now));
        let signature = self.identity.sign(APPROVED, deal.terms.as_bytes());
        let message =
            MarketMessage::ApproveAgreement { agreement: id, date, signature: signature.clone() };
        self.send(to, message);
        self.amend(id, |a| a.app_session_id = session);
        self.in_force(now, id, date, &signature);
        Ok(())
    }

    /// Turns an agreement down, as the provider.
    ///
    /// # Errors
    /// As [`approve`](Self::approve).
    pub fn reject_agreement(
        &mut self,
        now: DateTime<Utc>,
        id: AgreementId,
        reason: Option<Reason>,
    ) -> Result<(), MarketError> {
        let deal = self.deal(Side::Provider, id)?;
        match deal.agreement.state {
            AgreementState::Pending => {}
            AgreementState::Approved => {
                return Err(MarketError::Conflict(format!(
                    "agreement {id} is approved already: terminate it"
                )));
            }
            state => return Err(over(id, state)),
        }
        let to = deal.agreement.demand.requestor_id;
        let message = MarketMessage::RejectAgreement { agreement: id, reason: reason.clone() };
        self.send(to, message);
        self.amend(id, |a| a.state = AgreementState::Rejected);
        self.log(now, id, AgreementChange::AgreementRejectedEvent { reason });
        Ok(())
    }

    pub(in crate::engine) fn on_agreement_proposed(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        proposal: &ProposalId,
        terms: &str,
        signature: &Signature,
    ) {
        let Ok(parsed) = serde_json::from_str::<Terms>(terms) else { return };
        let id = parsed.agreement_id;
        let known = self.deals.get(&id).filter(|d| d.agreement.party(Side::Requestor) == from);
        if known.is_some_and(|d| d.side == Side::Provider && d.terms == terms) {
            return self.say_again(from, id);
        }
        if let Err(reason) = self.admit_agreement(now, from, proposal, terms, parsed, signature) {
            let reason = Some(Reason::new(reason));
            self.send(from, MarketMessage::RejectAgreement { agreement: id, reason });
        }
    }

    pub(in crate::engine) fn on_cancelled(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        id: AgreementId,
        reason: Option<Reason>,
    ) {
        let Some(deal) = self.deals.get(&id) else { return };
        let theirs = deal.side == Side::Provider && deal.agreement.demand.requestor_id == from;
        if theirs && deal.agreement.state == AgreementState::Pending {
            self.amend(id, |a| a.state = AgreementState::Cancelled);
            self.log(now, id, AgreementChange::AgreementCancelledEvent { reason });
        }
    }

    /// The requestor was started anew and does not know whether its agreement arrived, or has not
    /// heard the answer.
    fn say_again(&mut self, to: NodeId, id: AgreementId) {
        let Some(Deal { agreement, terms, .. }) = self.deals.get(&id) else { return };
        let message = match (agreement.state, agreement.approved_date) {
            (AgreementState::Pending, _) => return,
            (AgreementState::Approved, Some(date)) => {
                let signature = self.identity.sign(APPROVED, terms.as_bytes());
                MarketMessage::ApproveAgreement { agreement: id, date, signature }
            }
            (state, _) => {
                let reason = Some(Reason::new(over(id, state).to_string()));
                MarketMessage::RejectAgreement { agreement: id, reason }
            }
        };
        self.send(to, message);
    }

    /// After a restart nobody remembers what a provider's client was to decide.
    pub(in crate::engine) fn refuse_what_was_pending(&mut self, now: DateTime<Utc>) {
        let pending: Vec<_> = self
            .deals
            .values()
            .filter(|d| d.side == Side::Provider && d.agreement.state == AgreementState::Pending)
            .map(|d| d.agreement.agreement_id)
            .collect();
        for id in pending {
            // Its state was just checked.
            let _ = self.reject_agreement(now, id, Some(Reason::new("the provider restarted")));
        }
    }

    fn admit_agreement(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        proposal: &ProposalId,
        text: &str,
        terms: Terms,
        signature: &Signature,
    ) -> Result<(), String> {
        if self.deals.contains_key(&terms.agreement_id) {
            return Err("there is an agreement with this id".to_owned());
        }
        if signature.verify(from, PROPOSED, text.as_bytes()).is_err() {
            return Err("the terms are not signed by the requestor".to_owned());
        }
        let mine = self
            .negotiations
            .get(proposal)
            .filter(|n| n.side == Side::Provider && n.peer == from && n.issuer == self.me)
            .ok_or("the proposal that the agreement is made of is not known")?;
        let theirs = mine.answers.as_ref().and_then(|a| self.negotiations.get(a));
        let theirs = theirs.ok_or("the proposal that the agreement is made of is not known")?;
        if mine.state != ProposalState::Draft {
            return Err("the proposal is no longer open".to_owned());
        }
        if terms.offer != mine.as_offer(self.me) || terms.demand != theirs.as_demand(from) {
            return Err("the terms are not those of the last proposals".to_owned());
        }
        if terms.valid_to <= now {
            return Err("the agreement has expired: check the clock".to_owned());
        }
        let subscription = mine.subscription.clone();
        self.subscription(Side::Provider, &subscription).map_err(|e| e.to_string())?;
        let id = terms.agreement_id;
        self.write_down(terms, Side::Provider, Some(proposal.clone()), AgreementState::Pending)
            .map_err(|e| e.to_string())?;
        if let Some(deal) = self.deals.get_mut(&id) {
            // The requestor signed its own rendering of the terms.
            text.clone_into(&mut deal.terms);
        }
        self.amend(id, |a| a.proposed_signature = Some(hex::encode(signature.as_bytes())));
        if let Some(negotiation) = self.negotiations.get_mut(proposal) {
            negotiation.state = ProposalState::Accepted;
        }
        self.keep_negotiation(proposal);
        let event = self.deals.get(&id).map(|deal| MarketEvent::AgreementEvent {
            event_date: micros(now),
            agreement: Box::new(deal.agreement.clone()),
        });
        if let (Some(subscription), Some(event)) =
            (self.subscriptions.get_mut(&subscription), event)
        {
            subscription.push(event);
        }
        Ok(())
    }
}
