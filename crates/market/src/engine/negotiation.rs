//! Proposals and their answers.

use chrono::{DateTime, Utc};
use gvpn_model::NodeId;
use serde::{Deserialize, Serialize};

use super::{MAX_NEGOTIATIONS_PER_NODE, Market, MarketError, Record, micros, unknown};
use crate::{
    Draft, MarketEvent, MarketMessage, Proposal, ProposalId, ProposalState, Reason, Side,
    SubscriptionId, WireProposal,
};

/// A proposal and what has become of it. Only the market looks inside.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Negotiation {
    pub(super) subscription: SubscriptionId,
    pub(super) side: Side,
    pub(super) peer: NodeId,
    pub(super) issuer: NodeId,
    pub(super) answers: Option<ProposalId>,
    pub(super) answered: bool,
    pub(super) state: ProposalState,
    /// Why it was turned down.
    pub(super) why: Option<Reason>,
    /// Whether the client has collected what it is to hear of it.
    pub(super) told: bool,
    /// The offer is off its provider's sheet; who has heard of it may still answer it.
    pub(super) retired: bool,
    pub(super) made: DateTime<Utc>,
    pub(super) draft: Draft,
    pub(super) offer: SubscriptionId,
    pub(super) offer_made: DateTime<Utc>,
    pub(super) demand: SubscriptionId,
    pub(super) demand_made: DateTime<Utc>,
    /// Whether there is a record of it.
    #[serde(skip)]
    pub(super) kept: bool,
}

impl Negotiation {
    /// Whether it ends by itself some time after its last message. A proposal of an offer that
    /// stands does not.
    pub(super) fn passes(&self) -> bool {
        self.state != ProposalState::Initial || self.retired
    }

    /// Whether an agreement can be made of it, or was, also when its demand has ended.
    pub(super) fn outlives_its_subscription(&self) -> bool {
        matches!(self.state, ProposalState::Draft | ProposalState::Accepted)
    }

    pub(super) fn to_proposal(&self, id: &ProposalId) -> Proposal {
        Proposal {
            proposal_id: id.seen_from(self.side),
            issuer_id: self.issuer,
            state: self.state,
            timestamp: self.made,
            prev_proposal_id: self.answers.as_ref().map(|p| p.seen_from(self.side)),
            draft: self.draft.clone(),
        }
    }
}

impl Market {
    /// One proposal of a subscription.
    ///
    /// # Errors
    /// [`MarketError::Unknown`].
    pub fn proposal(
        &self,
        side: Side,
        subscription: &SubscriptionId,
        proposal: &str,
    ) -> Result<Proposal, MarketError> {
        let (id, negotiation) = self.negotiation(side, subscription, proposal)?;
        Ok(negotiation.to_proposal(&id))
    }

    /// Answers a proposal of the other side with one's own.
    ///
    /// # Errors
    /// [`MarketError`] if there is no such proposal, or it cannot be answered any more.
    pub fn counter(
        &mut self,
        now: DateTime<Utc>,
        side: Side,
        subscription: &SubscriptionId,
        proposal: &str,
        draft: Draft,
    ) -> Result<String, MarketError> {
        draft.parse_constraints()?;
        let (answers, old) = self.negotiation(side, subscription, proposal)?;
        old.check_open(self.me, proposal)?;
        let negotiation = Negotiation {
            subscription: subscription.clone(),
            issuer: self.me,
            answers: Some(answers.clone()),
            answered: false,
            state: ProposalState::Draft,
            why: None,
            told: false,
            retired: false,
            made: micros(now),
            draft,
            offer: old.offer.clone(),
            demand: old.demand.clone(),
            kept: false,
            ..*old
        };
        let id = ProposalId::from_bytes(self.ids.next());
        self.mark_answered(&answers);
        self.touch(now, subscription);
        self.negotiations.insert(id.clone(), negotiation);
        self.keep_negotiation(&id);
        self.propose(&id);
        Ok(id.seen_from(side))
    }

    /// Sends a proposal of this node to the other side.
    pub(super) fn propose(&mut self, id: &ProposalId) {
        let Some(mine) = self.negotiations.get(id) else { return };
        // The provider does not know that its offer was proposed.
        let known = |answers: &&ProposalId| {
            let theirs = self.negotiations.get(*answers);
            mine.side == Side::Provider || theirs.is_some_and(|n| n.answers.is_some())
        };
        let wire = WireProposal {
            id: id.clone(),
            answers: mine.answers.as_ref().filter(known).cloned(),
            offer: mine.offer.clone(),
            demand: mine.demand.clone(),
            demand_made: mine.demand_made,
            made: mine.made,
            draft: mine.draft.clone(),
        };
        self.send(mine.peer, MarketMessage::Propose(wire));
    }

    /// Turns a proposal of the other side down.
    ///
    /// # Errors
    /// [`MarketError`] if there is no such proposal, or it cannot be answered any more.
    pub fn reject(
        &mut self,
        side: Side,
        subscription: &SubscriptionId,
        proposal: &str,
        reason: Option<Reason>,
    ) -> Result<(), MarketError> {
        let (id, negotiation) = self.negotiation(side, subscription, proposal)?;
        negotiation.check_open(self.me, proposal)?;
        // The provider does not know that its offer was proposed; it knows its own proposals.
        if negotiation.state != ProposalState::Initial {
            let peer = negotiation.peer;
            let reason = reason.clone();
            self.send(peer, MarketMessage::RejectProposal { proposal: id.clone(), reason });
        }
        if let Some(negotiation) = self.negotiations.get_mut(&id) {
            negotiation.state = ProposalState::Rejected;
            negotiation.why = reason;
        }
        self.keep_negotiation(&id);
        Ok(())
    }

    pub(super) fn on_propose(&mut self, now: DateTime<Utc>, from: NodeId, wire: WireProposal) {
        let id = wire.id.clone();
        if let Err(reason) = self.admit(now, from, wire) {
            let reason = Some(Reason::new(reason));
            self.send(from, MarketMessage::RejectProposal { proposal: id, reason });
        }
    }

    pub(super) fn on_proposal_rejected(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        proposal: &ProposalId,
        reason: Option<Reason>,
    ) {
        let Some(negotiation) = self.negotiations.get_mut(proposal) else { return };
        let open = matches!(negotiation.state, ProposalState::Draft);
        if negotiation.peer != from || negotiation.issuer != self.me || !open {
            return;
        }
        negotiation.state = ProposalState::Rejected;
        negotiation.why.clone_from(&reason);
        let event = MarketEvent::ProposalRejectedEvent {
            event_date: micros(now),
            proposal_id: proposal.seen_from(negotiation.side),
            reason,
        };
        if let Some(subscription) = self.subscriptions.get_mut(&negotiation.subscription) {
            subscription.push(event);
        }
        self.keep_negotiation(proposal);
    }

    /// Takes a proposal of another node in, or says why not.
    fn admit(
        &mut self,
        now: DateTime<Utc>,
        from: NodeId,
        wire: WireProposal,
    ) -> Result<(), String> {
        if self.negotiations.get(&wire.id).is_some_and(|n| n.peer == from && n.issuer == from) {
            self.answer_again(&wire.id);
            return Ok(());
        }
        let (side, id) =
            self.addressed_to(&wire).ok_or("the offer or demand is no longer there")?;
        let previous = match &wire.answers {
            Some(answers) => {
                let previous = self.negotiations.get(answers).filter(|p| {
                    p.peer == from && p.issuer == self.me && p.subscription == id && p.side == side
                });
                Some(previous.ok_or("it answers a proposal that is not known")?)
            }
            None if side == Side::Requestor => {
                return Err("an offer is proposed by publishing it".to_owned());
            }
            None => None,
        };
        if previous.is_some_and(|p| p.answered || p.state != ProposalState::Draft) {
            return Err("it answers a proposal that is no longer open".to_owned());
        }
        if self.negotiations.contains_key(&wire.id) {
            return Err("it has the id of another proposal".to_owned());
        }
        let subscription = self.subscription(side, &id).map_err(|e| e.to_string())?;
        wire.draft.parse_constraints().map_err(|e| e.to_string())?;
        if side == Side::Provider {
            let unmet = subscription.constraint.exclusions(&wire.draft.properties);
            if let Some(first) = unmet.first() {
                return Err(format!("the demand does not meet the offer's constraint {first}"));
            }
        }
        let (offer_made, demand_made) = match (side, previous) {
            (_, Some(previous)) => (previous.offer_made, previous.demand_made),
            (_, None) => (subscription.made, wire.demand_made),
        };
        let negotiation = Negotiation {
            subscription: id.clone(),
            side,
            peer: from,
            issuer: from,
            answers: wire.answers.clone(),
            answered: false,
            state: ProposalState::Draft,
            why: None,
            told: false,
            retired: false,
            made: micros(now),
            draft: wire.draft,
            offer: wire.offer,
            offer_made,
            demand: wire.demand,
            demand_made,
            kept: false,
        };
        self.make_room_for(from);
        self.touch(now, &id);
        if let Some(answers) = &wire.answers {
            self.mark_answered(answers);
        }
        let event = MarketEvent::ProposalEvent {
            event_date: micros(now),
            proposal: negotiation.to_proposal(&wire.id),
        };
        self.negotiations.insert(wire.id.clone(), negotiation);
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.push(event);
        }
        self.keep_negotiation(&wire.id);
        Ok(())
    }

    /// The other side was started anew and does not know whether its proposal arrived, or has not
    /// heard the answer.
    fn answer_again(&mut self, theirs: &ProposalId) {
        let answer = self.negotiations.iter_mut().find(|(_, n)| {
            n.answers.as_ref() == Some(theirs)
                && n.issuer == self.me
                && matches!(n.state, ProposalState::Draft | ProposalState::Rejected)
        });
        if let Some((id, answer)) = answer {
            // Whoever asks again has not turned it down: it did not arrive.
            answer.state = ProposalState::Draft;
            let id = id.clone();
            self.keep_negotiation(&id);
            return self.propose(&id);
        }
        let Some(n) = self.negotiations.get(theirs) else { return };
        if n.state == ProposalState::Rejected {
            let (peer, reason) = (n.peer, n.why.clone());
            let proposal = theirs.clone();
            self.send(peer, MarketMessage::RejectProposal { proposal, reason });
        }
    }

    /// Which of this node's subscriptions a proposal is meant for, and that subscription's side.
    fn addressed_to(&self, wire: &WireProposal) -> Option<(Side, SubscriptionId)> {
        [(Side::Provider, &wire.offer), (Side::Requestor, &wire.demand)]
            .into_iter()
            .find(|(side, id)| self.subscription(*side, id).is_ok())
            .map(|(side, id)| (side, id.clone()))
    }

    /// Drops the oldest negotiations of a node that has too many open here.
    fn make_room_for(&mut self, peer: NodeId) {
        let open = |n: &Negotiation| n.peer == peer && n.state == ProposalState::Draft;
        if self.negotiations.values().filter(|n| open(n)).count() < MAX_NEGOTIATIONS_PER_NODE {
            return;
        }
        let oldest = self
            .negotiations
            .iter()
            .filter(|(_, n)| open(n))
            .min_by_key(|(_, n)| n.made)
            .map(|(id, _)| id.clone());
        if let Some(oldest) = oldest
            && let Some(Negotiation { kept: true, .. }) = self.negotiations.remove(&oldest)
        {
            self.records.push_back(Record::NegotiationEnded(oldest));
        }
    }

    /// Has a proposal survive a restart as it stands now, if its offer or demand does.
    pub(super) fn keep_negotiation(&mut self, id: &ProposalId) {
        let Some(negotiation) = self.negotiations.get_mut(id) else { return };
        let subscription = self.subscriptions.get(&negotiation.subscription);
        negotiation.kept |= subscription.is_some_and(|s| s.lasting);
        if negotiation.kept {
            let (proposal, negotiation) = (id.clone(), Box::new(negotiation.clone()));
            self.records.push_back(Record::Negotiation { proposal, negotiation });
        }
    }

    pub(super) fn drop_negotiations(&mut self, over: impl Fn(&Negotiation) -> bool) {
        let records = &mut self.records;
        self.negotiations.retain(|id, negotiation| {
            let over = over(negotiation);
            if over && negotiation.kept {
                records.push_back(Record::NegotiationEnded(id.clone()));
            }
            !over
        });
    }

    pub(super) fn negotiation(
        &self,
        side: Side,
        subscription: &SubscriptionId,
        proposal: &str,
    ) -> Result<(ProposalId, &Negotiation), MarketError> {
        self.subscription(side, subscription)?;
        let id = ProposalId::read(proposal).ok_or_else(|| unknown("proposal", proposal))?;
        match self.negotiations.get(&id).filter(|n| n.subscription == *subscription) {
            Some(negotiation) => Ok((id, negotiation)),
            None => Err(unknown("proposal", proposal)),
        }
    }

    fn mark_answered(&mut self, id: &ProposalId) {
        if let Some(negotiation) = self.negotiations.get_mut(id) {
            negotiation.answered = true;
            negotiation.told = true;
        }
        self.keep_negotiation(id);
    }
}

impl Negotiation {
    /// Whether `me` may still answer the proposal.
    fn check_open(&self, me: NodeId, id: &str) -> Result<(), MarketError> {
        if self.issuer == me {
            return Err(MarketError::Invalid(format!(
                "proposal `{id}` is your own: answer one of the other side's"
            )));
        }
        if self.answered {
            return Err(MarketError::Conflict(format!("proposal `{id}` is answered already")));
        }
        match self.state {
            ProposalState::Initial | ProposalState::Draft => Ok(()),
            ProposalState::Rejected => {
                Err(MarketError::Gone(format!("proposal `{id}` was rejected")))
            }
            ProposalState::Accepted => {
                Err(MarketError::Conflict(format!("an agreement was made of proposal `{id}`")))
            }
            ProposalState::Expired => {
                Err(MarketError::Gone(format!("the offer of proposal `{id}` is gone")))
            }
        }
    }
}
