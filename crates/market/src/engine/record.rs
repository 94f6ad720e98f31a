//! What survives a restart, and how it is taken back.

use chrono::{DateTime, Utc};
use gvpn_model::AgreementId;
use serde::{Deserialize, Serialize};

use super::{Deal, Market, NEGOTIATION_LIFE, Negotiation, micros};
use crate::{
    Agreement, AgreementChange, AgreementState, Demand, MarketEvent, Offer, ProposalId,
    ProposalState, Side, SubscriptionId,
};

/// What has to survive a restart. A record replaces earlier ones of the same key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A demand.
    Demand {
        /// The demand.
        demand: Demand,
        /// When it ends.
        expires: DateTime<Utc>,
    },
    /// A demand is over.
    DemandEnded(SubscriptionId),
    /// An offer that a client made.
    Offer {
        /// The offer.
        offer: Offer,
        /// When it ends.
        expires: DateTime<Utc>,
    },
    /// Such an offer is over.
    OfferEnded(SubscriptionId),
    /// A proposal of one of these that a client or the other side knows of.
    Negotiation {
        /// Its id.
        proposal: ProposalId,
        /// Where it stands.
        negotiation: Box<Negotiation>,
    },
    /// Such a proposal is over.
    NegotiationEnded(ProposalId),
    /// An agreement.
    Agreement {
        /// The agreement.
        agreement: Box<Agreement>,
        /// This node's side of it.
        side: Side,
        /// The terms as signed.
        terms: String,
        /// The provider's proposal that it was made of.
        #[serde(default)]
        proposal: Option<ProposalId>,
    },
    /// An agreement's event.
    AgreementEvent {
        /// When.
        date: DateTime<Utc>,
        /// About which.
        agreement: AgreementId,
        /// What.
        change: AgreementChange,
    },
}

impl Record {
    /// The key under which the record is kept.
    pub fn key(&self) -> String {
        match self {
            Self::Demand { demand, .. } => format!("demand/{}", demand.demand_id),
            Self::DemandEnded(id) => format!("demand/{id}"),
            Self::Offer { offer, .. } => format!("offer/{}", offer.offer_id),
            Self::OfferEnded(id) => format!("offer/{id}"),
            Self::Negotiation { proposal, .. } | Self::NegotiationEnded(proposal) => {
                format!("proposal/{proposal}")
            }
            Self::Agreement { agreement, .. } => format!("agreement/{}", agreement.agreement_id),
            Self::AgreementEvent { date, .. } => format!("event/{}", date.timestamp_micros()),
        }
    }

    /// Whether the record says that its key can be deleted.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::DemandEnded(_) | Self::OfferEnded(_) | Self::NegotiationEnded(_))
    }
}

impl Market {
    /// Takes back what was kept before a restart. Agreements in force are not noticed again. What
    /// waits for an answer of the other side is sent once more: nobody knows whether it arrived.
    pub fn restore(&mut self, now: DateTime<Utc>, records: impl IntoIterator<Item = Record>) {
        let (mut events, mut negotiations) = (Vec::new(), Vec::new());
        for record in records {
            match record {
                Record::Demand { demand, expires } => {
                    let Demand { demand_id, timestamp, draft, .. } = demand;
                    let side = Side::Requestor;
                    self.restore_subscription(now, (side, demand_id), timestamp, draft, expires);
                }
                Record::Offer { offer, expires } => {
                    let Offer { offer_id, timestamp, draft, .. } = offer;
                    let side = Side::Provider;
                    self.restore_subscription(now, (side, offer_id), timestamp, draft, expires);
                }
                Record::Negotiation { proposal, negotiation } => {
                    negotiations.push((proposal, *negotiation));
                }
                Record::Agreement { agreement, side, terms, proposal } => {
                    let deal = Deal { agreement: *agreement, side, terms, proposal };
                    self.engaged.follow(&deal);
                    self.deals.insert(deal.agreement.agreement_id, deal);
                }
                Record::AgreementEvent { date, agreement, change } => {
                    events.push((date, agreement, change));
                }
                Record::DemandEnded(_) | Record::OfferEnded(_) | Record::NegotiationEnded(_) => {}
            }
        }
        events.sort_by_key(|(date, ..)| *date);
        for (date, agreement, change) in events {
            self.events.restore(date, (agreement, change));
        }
        negotiations.sort_by_key(|(_, negotiation)| negotiation.made);
        for (id, negotiation) in negotiations {
            self.restore_negotiation(now, id, negotiation);
        }
        self.refuse_what_was_pending(now);
        self.ask_again(now);
    }

    fn restore_negotiation(&mut self, now: DateTime<Utc>, id: ProposalId, mut kept: Negotiation) {
        let of = self.subscriptions.get_mut(&kept.subscription);
        let useful = of.is_some() || kept.outlives_its_subscription();
        if !useful || (kept.passes() && kept.made + NEGOTIATION_LIFE <= now) {
            self.records.push_back(super::Record::NegotiationEnded(id));
            return;
        }
        kept.kept = true;
        if kept.state == ProposalState::Initial {
            // Nobody knows whether the offer still stands, until it is heard of again.
            kept.retired = true;
            kept.made = micros(now);
        }
        if let Some(subscription) = of {
            let works = || {
                self.deals
                    .values()
                    .any(|d| d.proposal.as_ref() == Some(&id) && !d.agreement.state.is_final())
            };
            if kept.side == Side::Requestor && (kept.state != ProposalState::Accepted || works()) {
                subscription.offered.insert(kept.offer.clone());
            }
            if !kept.told
                && let Some(event) = kept.untold(self.me, &id)
            {
                subscription.push(event);
            }
        }
        self.negotiations.insert(id, kept);
    }

    fn ask_again(&mut self, now: DateTime<Utc>) {
        let open =
            |n: &Negotiation| n.issuer == self.me && n.state == ProposalState::Draft && !n.answered;
        let mut waiting: Vec<_> = self.negotiations.iter().filter(|(_, n)| open(n)).collect();
        waiting.sort_by_key(|(_, n)| n.made);
        let waiting: Vec<_> = waiting.into_iter().map(|(id, _)| id.clone()).collect();
        for id in waiting {
            self.propose(&id);
        }
        let pending = |d: &&Deal| {
            let Agreement { state, valid_to, .. } = &d.agreement;
            d.side == Side::Requestor && *state == AgreementState::Pending && *valid_to > now
        };
        let pending: Vec<_> =
            self.deals.values().filter(pending).map(|d| d.agreement.agreement_id).collect();
        for id in pending {
            self.propose_agreement(id);
        }
    }
}

impl Negotiation {
    /// What its client has to hear of it.
    fn untold(&self, me: gvpn_model::NodeId, id: &ProposalId) -> Option<MarketEvent> {
        match self.state {
            ProposalState::Draft if self.issuer != me => Some(MarketEvent::ProposalEvent {
                event_date: self.made,
                proposal: self.to_proposal(id),
            }),
            ProposalState::Rejected if self.issuer == me => {
                Some(MarketEvent::ProposalRejectedEvent {
                    event_date: self.made,
                    proposal_id: id.seen_from(self.side),
                    reason: self.why.clone(),
                })
            }
            _ => None,
        }
    }
}
