//! Which offers meet which demands, and why the others do not.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::{Market, MarketError, Negotiation, Notice, Record, Subscription, micros};
use crate::{
    Constraint, Exclusion, MarketEvent, Offer, ProposalId, ProposalState, Side, SubscriptionId,
};

/// When a demand that nobody matches is told of.
const JUDGED_AFTER: TimeDelta = TimeDelta::seconds(15);

/// How a demand fares among the offers known: the answer to "why does nobody answer?".
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct MatchReport {
    /// How many offers of other nodes are known.
    pub offers: usize,
    /// How many of them match.
    pub matching: usize,
    /// Clauses and how many offers each excludes, most first. An offer may fail several.
    pub excluded: Vec<ExcludedBy>,
    /// The same in a sentence.
    pub summary: String,
}

/// One clause that excludes offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ExcludedBy {
    /// The clause.
    pub clause: String,
    /// Whose clause it is: the demand's, or the offer's (then it is the demand that fails it).
    pub of: Side,
    /// How many offers it excludes.
    pub offers: usize,
    /// How many offers it excludes that meet everything else.
    pub alone: usize,
    /// What one of the excluded has instead; `None` if it lacks the property.
    pub example: Option<String>,
}

impl Market {
    /// Why a demand gets the proposals it gets.
    ///
    /// # Errors
    /// [`MarketError::Unknown`].
    pub fn report(&self, demand: &SubscriptionId) -> Result<MatchReport, MarketError> {
        let demand = self.subscription(Side::Requestor, demand)?;
        let mut clauses: BTreeMap<(Side, String), ExcludedBy> = BTreeMap::new();
        let (mut offers, mut matching) = (0, 0);
        for offer in self.book.offers().filter(|o| o.provider_id != self.me) {
            offers += 1;
            let failed = exclusions(demand, offer);
            matching += usize::from(failed.is_empty());
            let alone = usize::from(failed.len() == 1);
            for (of, Exclusion { clause, found }) in failed {
                let entry = clauses.entry((of, clause.clone())).or_insert(ExcludedBy {
                    clause,
                    of,
                    offers: 0,
                    alone: 0,
                    example: None,
                });
                entry.offers += 1;
                entry.alone += alone;
                entry.example = entry.example.take().or(found);
            }
        }
        let mut excluded: Vec<_> = clauses.into_values().collect();
        excluded.sort_by_key(|e| std::cmp::Reverse((e.offers, e.alone)));
        let summary = summarize(offers, matching, &excluded);
        Ok(MatchReport { offers, matching, excluded, summary })
    }

    /// Tells of demands that nobody has matched for a while, once.
    pub(super) fn judge(&mut self, now: DateTime<Utc>) {
        let due: Vec<_> = self
            .subscriptions
            .iter_mut()
            .filter(|(_, s)| !s.judged && s.touched + JUDGED_AFTER <= now)
            .map(|(id, s)| {
                s.judged = true;
                (id.clone(), s.offered.is_empty() && s.held.is_empty())
            })
            .collect();
        for (demand, alone) in due {
            if alone && let Ok(MatchReport { matching: 0, summary, .. }) = self.report(&demand) {
                self.notices.push_back(Notice::NobodyMatches { demand, summary });
            }
        }
    }

    pub(super) fn next_judgement(&self) -> Option<DateTime<Utc>> {
        let waiting = self.subscriptions.values().filter(|s| !s.judged);
        waiting.map(|s| s.touched + JUDGED_AFTER).min()
    }

    pub(super) fn offer_all_to(&mut self, now: DateTime<Utc>, demand: &SubscriptionId) {
        let offers: Vec<_> = self.book.offers().cloned().map(Arc::new).collect();
        for offer in offers {
            self.offer_to(now, demand, &offer);
        }
    }

    /// Makes an initial proposal of an offer to a demand that it matches, once; later, if its
    /// provider works for this node and others are free.
    pub(super) fn offer_to(&mut self, now: DateTime<Utc>, id: &SubscriptionId, offer: &Offer) {
        let Some(demand) = self.subscriptions.get(id) else { return };
        if offer.provider_id == self.me
            || demand.offered.contains(&offer.offer_id)
            || !exclusions(demand, offer).is_empty()
        {
            return;
        }
        if !self.may_have(now, id, offer.provider_id) {
            return self.hold(id, &offer.offer_id);
        }
        let proposal = ProposalId::from_bytes(self.ids.next());
        let negotiation = Negotiation {
            subscription: id.clone(),
            side: Side::Requestor,
            peer: offer.provider_id,
            issuer: offer.provider_id,
            answers: None,
            answered: false,
            state: ProposalState::Initial,
            why: None,
            told: false,
            retired: false,
            made: micros(now),
            draft: offer.draft.clone(),
            offer: offer.offer_id.clone(),
            offer_made: offer.timestamp,
            demand: id.clone(),
            demand_made: demand.made,
            kept: false,
        };
        let event = MarketEvent::ProposalEvent {
            event_date: micros(now),
            proposal: negotiation.to_proposal(&proposal),
        };
        self.negotiations.insert(proposal, negotiation);
        if let Some(demand) = self.subscriptions.get_mut(id) {
            demand.offered.insert(offer.offer_id.clone());
            demand.push(event);
        }
    }

    /// Forgets the proposals of offers that are gone, unless the provider knows of them.
    pub(super) fn withdraw(&mut self, offers: &[SubscriptionId]) {
        self.change_initial_of(offers, |negotiation| negotiation.state = ProposalState::Expired);
        self.forget(offers);
    }

    /// As [`withdraw`](Self::withdraw), for offers that others have taken the place of: proposals
    /// that a client has fetched may be answered.
    pub(super) fn retire(&mut self, now: DateTime<Utc>, offers: &[SubscriptionId]) {
        self.change_initial_of(offers, |negotiation| {
            negotiation.retired = true;
            negotiation.made = micros(now);
        });
        self.forget(offers);
    }

    /// After a restart: offers that are heard of again stand.
    pub(super) fn stand_again(&mut self, offers: &[Offer]) {
        let ids: Vec<_> = offers.iter().map(|offer| offer.offer_id.clone()).collect();
        self.change_initial_of(&ids, |negotiation| negotiation.retired = false);
    }

    fn change_initial_of(&mut self, offers: &[SubscriptionId], change: impl Fn(&mut Negotiation)) {
        for (id, negotiation) in &mut self.negotiations {
            if negotiation.state == ProposalState::Initial && offers.contains(&negotiation.offer) {
                change(negotiation);
                if negotiation.kept {
                    let (proposal, negotiation) = (id.clone(), Box::new(negotiation.clone()));
                    self.records.push_back(Record::Negotiation { proposal, negotiation });
                }
            }
        }
    }

    fn forget(&mut self, offers: &[SubscriptionId]) {
        if offers.is_empty() {
            return;
        }
        for demand in self.subscriptions.values_mut() {
            demand.offered.retain(|o| !offers.contains(o));
            demand.held.retain(|o| !offers.contains(o));
            demand.events.retain(|event| match event {
                MarketEvent::ProposalEvent { proposal, .. } => {
                    proposal.state != ProposalState::Initial
                        || ProposalId::read(&proposal.proposal_id)
                            .and_then(|id| self.negotiations.get(&id))
                            .is_some_and(|n| n.state == ProposalState::Initial && !n.retired)
                }
                _ => true,
            });
        }
    }
}

pub(super) fn exclusions(demand: &Subscription, offer: &Offer) -> Vec<(Side, Exclusion)> {
    let mut failed: Vec<_> = demand
        .constraint
        .exclusions(&offer.draft.properties)
        .into_iter()
        .map(|e| (Side::Requestor, e))
        .collect();
    // An offer in the book has constraints that parse.
    if let Ok(wanted) = Constraint::parse(&offer.draft.constraints) {
        let unmet = wanted.exclusions(&demand.draft.properties);
        failed.extend(unmet.into_iter().map(|e| (Side::Provider, e)));
    }
    failed
}

fn summarize(offers: usize, matching: usize, excluded: &[ExcludedBy]) -> String {
    if offers == 0 {
        return "no offers are known: is a relay configured, and does a provider run?".to_owned();
    }
    let mut text = format!("{matching} of {offers} offers match");
    for (i, by) in excluded.iter().take(5).enumerate() {
        text.push_str(if i == 0 { "; " } else { ", " });
        let whose = match by.of {
            Side::Requestor => "",
            Side::Provider => "the provider's ",
        };
        text.push_str(&format!("{whose}{} excludes {}", by.clause, by.offers));
    }
    text
}
