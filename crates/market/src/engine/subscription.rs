//! Offers and demands of this node's clients.

use std::collections::{BTreeSet, VecDeque};

use chrono::{DateTime, TimeDelta, Utc};
use gvpn_model::LongPoll;

use super::{
    DEMAND_LIFE, MAX_SUBSCRIPTIONS, Market, MarketError, NEGOTIATION_LIFE, Record, micros, unknown,
};
use crate::{
    Constraint, Demand, Draft, MarketEvent, Offer, OfferSheet, ProposalId, Side, SubscriptionId,
};

/// Most events that wait for a client that does not collect them; newer ones are dropped.
const MAX_EVENTS: usize = 4096;

pub(super) struct Subscription {
    pub(super) side: Side,
    pub(super) draft: Draft,
    pub(super) constraint: Constraint,
    pub(super) made: DateTime<Utc>,
    pub(super) expires: Option<DateTime<Utc>>,
    /// Whether it survives a restart, with what is bargained about it.
    pub(super) lasting: bool,
    /// Whether an offer is on the sheet; one that is not may still be negotiated about.
    pub(super) published: bool,
    pub(super) events: VecDeque<MarketEvent>,
    /// Offers that this demand has had a proposal of.
    pub(super) offered: BTreeSet<SubscriptionId>,
    /// Offers that match and wait: others are free.
    pub(super) held: BTreeSet<SubscriptionId>,
    /// When something happened the last time.
    pub(super) touched: DateTime<Utc>,
    /// Whether it has been seen to that nobody matches, or that somebody does.
    pub(super) judged: bool,
}

impl Subscription {
    pub(super) fn push(&mut self, event: MarketEvent) {
        if self.events.len() < MAX_EVENTS {
            self.events.push_back(event);
        }
    }
}

impl Market {
    /// Publishes a demand; proposals of the offers known are there to collect at once.
    ///
    /// # Errors
    /// [`MarketError`] for constraints that cannot be read, or too many subscriptions.
    pub fn subscribe_demand(
        &mut self,
        now: DateTime<Utc>,
        draft: Draft,
    ) -> Result<SubscriptionId, MarketError> {
        let expires = now + DEMAND_LIFE;
        let id = self.subscribe(now, Side::Requestor, draft, Some(expires))?;
        if let Some(demand) = self.demand(&id) {
            self.records.push_back(Record::Demand { demand, expires });
        }
        self.offer_all_to(now, &id);
        Ok(id)
    }

    /// Makes an offer, to be published with the next [`offer_sheet`](Self::offer_sheet).
    ///
    /// # Errors
    /// As [`subscribe_demand`](Self::subscribe_demand).
    pub fn subscribe_offer(
        &mut self,
        now: DateTime<Utc>,
        draft: Draft,
    ) -> Result<SubscriptionId, MarketError> {
        let expires = now + DEMAND_LIFE;
        let id = self.subscribe(now, Side::Provider, draft, Some(expires))?;
        if let Some(offer) = self.offer(&id) {
            self.records.push_back(Record::Offer { offer, expires });
        }
        Ok(id)
    }

    /// As [`subscribe_offer`](Self::subscribe_offer), for who makes its offers anew at each start:
    /// the offer does not survive a restart, and does not end by itself.
    ///
    /// # Errors
    /// As there.
    pub fn subscribe_passing_offer(
        &mut self,
        now: DateTime<Utc>,
        draft: Draft,
    ) -> Result<SubscriptionId, MarketError> {
        self.subscribe(now, Side::Provider, draft, None)
    }

    /// Takes an offer off the sheet; negotiations about it may go on for as long as one lasts.
    ///
    /// # Errors
    /// [`MarketError::Unknown`].
    pub fn retire_offer(
        &mut self,
        now: DateTime<Utc>,
        id: &SubscriptionId,
    ) -> Result<(), MarketError> {
        self.subscription(Side::Provider, id)?;
        if let Some(offer) = self.subscriptions.get_mut(id) {
            offer.published = false;
            offer.expires = Some(now + NEGOTIATION_LIFE);
        }
        Ok(())
    }

    /// Ends an offer or a demand. Agreements made of it stay.
    ///
    /// # Errors
    /// [`MarketError::Unknown`].
    pub fn unsubscribe(&mut self, side: Side, id: &SubscriptionId) -> Result<(), MarketError> {
        self.subscription(side, id)?;
        self.end_subscription(id);
        Ok(())
    }

    /// This node's demands.
    pub fn demands(&self) -> Vec<Demand> {
        self.demand_ids().iter().filter_map(|id| self.demand(id)).collect()
    }

    /// This node's offers.
    pub fn offers(&self) -> Vec<Offer> {
        let offers = self.subscriptions.iter().filter(|(_, s)| s.side == Side::Provider);
        offers.filter_map(|(id, _)| self.offer(id)).collect()
    }

    /// This node's offers, to be signed and given to the relays.
    pub fn offer_sheet(&self, now: DateTime<Utc>, validity: TimeDelta) -> OfferSheet {
        let made = micros(now);
        let published =
            |o: &Offer| self.subscriptions.get(&o.offer_id).is_some_and(|s| s.published);
        let offers = self.offers().into_iter().filter(published).collect();
        OfferSheet { provider: self.me, made, expires: made + validity, offers }
    }

    /// Takes at most `max` events of a subscription, for a client that waits until `deadline`.
    ///
    /// # Errors
    /// [`MarketError::Unknown`], also once the subscription is over: a waiting client is then to be
    /// told at once.
    pub fn collect(
        &mut self,
        now: DateTime<Utc>,
        side: Side,
        id: &SubscriptionId,
        max: usize,
        deadline: DateTime<Utc>,
    ) -> Result<LongPoll<MarketEvent>, MarketError> {
        self.subscription(side, id)?;
        let events: Vec<_> = match self.subscriptions.get_mut(id) {
            Some(s) => s.events.drain(..max.min(s.events.len())).collect(),
            None => Vec::new(),
        };
        events.iter().for_each(|event| self.told(event));
        Ok(LongPoll::decide(events, now, deadline))
    }

    /// A client has heard of a proposal: it does not hear of it again after a restart.
    fn told(&mut self, event: &MarketEvent) {
        let proposal = match event {
            MarketEvent::ProposalEvent { proposal, .. } => &proposal.proposal_id,
            MarketEvent::ProposalRejectedEvent { proposal_id, .. } => proposal_id,
            MarketEvent::AgreementEvent { .. } => return,
        };
        let Some(id) = ProposalId::read(proposal) else { return };
        if let Some(negotiation) = self.negotiations.get_mut(&id) {
            negotiation.told = true;
        }
        self.keep_negotiation(&id);
    }

    pub(super) fn subscription(
        &self,
        side: Side,
        id: &SubscriptionId,
    ) -> Result<&Subscription, MarketError> {
        let what = match side {
            Side::Requestor => "demand",
            Side::Provider => "offer",
        };
        self.subscriptions.get(id).filter(|s| s.side == side).ok_or_else(|| unknown(what, id))
    }

    pub(super) fn demand_ids(&self) -> Vec<SubscriptionId> {
        let demands = self.subscriptions.iter().filter(|(_, s)| s.side == Side::Requestor);
        demands.map(|(id, _)| id.clone()).collect()
    }

    pub(super) fn end_subscription(&mut self, id: &SubscriptionId) {
        let Some(ended) = self.subscriptions.remove(id) else { return };
        self.drop_negotiations(|n| n.subscription == *id && !n.outlives_its_subscription());
        if ended.lasting {
            self.records.push_back(over(ended.side, id.clone()));
        }
    }

    pub(super) fn restore_subscription(
        &mut self,
        now: DateTime<Utc>,
        (side, id): (Side, SubscriptionId),
        made: DateTime<Utc>,
        draft: Draft,
        expires: DateTime<Utc>,
    ) {
        let constraint = match draft.parse_constraints() {
            Ok(constraint) if expires > now => constraint,
            _ => return self.records.push_back(over(side, id)),
        };
        let subscription = Subscription {
            side,
            draft,
            constraint,
            made,
            expires: Some(expires),
            lasting: true,
            published: true,
            events: VecDeque::new(),
            offered: BTreeSet::new(),
            held: BTreeSet::new(),
            touched: now,
            judged: side == Side::Provider,
        };
        self.subscriptions.insert(id, subscription);
    }

    fn subscribe(
        &mut self,
        now: DateTime<Utc>,
        side: Side,
        draft: Draft,
        expires: Option<DateTime<Utc>>,
    ) -> Result<SubscriptionId, MarketError> {
        let constraint = draft.parse_constraints()?;
        if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            return Err(MarketError::TooMany(format!(
                "there are {MAX_SUBSCRIPTIONS} offers and demands already: delete some"
            )));
        }
        let made = micros(now);
        let id = SubscriptionId::derive(self.ids.next_16(), self.me, made, &draft);
        let subscription = Subscription {
            side,
            draft,
            constraint,
            made,
            expires,
            lasting: expires.is_some(),
            published: true,
            events: VecDeque::new(),
            offered: BTreeSet::new(),
            held: BTreeSet::new(),
            touched: now,
            judged: side == Side::Provider,
        };
        self.subscriptions.insert(id.clone(), subscription);
        Ok(id)
    }

    fn offer(&self, id: &SubscriptionId) -> Option<Offer> {
        let s = self.subscriptions.get(id)?;
        Some(Offer {
            offer_id: id.clone(),
            provider_id: self.me,
            timestamp: s.made,
            draft: s.draft.clone(),
        })
    }

    fn demand(&self, id: &SubscriptionId) -> Option<Demand> {
        let s = self.subscriptions.get(id)?;
        Some(Demand {
            demand_id: id.clone(),
            requestor_id: self.me,
            timestamp: s.made,
            draft: s.draft.clone(),
        })
    }
}

fn over(side: Side, id: SubscriptionId) -> Record {
    match side {
        Side::Requestor => Record::DemandEnded(id),
        Side::Provider => Record::OfferEnded(id),
    }
}
