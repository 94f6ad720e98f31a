//! Agreements on the requestor's side.

use chrono::{DateTime, Utc};
use gvpn_identity::Signature;
use gvpn_model::{AgreementId, NodeId};

use super::{APPROVED, PROPOSED, TERMINATED, query::over};
use crate::{
    AgreementChange, AgreementState, MarketMessage, ProposalId, ProposalState, Reason, Side, Terms,
    engine::{Market, MarketError, micros, unknown},
};

impl Market {
    /// Writes an agreement on the provider's last proposal. Nothing is sent until
    /// [`confirm`](Self::confirm).
    ///
    /// # Errors
    /// [`MarketError`] if there is no such proposal, it is not the provider's answer to one's own,
    /// or an agreement was made of it already.
    pub fn create_agreement(
        &mut self,
        now: DateTime<Utc>,
        proposal: &str,
        valid_to: DateTime<Utc>,
    ) -> Result<AgreementId, MarketError> {
        let id = ProposalId::read(proposal).ok_or_else(|| unknown("proposal", proposal))?;
        let theirs = self.negotiations.get(&id).ok_or_else(|| unknown("proposal", proposal))?;
        let invalid =
            |text: &str| Err(MarketError::Invalid(format!("proposal `{proposal}` {text}")));
        match theirs.state {
            _ if theirs.side != Side::Requestor => return invalid("is not of a demand"),
            _ if theirs.issuer == self.me => return invalid("is your own: wait for the answer"),
            ProposalState::Initial => {
                return invalid("has not been negotiated: answer it, and agree on what comes back");
            }
            ProposalState::Accepted => {
                return Err(MarketError::Conflict(format!(
                    "an agreement was made of proposal `{proposal}` already"
                )));
            }
            ProposalState::Rejected | ProposalState::Expired => {
                return Err(MarketError::Gone(format!("proposal `{proposal}` is over")));
            }
            ProposalState::Draft => {}
        }
        if valid_to <= now {
            return Err(MarketError::Invalid("validTo is in the past".to_owned()));
        }
        let Some(mine) = theirs.answers.as_ref().and_then(|a| self.negotiations.get(a)) else {
            return invalid("answers no proposal of yours");
        };
        let agreement_id = AgreementId::random();
        let terms = Terms {
            agreement_id,
            demand: mine.as_demand(self.me),
            offer: theirs.as_offer(theirs.peer),
            valid_to: micros(valid_to),
            timestamp: micros(now),
        };
        self.write_down(terms, Side::Requestor, Some(id.clone()), AgreementState::Proposal)?;
        if let Some(negotiation) = self.negotiations.get_mut(&id) {
            negotiation.state = ProposalState::Accepted;
        }
        self.keep_negotiation(&id);
        Ok(agreement_id)
    }

    /// Signs an agreement and sends it to the provider.
    ///
    /// # Errors
    /// [`MarketError`] if it is not one of this requestor's, or not new.
    pub fn confirm(
        &mut self,
        now: DateTime<Utc>,
        id: AgreementId,
        session: Option<String>,
    ) -> Result<(), MarketError> {
        self.expire_agreements(now);
        let deal = self.deal(Side::Requestor, id)?;
        match deal.agreement.state {
            AgreementState::Proposal => {}
            AgreementState::Pending | AgreementState::Approved => {
                return Err(MarketError::Conflict(format!("agreement {id} is confirmed already")));
            }
            state => return Err(over(id, state)),
        }
        let demand = deal.agreement.demand.demand_id.clone();
        if deal.proposal.is_none() {
            return Err(unknown("proposal of agreement", id));
        }
        let to = deal.agreement.offer.provider_id;
        if self.has_better(&demand, to) || !self.may_have(now, &demand, to) {
            self.leave_alone(now, id, session);
            return Ok(());
        }
        self.touch(now, &demand);
        self.amend(id, |a| {
            a.state = AgreementState::Pending;
            a.app_session_id = session;
        });
        self.propose_agreement(id);
        Ok(())
    }

    /// Signs an agreement and sends it to the provider, who may have it already.
    pub(in crate::engine) fn propose_agreement(&mut self, id: AgreementId) {
        let Some(deal) = self.deals.get(&id) else { return };
        let Some(proposal) = deal.proposal.clone() else { return };
        let (terms, to) = (deal.terms.clone(), deal.agreement.offer.provider_id);
        let signature = self.identity.sign(PROPOSED, terms.as_bytes());
        self.amend(id, |a| a.proposed_signature = Some(hex::encode(signature.as_bytes())));
        self.send(to, MarketMessage::ProposeAgreement { proposal, terms, signature });
    }

    /// Takes an agreement back before the provider has answered.
    ///
    /// # Errors
    /// [`MarketError`] if it is not this requestor's, or has been answered.
    pub fn cancel(
        &mut self,
        now: DateTime<Utc>,
        id: AgreementId,
        reason: Option<Reason>,
    ) -> Result<(), MarketError> {
        let deal = self.deal(Side::Requestor, id)?;
        let to = deal.agreement.offer.provider_id;
        match deal.agreement.state {
            AgreementState::Proposal => {}
            AgreementState::Pending => self
                .send(to, MarketMessage::CancelAgreement { agreement: id, reason: reason.clone() }),
            AgreementState::Approved => {
                return Err(MarketError::Conflict(format!(
                    "agreement {id} is approved already: terminate it"
                )));
            }
            state => return Err(over(id, state)),
        }
        self.amend(id, |a| a.state = AgreementState::Cancelled);
        self.log(now, id, AgreementChange::AgreementCancelledEvent { reason });
        self.reconsider(now);
        Ok(())
    }

    /// The provider has come to work for another demand since it made its proposal: the client
    /// hears what it would hear from a provider that is busy, and takes another.
    fn leave_alone(&mut self, now: DateTime<Utc>, id: AgreementId, session: Option<String>) {
        self.amend(id, |a| {
            a.state = AgreementState::Rejected;
            a.app_session_id = session;
        });
        let reason = Reason::new(
            "this provider works for this node already, and another one that matches is free",
        );
        self.log(now, id, AgreementChange::AgreementRejectedEvent { reason: Some(reason) });
        let terms = self.deals.get(&id).map(|d| (&d.agreement.demand, &d.agreement.offer));
        if let Some((demand, offer)) = terms.map(|(d, o)| (d.demand_id.clone(), o.offer_id.clone()))
        {
            self.hold(&demand, &offer);
        }
    }

    /// The provider's approval came, but this node cannot go through with it: both sides treat the
    /// agreement as over.
    pub fn decline_approval(&mut self, now: DateTime<Utc>, id: AgreementId, reason: Reason) {
        let Ok(deal) = self.deal(Side::Requestor, id) else { return };
        if deal.agreement.state != AgreementState::Pending {
            return;
        }
        let to = deal.agreement.offer.provider_id;
        let reason = Some(reason);
        let signature = self.identity.sign(TERMINATED, id.as_bytes());
        let message =
            MarketMessage::TerminateAgreement { agreement: id, reason: reason.clone(), signature };
        self.send(to, message);
        self.on_agreement_rejected(now, to, id, reason);
    }

    pub(in crate::engine) fn on_approved(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        id: AgreementId,
        date: DateTime<Utc>,
        signature: &Signature,
    ) {
        let Some(deal) = self.deals.get(&id) else { return };
        if deal.side != Side::Requestor || deal.agreement.offer.provider_id != from {
            return;
        }
        let signed = signature.verify(from, APPROVED, deal.terms.as_bytes()).is_ok();
        match deal.agreement.state {
            AgreementState::Pending if signed => self.in_force(now, id, micros(date), signature),
            AgreementState::Approved | AgreementState::Proposal => {}
            _ => {
                let reason = Some(Reason::new("the agreement is no longer wanted"));
                let signature = self.identity.sign(TERMINATED, id.as_bytes());
                let message =
                    MarketMessage::TerminateAgreement { agreement: id, reason, signature };
                self.send(from, message);
            }
        }
    }

    pub(in crate::engine) fn on_agreement_rejected(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        id: AgreementId,
        reason: Option<Reason>,
    ) {
        let Some(deal) = self.deals.get(&id) else { return };
        let theirs = deal.side == Side::Requestor && deal.agreement.offer.provider_id == from;
        if theirs && deal.agreement.state == AgreementState::Pending {
            self.amend(id, |a| a.state = AgreementState::Rejected);
            self.log(now, id, AgreementChange::AgreementRejectedEvent { reason });
        }
    }
}
