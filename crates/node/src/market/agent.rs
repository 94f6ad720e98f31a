//! The provider's agent: offers what the presets say, bargains, and agrees by the policy.

use std::{collections::BTreeSet, time::Duration};

use chrono::Utc;
use gvpn_market::{
    Agreement, Demand, Draft, MarketError, MarketEvent, Proposal, Reason, Side, SubscriptionId,
    provider::{self, counter_offer},
};
use gvpn_model::{LongPoll, NodeId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Markets, capabilities};
use crate::ProviderPolicy;

/// How often what the host can do is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What the agent keeps in mind.
#[derive(Default)]
pub(super) struct Agent {
    /// Its own offers, also those that are off the sheet and still negotiated about.
    offers: Mutex<BTreeSet<SubscriptionId>>,
    /// Offers are to be made anew.
    renew: Notify,
    /// Something changed that may change the offers.
    changed: Notify,
}

impl Markets {
    /// Offers are made anew: an agreement was made or ended.
    pub(super) fn agent_renews(&self) {
        self.inner.agent.renew.notify_one();
    }

    /// Offers are made anew if they would be others now: the presets or the policy changed. Who has
    /// seen an offer that stays as it is does not see it again.
    pub(super) fn agent_looks(&self) {
        self.inner.agent.changed.notify_one();
    }

    pub(super) fn run_agent(&self) {
        let this = self.clone();
        self.inner.core.spawn(async move {
            let mut ticks = this.inner.ticks.subscribe();
            let mut runtimes = this.inner.core.runtimes.subscribe();
            this.renew_offers();
            loop {
                ticks.borrow_and_update();
                this.answer_all();
                this.end_overdue();
                tokio::select! {
                    () = this.inner.agent.renew.notified() => this.renew_offers(),
                    () = this.inner.agent.changed.notified() => this.renew_if_changed(),
                    _ = ticks.changed() => {}
                    _ = runtimes.changed() => this.renew_if_changed(),
                    () = tokio::time::sleep(this.until_overdue()) => this.renew_if_changed(),
                }
            }
        });
    }

    /// Takes all offers off the sheet and puts new ones there, if there is room for an agreement.
    /// New ids tell requestors that the provider is to be had (again).
    fn renew_offers(&self) {
        let wanted = self.wanted_offers();
        let mut mine = self.inner.agent.offers.lock();
        self.act(|market, now| {
            for id in mine.iter() {
                // One that has ended by itself is gone already.
                let _ = market.retire_offer(now, id);
            }
            for draft in wanted {
                match market.subscribe_passing_offer(now, draft) {
                    Ok(id) => drop(mine.insert(id)),
                    Err(error) => tracing::warn!(%error, "an offer was not made"),
                }
            }
        });
    }

    fn renew_if_changed(&self) {
        let wanted = self.wanted_offers();
        let published: Vec<Draft> = self.look(|market| {
            let sheet = market.offer_sheet(Utc::now(), chrono::TimeDelta::zero());
            let mine = self.inner.agent.offers.lock();
            let offers = sheet.offers.into_iter().filter(|o| mine.contains(&o.offer_id));
            offers.map(|o| o.draft).collect()
        });
        let same = wanted.len() == published.len() && wanted.iter().all(|w| published.contains(w));
        if !same {
            self.renew_offers();
        }
    }

    fn wanted_offers(&self) -> Vec<Draft> {
        let Some(policy) = self.inner.agreements.policy() else { return Vec::new() };
        if self.check_room(&policy).is_err() {
            return Vec::new();
        }
        self.presets()
            .iter()
            .filter(|preset| preset.active && policy.runtimes.contains(&preset.runtime))
            .filter_map(|p| {
                let can = self.inner.core.runtimes.look(&self.inner.core, &p.runtime)?;
                Some(p.offer(&capabilities::of(&self.inner.core, &policy, &p.runtime, &can)))
            })
            .collect()
    }

    fn answer_all(&self) {
        let ids: Vec<_> = self.inner.agent.offers.lock().iter().cloned().collect();
        for id in ids {
            let now = Utc::now();
            let events =
                self.inner.engine.lock().collect(now, Side::Provider, &id, usize::MAX, now);
            match events {
                Ok(LongPoll::Answer(events)) => {
                    events.into_iter().for_each(|event| self.answer_one(&id, event));
                }
                Ok(LongPoll::Wait(_)) => {}
                Err(_) => drop(self.inner.agent.offers.lock().remove(&id)),
            }
        }
    }

    fn answer_one(&self, offer: &SubscriptionId, event: MarketEvent) {
        let answered = match event {
            MarketEvent::ProposalEvent { proposal, .. } => self.answer_proposal(offer, &proposal),
            MarketEvent::AgreementEvent { agreement, .. } => self.answer_agreement(&agreement),
            MarketEvent::ProposalRejectedEvent { .. } => Ok(()),
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "the other side was faster");
        }
    }

    fn answer_proposal(
        &self,
        offer: &SubscriptionId,
        proposal: &Proposal,
    ) -> Result<(), MarketError> {
        let demand = Demand {
            demand_id: SubscriptionId::from(""),
            requestor_id: proposal.issuer_id,
            timestamp: proposal.timestamp,
            draft: proposal.draft.clone(),
        };
        let verdict = self.judge(proposal.issuer_id, &demand);
        self.act(|market, now| match verdict {
            Ok(()) => {
                let mine = market.offers().into_iter().find(|o| o.offer_id == *offer);
                let Some(mine) = mine else { return Ok(()) };
                let draft = counter_offer(&mine.draft, &proposal.draft);
                market.counter(now, Side::Provider, offer, &proposal.proposal_id, draft).map(drop)
            }
            Err(reason) => {
                let reason = Some(Reason::new(reason));
                market.reject(Side::Provider, offer, &proposal.proposal_id, reason)
            }
        })
    }

    fn answer_agreement(&self, agreement: &Agreement) -> Result<(), MarketError> {
        let verdict = self.judge(agreement.demand.requestor_id, &agreement.demand);
        let id = agreement.agreement_id;
        self.act(|market, now| match verdict {
            Ok(()) => market.approve(now, id, None),
            Err(reason) => market.reject_agreement(now, id, Some(Reason::new(reason))),
        })
    }

    /// Whether this provider would work on that demand, else why not.
    fn judge(&self, requestor: NodeId, demand: &Demand) -> Result<(), String> {
        let policy = self.inner.agreements.policy().ok_or("this node is not a provider")?;
        if policy.requestors.as_ref().is_some_and(|allowed| !allowed.contains(&requestor)) {
            return Err(format!("this provider does not work for {requestor}"));
        }
        self.check_room(&policy)?;
        let expires = demand.draft.properties.number("golem.srv.comp.expiration");
        if expires.is_some_and(|at| at <= Utc::now().timestamp_millis() as f64) {
            return Err("golem.srv.comp.expiration is in the past".to_owned());
        }
        provider::package(demand).map(drop)
    }

    fn check_room(&self, policy: &ProviderPolicy) -> Result<(), String> {
        let busy = self.look(|market| {
            market.in_force_now().filter(|(_, side)| *side == Side::Provider).count()
        });
        if busy < policy.max_activities as usize {
            return Ok(());
        }
        Err(format!("this provider is busy: it has {busy} agreements and takes no more"))
    }

    /// How long until the next agreement is overdue; not longer than the agent likes to sleep.
    fn until_overdue(&self) -> Duration {
        let now = Utc::now();
        let next = self.look(|market| {
            let mine = market.in_force_now().filter(|(_, side)| *side == Side::Provider);
            mine.filter_map(|(a, _)| a.work_expires()).min()
        });
        let left = next.map(|at| (at - now).to_std().unwrap_or_default());
        // A little more, so that it is over by then.
        left.map_or(LOOK_AGAIN, |left| (left + Duration::from_millis(2)).min(LOOK_AGAIN))
    }

    /// Ends agreements whose requestor wanted the work to be over by now.
    fn end_overdue(&self) {
        let now = Utc::now();
        let overdue: Vec<_> = self.look(|market| {
            market
                .in_force_now()
                .filter(|(a, side)| {
                    *side == Side::Provider && a.work_expires().is_some_and(|at| at <= now)
                })
                .map(|(a, _)| a.agreement_id)
                .collect()
        });
        for id in overdue {
            let reason = Reason::with_code(
                "the agreement has expired (golem.srv.comp.expiration)",
                "golem.provider.code",
                "Expired",
            );
            let _ = self.act(|market, now| market.terminate(now, id, Some(reason)));
        }
    }
}
