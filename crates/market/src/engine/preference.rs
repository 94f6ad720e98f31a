//! Which provider a demand gets first: one that does not work for this node yet. Clients expect
//! instances on different providers, also where each has a demand of its own; some cannot even have
//! a provider twice in a network.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use gvpn_model::{AgreementId, NodeId};

use super::{Deal, Market, Subscription, matching::exclusions};
use crate::{AgreementState, Offer, ProposalState, Side, SubscriptionId};

/// A demand for which nothing has happened for this long is offered providers that work for this
/// node already, although others seem to be free: its client does not want those.
pub const SECOND_CHOICE: TimeDelta = TimeDelta::seconds(20);

/// The providers that work for this node, or have been asked to, and for which demands.
#[derive(Default)]
pub(super) struct Engaged {
    by_provider: BTreeMap<NodeId, BTreeMap<AgreementId, SubscriptionId>>,
}

impl Engaged {
    /// Takes note of where an agreement stands.
    pub(super) fn follow(&mut self, deal: &Deal) {
        let Deal { agreement, side: Side::Requestor, .. } = deal else { return };
        let provider = agreement.offer.provider_id;
        let works = matches!(agreement.state, AgreementState::Pending | AgreementState::Approved);
        if works {
            let demand = agreement.demand.demand_id.clone();
            self.by_provider.entry(provider).or_default().insert(agreement.agreement_id, demand);
        } else if let Some(work) = self.by_provider.get_mut(&provider) {
            work.remove(&agreement.agreement_id);
            if work.is_empty() {
                self.by_provider.remove(&provider);
            }
        }
    }

    fn has(&self, provider: NodeId) -> bool {
        self.by_provider.contains_key(&provider)
    }

    fn works_for(&self, provider: NodeId, demand: &SubscriptionId) -> bool {
        self.by_provider.get(&provider).is_some_and(|work| work.values().any(|d| d == demand))
    }
}

impl Market {
    /// Whether a demand may have this provider now: it is free, or no other is.
    pub(super) fn may_have(
        &self,
        now: DateTime<Utc>,
        id: &SubscriptionId,
        provider: NodeId,
    ) -> bool {
        if !self.engaged.has(provider) {
            return true;
        }
        let Some(demand) = self.subscriptions.get(id) else { return true };
        demand.touched + SECOND_CHOICE <= now
            || (!self.engaged.works_for(provider, id) && !self.another_is_free(id, demand))
    }

    /// Whether a provider that works for this node already is to be left alone, because another one
    /// is free and has answered the demand.
    pub(super) fn has_better(&self, id: &SubscriptionId, provider: NodeId) -> bool {
        let ready = self.negotiations.values().any(|n| {
            n.subscription == *id
                && n.side == Side::Requestor
                && n.issuer == n.peer
                && n.state == ProposalState::Draft
                && !n.answered
                && !self.engaged.has(n.peer)
                && self.book.has(n.peer, &n.offer)
        });
        self.engaged.has(provider) && ready
    }

    /// Offers that were held back are offered where that has no reason any more.
    pub(super) fn reconsider(&mut self, now: DateTime<Utc>) {
        let waiting: Vec<_> = self
            .subscriptions
            .iter_mut()
            .filter(|(_, s)| !s.held.is_empty())
            .map(|(id, s)| (id.clone(), std::mem::take(&mut s.held)))
            .collect();
        for (demand, held) in waiting {
            for offer in self.in_book(&held) {
                self.offer_to(now, &demand, &offer);
            }
        }
    }

    /// An offer is to be proposed to a demand anew, when its provider is to be had.
    pub(super) fn hold(&mut self, demand: &SubscriptionId, offer: &SubscriptionId) {
        if let Some(demand) = self.subscriptions.get_mut(demand) {
            demand.offered.remove(offer);
            demand.held.insert(offer.clone());
        }
    }

    /// Something happens for a demand.
    pub(super) fn touch(&mut self, now: DateTime<Utc>, demand: &SubscriptionId) {
        if let Some(demand) = self.subscriptions.get_mut(demand) {
            demand.touched = now;
        }
    }

    /// When the next demand has been quiet for so long that its second choices are offered.
    pub(super) fn next_second_choice(&self) -> Option<DateTime<Utc>> {
        let waiting = self.subscriptions.values().filter(|s| !s.held.is_empty());
        waiting.map(|s| s.touched + SECOND_CHOICE).min()
    }

    fn in_book(&self, ids: &BTreeSet<SubscriptionId>) -> Vec<Offer> {
        self.book.offers().filter(|o| ids.contains(&o.offer_id)).cloned().collect()
    }

    /// Whether a provider that does not work for this node matches, and has not been turned down by
    /// the demand's client, nor turned it down.
    fn another_is_free(&self, id: &SubscriptionId, demand: &Subscription) -> bool {
        self.book.offers().any(|offer| {
            offer.provider_id != self.me
                && !self.engaged.has(offer.provider_id)
                && (!demand.offered.contains(&offer.offer_id)
                    || self.negotiates(id, &offer.offer_id))
                && exclusions(demand, offer).is_empty()
        })
    }

    fn negotiates(&self, demand: &SubscriptionId, offer: &SubscriptionId) -> bool {
        self.negotiations.values().any(|n| {
            n.subscription == *demand
                && n.offer == *offer
                && !n.answered
                && matches!(n.state, ProposalState::Initial | ProposalState::Draft)
        })
    }
}
