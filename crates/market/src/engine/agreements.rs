//! Agreements: made, approved, ended.

use chrono::{DateTime, Utc};
use gvpn_identity::Signature;
use gvpn_model::{AgreementId, LongPoll, NodeId};

use super::{Deal, Market, MarketError, Negotiation, Notice, micros, unknown};
use crate::{
    Agreement, AgreementChange, AgreementEvent, AgreementListEntry, AgreementState, Demand,
    MarketEvent, MarketMessage, Offer, ProposalId, ProposalState, Reason, Side, Terms,
};

const PROPOSED: &str = "gvpn agreement proposed v1";
const APPROVED: &str = "gvpn agreement approved v1";
const TERMINATED: &str = "gvpn agreement terminated v1";

/// Which agreements to list; all where nothing is set.
#[derive(Debug, Clone, Default)]
pub struct AgreementFilter {
    /// In this state.
    pub state: Option<AgreementState>,
    /// Written before.
    pub before: Option<DateTime<Utc>>,
    /// Written after.
    pub after: Option<DateTime<Utc>>,
    /// Of this client session.
    pub session: Option<String>,
}

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
        let proposal = deal.proposal.clone().ok_or_else(|| unknown("proposal of agreement", id))?;
        let (terms, to) = (deal.terms.clone(), deal.agreement.offer.provider_id);
        let signature = self.identity.sign(PROPOSED, terms.as_bytes());
        self.amend(id, |a| {
            a.state = AgreementState::Pending;
            a.app_session_id = session;
            a.proposed_signature = Some(hex::encode(signature.as_bytes()));
        });
        self.send(to, MarketMessage::ProposeAgreement { proposal, terms, signature });
        Ok(())
    }

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
        let signature = self.identity.sign(APPROVED, deal.terms.as_bytes());
        let (to, date) = (deal.agreement.demand.requestor_id, micros(now));
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
        Ok(())
    }

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

    /// One agreement.
    ///
    /// # Errors
    /// [`MarketError::Unknown`].
    pub fn agreement(&self, id: AgreementId) -> Result<&Agreement, MarketError> {
        self.deals.get(&id).map(|d| &d.agreement).ok_or_else(|| unknown("agreement", id))
    }

    /// This node's side of an agreement.
    pub fn side(&self, id: AgreementId) -> Option<Side> {
        self.deals.get(&id).map(|d| d.side)
    }

    /// The agreements that pass the filter.
    pub fn agreements(&self, filter: &AgreementFilter) -> Vec<AgreementListEntry> {
        self.deals
            .values()
            .filter(|Deal { agreement: a, .. }| {
                filter.state.is_none_or(|s| s == a.state)
                    && filter.before.is_none_or(|t| a.timestamp < t)
                    && filter.after.is_none_or(|t| a.timestamp > t)
                    && (filter.session.is_none() || filter.session == a.app_session_id)
            })
            .map(|Deal { agreement: a, side, .. }| AgreementListEntry {
                id: a.agreement_id,
                timestamp: a.timestamp,
                approved_date: a.approved_date,
                role: *side,
            })
            .collect()
    }

    /// What a client that waits for the provider's answer until `deadline` gets: `Ok` once it is
    /// approved, an empty answer when the time is up.
    ///
    /// # Errors
    /// [`MarketError::Gone`] when the answer is no, or none can come any more.
    pub fn await_approval(
        &self,
        now: DateTime<Utc>,
        id: AgreementId,
        deadline: DateTime<Utc>,
    ) -> Result<LongPoll<AgreementState>, MarketError> {
        let agreement = &self.deal(Side::Requestor, id)?.agreement;
        match agreement.state {
            AgreementState::Approved => Ok(LongPoll::Answer(vec![AgreementState::Approved])),
            AgreementState::Pending if agreement.valid_to > now => {
                let found = Vec::new();
                Ok(LongPoll::decide(found, now, deadline.min(agreement.valid_to)))
            }
            AgreementState::Pending => Err(over(id, AgreementState::Expired)),
            AgreementState::Proposal => {
                Err(MarketError::Conflict(format!("agreement {id} is not confirmed yet")))
            }
            state => Err(self.why_over(id, state)),
        }
    }

    /// At most `max` events about agreements dated later than `after`, for a client that waits
    /// until `deadline`; those of one client session only, if it says which.
    pub fn agreement_events(
        &self,
        now: DateTime<Utc>,
        after: Option<DateTime<Utc>>,
        max: usize,
        session: Option<&str>,
        deadline: DateTime<Utc>,
    ) -> LongPoll<AgreementEvent> {
        let of_session = |id: &AgreementId| {
            let agreement = self.deals.get(id).map(|d| &d.agreement);
            session.is_none() || agreement.is_some_and(|a| a.app_session_id.as_deref() == session)
        };
        let events = self
            .events
            .after(after, max, |(id, _)| of_session(id))
            .map(|(event_date, (agreement_id, change))| AgreementEvent {
                event_date,
                agreement_id: *agreement_id,
                change: change.clone(),
            })
            .collect();
        LongPoll::decide(events, now, deadline)
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

    /// Agreements in force, with this node's side.
    pub fn in_force_now(&self) -> impl Iterator<Item = (&Agreement, Side)> {
        self.deals
            .values()
            .filter(|d| d.agreement.state == AgreementState::Approved)
            .map(|d| (&d.agreement, d.side))
    }

    pub(super) fn on_agreement_proposed(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        proposal: &ProposalId,
        terms: &str,
        signature: &Signature,
    ) {
        let Ok(parsed) = serde_json::from_str::<Terms>(terms) else { return };
        let id = parsed.agreement_id;
        if let Err(reason) = self.admit_agreement(now, from, proposal, terms, parsed, signature) {
            let reason = Some(Reason::new(reason));
            self.send(from, MarketMessage::RejectAgreement { agreement: id, reason });
        }
    }

    pub(super) fn on_approved(
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

    pub(super) fn on_agreement_rejected(
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
            self.offer_again(now, id);
        }
    }

    pub(super) fn on_cancelled(
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

    pub(super) fn on_terminated(
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
        if theirs && deal.agreement.state == AgreementState::Approved {
            self.ended(now, id, by, signature, reason);
        }
    }

    pub(super) fn expire_agreements(&mut self, now: DateTime<Utc>) {
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

    /// After a restart nobody remembers what a provider's client was to decide.
    pub(super) fn refuse_what_was_pending(&mut self, now: DateTime<Utc>) {
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
        self.offer_again(now, id);
    }

    /// The provider of an agreement that is over may work for the same demand again.
    fn offer_again(&mut self, now: DateTime<Utc>, id: AgreementId) {
        let Some(deal) = self.deals.get(&id) else { return };
        if deal.side == Side::Requestor {
            let demand = deal.agreement.demand.demand_id.clone();
            self.offer_all_to(now, &demand);
        }
    }

    fn amend(&mut self, id: AgreementId, change: impl FnOnce(&mut Agreement)) {
        if let Some(deal) = self.deals.get_mut(&id) {
            change(&mut deal.agreement);
            self.keep(id);
        }
    }

    fn deal(&self, side: Side, id: AgreementId) -> Result<&Deal, MarketError> {
        self.deals.get(&id).filter(|d| d.side == side).ok_or_else(|| unknown("agreement", id))
    }

    /// As [`over`], with the reason that was given.
    fn why_over(&self, id: AgreementId, state: AgreementState) -> MarketError {
        let mut why = self.events.after(None, usize::MAX, |(of, _)| *of == id).filter_map(
            |(_, (_, change))| match change {
                AgreementChange::AgreementRejectedEvent { reason }
                | AgreementChange::AgreementCancelledEvent { reason }
                | AgreementChange::AgreementTerminatedEvent { reason, .. } => reason.as_ref(),
                AgreementChange::AgreementApprovedEvent => None,
            },
        );
        match why.next() {
            Some(reason) => MarketError::Gone(format!(
                "agreement {id} is {}: {}",
                name(state),
                reason.message()
            )),
            None => over(id, state),
        }
    }
}

impl Negotiation {
    /// The offer with what the provider said last.
    fn as_offer(&self, provider: NodeId) -> Offer {
        Offer {
            offer_id: self.offer.clone(),
            provider_id: provider,
            timestamp: self.offer_made,
            draft: self.draft.clone(),
        }
    }

    /// The demand with what the requestor said last.
    fn as_demand(&self, requestor: NodeId) -> Demand {
        Demand {
            demand_id: self.demand.clone(),
            requestor_id: requestor,
            timestamp: self.demand_made,
            draft: self.draft.clone(),
        }
    }
}

fn over(id: AgreementId, state: AgreementState) -> MarketError {
    MarketError::Gone(format!("agreement {id} is {}", name(state)))
}

fn name(state: AgreementState) -> &'static str {
    match state {
        AgreementState::Proposal => "not sent",
        AgreementState::Pending => "waiting for the provider",
        AgreementState::Cancelled => "cancelled",
        AgreementState::Rejected => "rejected by the provider",
        AgreementState::Approved => "in force",
        AgreementState::Expired => "expired: the provider did not approve it in time",
        AgreementState::Terminated => "terminated",
    }
}
