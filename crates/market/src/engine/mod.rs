//! The market of one node: its clients' subscriptions and negotiations, on both sides.

mod agreements;
mod exchange;
mod matching;
mod negotiation;
mod preference;
mod record;
mod subscription;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use chrono::{DateTime, TimeDelta, Utc};
use gvpn_identity::Identity;
use gvpn_model::{AgreementId, EventLog, NodeId, whole_micros};
use sha3::{Digest, Sha3_256};

use crate::{
    Agreement, AgreementChange, AgreementState, BookChange, ConstraintError, MarketMessage, Offer,
    OfferBook, PropertyError, ProposalId, Reason, SheetError, Side, SignedSheet, SubscriptionId,
    Transmit,
};
pub use agreements::AgreementFilter;
pub use matching::{ExcludedBy, MatchReport};
pub use negotiation::Negotiation;
use preference::Engaged;
pub use preference::SECOND_CHOICE;
pub use record::Record;
use subscription::Subscription;

/// Most offers and demands of this node's clients.
pub const MAX_SUBSCRIPTIONS: usize = 1024;
/// Most negotiations that one other node may have open here.
pub const MAX_NEGOTIATIONS_PER_NODE: usize = 256;
/// Most providers whose offers are kept.
pub const MAX_PROVIDERS: usize = 20_000;
/// How long a demand or an offer lasts that its client does not end.
pub const DEMAND_LIFE: TimeDelta = TimeDelta::hours(24);
/// How long a negotiation lasts after its last message.
pub const NEGOTIATION_LIFE: TimeDelta = TimeDelta::hours(1);
const KEPT_EVENTS: usize = 10_000;

/// Why the market refuses a request of a client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarketError {
    /// No such offer, demand, proposal or agreement.
    #[error("{what} `{id}` does not exist, or is no longer there")]
    Unknown {
        /// What was asked for.
        what: &'static str,
        /// By which id.
        id: String,
    },
    /// The constraints cannot be read.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The properties cannot be read.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// The request makes no sense as it stands.
    #[error("{0}")]
    Invalid(String),
    /// The state of the thing does not allow it (any more).
    #[error("{0}")]
    Gone(String),
    /// It has been done already.
    #[error("{0}")]
    Conflict(String),
    /// A limit is reached.
    #[error("{0}")]
    TooMany(String),
}

/// What the rest of the node has to know.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// An agreement came into force.
    Approved {
        /// The agreement.
        agreement: Box<Agreement>,
        /// This node's side of it.
        side: Side,
    },
    /// A demand has been there for a while, and no offer matches.
    NobodyMatches {
        /// The demand.
        demand: SubscriptionId,
        /// How many offers are known, and which clause excludes how many.
        summary: String,
    },
    /// An agreement that was in force is over.
    Terminated {
        /// The agreement.
        agreement: Box<Agreement>,
        /// This node's side of it.
        side: Side,
        /// The side that ended it.
        by: Side,
        /// Why.
        reason: Option<Reason>,
    },
}

struct Deal {
    agreement: Agreement,
    side: Side,
    terms: String,
    proposal: Option<ProposalId>,
}

/// The market of one node.
///
/// Calls take the present time; what they cause is fetched with [`poll_transmit`](Self::poll_transmit),
/// [`poll_notice`](Self::poll_notice) and [`poll_record`](Self::poll_record). After any call that
/// changes something, long polls may have something to answer.
pub struct Market {
    identity: Identity,
    me: NodeId,
    ids: IdSource,
    book: OfferBook,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    negotiations: BTreeMap<ProposalId, Negotiation>,
    deals: BTreeMap<AgreementId, Deal>,
    engaged: Engaged,
    events: EventLog<(AgreementId, AgreementChange)>,
    transmits: VecDeque<Transmit>,
    notices: VecDeque<Notice>,
    records: VecDeque<Record>,
}

impl Market {
    /// A market without anything. `seed` must be random and secret: identifiers come from it.
    pub fn new(identity: Identity, seed: [u8; 32]) -> Self {
        Self {
            me: identity.node_id(),
            identity,
            ids: IdSource { seed, count: 0 },
            book: OfferBook::new(MAX_PROVIDERS),
            subscriptions: BTreeMap::new(),
            negotiations: BTreeMap::new(),
            deals: BTreeMap::new(),
            engaged: Engaged::default(),
            events: EventLog::new(KEPT_EVENTS),
            transmits: VecDeque::new(),
            notices: VecDeque::new(),
            records: VecDeque::new(),
        }
    }

    /// A provider's offers, as learned from a relay or another node.
    ///
    /// # Errors
    /// [`SheetError`]; nothing is changed then.
    pub fn learn_offers(
        &mut self,
        now: DateTime<Utc>,
        sheet: SignedSheet,
    ) -> Result<(), SheetError> {
        let BookChange { added, removed } = self.book.accept(now, sheet)?;
        // A provider that has new offers still bargains about the old ones for a while.
        if added.is_empty() {
            self.withdraw(&removed)
        } else {
            self.retire(now, &removed)
        }
        self.stand_again(&added);
        let demands: Vec<_> = self.demand_ids();
        for offer in added {
            let offer = Arc::new(offer);
            for demand in &demands {
                self.offer_to(now, demand, &offer);
            }
        }
        self.reconsider(now);
        Ok(())
    }

    /// The offers known from other nodes.
    pub fn known_offers(&self) -> impl Iterator<Item = &Offer> {
        self.book.offers()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<DateTime<Utc>> {
        let subscriptions = self.subscriptions.values().filter_map(|s| s.expires);
        let deals = self
            .deals
            .values()
            .filter(|d| {
                matches!(d.agreement.state, AgreementState::Proposal | AgreementState::Pending)
            })
            .map(|d| d.agreement.valid_to);
        let negotiations =
            self.negotiations.values().filter(|n| n.passes()).map(|n| n.made + NEGOTIATION_LIFE);
        let all = subscriptions.chain(deals).chain(negotiations);
        let all = all.chain(self.book.next_expiry()).chain(self.next_second_choice());
        all.chain(self.next_judgement()).min()
    }

    /// Ends what has expired.
    pub fn handle_timeout(&mut self, now: DateTime<Utc>) {
        let removed = self.book.expire(now);
        self.withdraw(&removed);
        let over: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|(_, s)| s.expires.is_some_and(|e| e <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in over {
            self.end_subscription(&id);
        }
        self.drop_negotiations(|n| n.passes() && n.made + NEGOTIATION_LIFE <= now);
        self.expire_agreements(now);
        self.reconsider(now);
        self.judge(now);
    }

    /// The next message to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next thing that the node has to know.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// The next record to keep.
    pub fn poll_record(&mut self) -> Option<Record> {
        self.records.pop_front()
    }

    fn send(&mut self, to: NodeId, message: MarketMessage) {
        self.transmits.push_back(Transmit { to, message });
    }

    fn keep(&mut self, id: AgreementId) {
        if let Some(deal) = self.deals.get(&id) {
            self.engaged.follow(deal);
            self.records.push_back(Record::Agreement {
                agreement: Box::new(deal.agreement.clone()),
                side: deal.side,
                terms: deal.terms.clone(),
                proposal: deal.proposal.clone(),
            });
        }
    }

    fn log(&mut self, now: DateTime<Utc>, agreement: AgreementId, change: AgreementChange) {
        let date = self.events.push(now, (agreement, change.clone()));
        self.records.push_back(Record::AgreementEvent { date, agreement, change });
    }
}

struct IdSource {
    seed: [u8; 32],
    count: u64,
}

impl IdSource {
    fn next(&mut self) -> [u8; 32] {
        self.count += 1;
        let hash = Sha3_256::new().chain_update(self.seed).chain_update(self.count.to_be_bytes());
        hash.finalize().into()
    }

    fn next_16(&mut self) -> [u8; 16] {
        let bytes = self.next();
        std::array::from_fn(|i| bytes[i])
    }
}

fn unknown(what: &'static str, id: impl ToString) -> MarketError {
    MarketError::Unknown { what, id: id.to_string() }
}

fn micros(now: DateTime<Utc>) -> DateTime<Utc> {
    whole_micros(now)
}
