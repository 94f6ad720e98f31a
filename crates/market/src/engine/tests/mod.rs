//! Markets of several nodes in virtual time.

mod agreements;
mod hostile;
mod negotiation;
mod preference;
mod restart;

use chrono::{DateTime, TimeDelta, Utc};
use gvpn_identity::Identity;
use gvpn_model::{AgreementId, LongPoll};
use serde_json::json;

use super::*;
use crate::{Draft, MarketEvent, Proposal, ProposalState};

pub(super) fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

pub(super) fn draft(properties: serde_json::Value, constraints: &str) -> Draft {
    serde_json::from_value(json!({"properties": properties, "constraints": constraints})).unwrap()
}

pub(super) fn offer(mem: f64) -> Draft {
    draft(
        json!({"golem.inf.mem.gib": mem, "golem.runtime.name": "vm",
            "golem.runtime.capabilities": ["vpn"], "price": 0.1 / 3600.0}),
        "(golem.srv.comp.expiration>1)",
    )
}

pub(super) fn demand(constraints: &str) -> Draft {
    draft(json!({"golem.srv.comp.expiration": 1_800_000_000_000_u64}), constraints)
}

/// Some nodes. The first is a requestor, by custom.
pub(super) struct World {
    pub(super) now: DateTime<Utc>,
    pub(super) nodes: Vec<Market>,
    /// What each has kept.
    pub(super) kept: Vec<BTreeMap<String, Record>>,
}

impl World {
    pub(super) fn new(count: u8) -> Self {
        let nodes = (0..count).map(|i| Market::new(Identity::generate(), [i; 32])).collect();
        Self { now: at(0), nodes, kept: vec![BTreeMap::new(); count.into()] }
    }

    pub(super) fn pass(&mut self, seconds: i64) {
        self.now += TimeDelta::seconds(seconds);
        for node in &mut self.nodes {
            node.handle_timeout(self.now);
        }
    }

    /// A node publishes its offers to all others, as a relay would spread them.
    pub(super) fn publish(&mut self, provider: usize) {
        self.now += TimeDelta::milliseconds(1);
        let market = &self.nodes[provider];
        let sheet = market.offer_sheet(self.now, TimeDelta::minutes(5));
        let signed = sheet.sign(&market.identity).unwrap();
        for (i, node) in self.nodes.iter_mut().enumerate() {
            if i != provider {
                node.learn_offers(self.now, signed.clone()).unwrap();
            }
        }
    }

    pub(super) fn offer(&mut self, provider: usize, offer: Draft) -> SubscriptionId {
        let id = self.nodes[provider].subscribe_offer(self.now, offer).unwrap();
        self.publish(provider);
        id
    }

    pub(super) fn demand(&mut self, requestor: usize, constraints: &str) -> SubscriptionId {
        self.nodes[requestor].subscribe_demand(self.now, demand(constraints)).unwrap()
    }

    /// Delivers messages until there are none.
    pub(super) fn deliver(&mut self) {
        while let Some((from, transmit)) = self.next_message() {
            let to = self.nodes.iter_mut().find(|n| n.me == transmit.to).unwrap();
            to.handle_message(self.now, from, transmit.message);
        }
    }

    pub(super) fn next_message(&mut self) -> Option<(NodeId, Transmit)> {
        self.nodes.iter_mut().find_map(|n| Some((n.me, n.poll_transmit()?)))
    }

    pub(super) fn events(
        &mut self,
        node: usize,
        side: Side,
        id: &SubscriptionId,
    ) -> Vec<MarketEvent> {
        match self.nodes[node].collect(self.now, side, id, 100, self.now).unwrap() {
            LongPoll::Answer(events) => events,
            LongPoll::Wait(_) => unreachable!("no time to wait"),
        }
    }

    pub(super) fn proposals(
        &mut self,
        node: usize,
        side: Side,
        id: &SubscriptionId,
    ) -> Vec<Proposal> {
        let events = self.events(node, side, id);
        events
            .into_iter()
            .map(|event| match event {
                MarketEvent::ProposalEvent { proposal, .. } => proposal,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// Bargains to the point where node 0 can make an agreement with node 1; the proposal's id.
    pub(super) fn bargain(&mut self) -> (SubscriptionId, SubscriptionId, String) {
        let offer_id = self.offer(1, offer(4.0));
        let demand_id = self.demand(0, "(golem.runtime.name=vm)");
        let draft = self.bargain_again(&offer_id, &demand_id);
        (offer_id, demand_id, draft)
    }

    pub(super) fn bargain_again(
        &mut self,
        offer_id: &SubscriptionId,
        demand_id: &SubscriptionId,
    ) -> String {
        let initial = self.proposals(0, Side::Requestor, demand_id).remove(0);
        let answer = demand("(golem.runtime.name=vm)");
        self.nodes[0]
            .counter(self.now, Side::Requestor, demand_id, &initial.proposal_id, answer)
            .unwrap();
        self.deliver();
        let theirs = self.proposals(1, Side::Provider, offer_id).remove(0);
        self.nodes[1]
            .counter(self.now, Side::Provider, offer_id, &theirs.proposal_id, offer(4.0))
            .unwrap();
        self.deliver();
        self.proposals(0, Side::Requestor, demand_id).remove(0).proposal_id
    }

    /// An agreement in force between nodes 0 and 1.
    pub(super) fn agree(&mut self) -> AgreementId {
        let (offer_id, _, proposal) = self.bargain();
        let valid_to = self.now + TimeDelta::hours(1);
        let id = self.nodes[0].create_agreement(self.now, &proposal, valid_to).unwrap();
        self.nodes[0].confirm(self.now, id, Some("session".into())).unwrap();
        self.deliver();
        let events = self.events(1, Side::Provider, &offer_id);
        assert!(matches!(&events[..], [MarketEvent::AgreementEvent { agreement, .. }]
            if agreement.agreement_id == id && agreement.state == AgreementState::Pending));
        self.nodes[1].approve(self.now, id, None).unwrap();
        self.deliver();
        id
    }

    pub(super) fn state(&self, node: usize, id: AgreementId) -> AgreementState {
        self.nodes[node].agreement(id).unwrap().state
    }

    pub(super) fn agreement_events(
        &self,
        node: usize,
        session: Option<&str>,
    ) -> Vec<AgreementChange> {
        match self.nodes[node].agreement_events(self.now, None, 100, session, self.now) {
            LongPoll::Answer(events) => events.into_iter().map(|e| e.change).collect(),
            LongPoll::Wait(_) => unreachable!("no time to wait"),
        }
    }
}
