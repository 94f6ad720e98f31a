//! What a node's clients and its peers see of its restart: nothing.

use gvpn_model::LongPoll;

use super::*;

const VM: &str = "(golem.runtime.name=vm)";

impl World {
    /// A node is started anew: it has what it kept; messages that it had not sent are lost.
    fn restart(&mut self, node: usize) {
        let kept = &mut self.kept[node];
        while let Some(record) = self.nodes[node].poll_record() {
            if record.is_end() {
                kept.remove(&record.key());
            } else {
                let text = serde_json::to_string(&record).unwrap();
                kept.insert(record.key(), serde_json::from_str(&text).unwrap());
            }
        }
        let mut new = Market::new(self.nodes[node].identity.clone(), [99; 32]);
        new.restore(self.now, kept.values().cloned());
        self.nodes[node] = new;
    }

    /// What an API client of the requestor does with an initial proposal.
    fn answer(&mut self, demand_id: &SubscriptionId, proposal: &str) {
        let answer = demand(VM);
        self.nodes[0].counter(self.now, Side::Requestor, demand_id, proposal, answer).unwrap();
    }

    fn provider_answers(&mut self, offer_id: &SubscriptionId) {
        let theirs = self.proposals(1, Side::Provider, offer_id).remove(0).proposal_id;
        self.nodes[1].counter(self.now, Side::Provider, offer_id, &theirs, offer(4.0)).unwrap();
    }

    /// A demand that node 1 has an offer for, and the requestor's answer to its proposal.
    fn begun(&mut self) -> (SubscriptionId, SubscriptionId) {
        let offer_id = self.offer(1, offer(4.0));
        let demand_id = self.demand(0, VM);
        let initial = self.one(&demand_id);
        self.answer(&demand_id, &initial);
        self.deliver();
        (offer_id, demand_id)
    }

    fn one(&mut self, demand_id: &SubscriptionId) -> String {
        let mut all = self.proposals(0, Side::Requestor, demand_id);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0).proposal_id
    }
}

#[test]
fn bargaining_goes_on_where_it_was_and_nothing_is_told_twice() {
    let mut world = World::new(2);
    let offer_id = world.offer(1, offer(4.0));
    let demand_id = world.demand(0, VM);
    let initial = world.one(&demand_id);

    world.restart(0);
    world.publish(1);
    assert!(world.events(0, Side::Requestor, &demand_id).is_empty(), "it was told of already");
    world.answer(&demand_id, &initial);
    world.restart(0);
    world.deliver();
    world.provider_answers(&offer_id);
    world.deliver();
    // Not collected yet: the client hears of it all the same.
    world.restart(0);
    world.publish(1);
    let draft = world.one(&demand_id);
    world.restart(0);
    assert!(world.events(0, Side::Requestor, &demand_id).is_empty());
    let valid_to = world.now + TimeDelta::hours(1);
    let id = world.nodes[0].create_agreement(world.now, &draft, valid_to).unwrap();
    world.restart(0);
    world.nodes[0].confirm(world.now, id, None).unwrap();
    world.deliver();
    world.nodes[1].approve(world.now, id, None).unwrap();
    world.deliver();
    assert_eq!(world.state(0, id), AgreementState::Approved);
    world.restart(0);
    world.publish(1);
    assert!(world.events(0, Side::Requestor, &demand_id).is_empty());
}

#[test]
fn what_was_lost_on_the_way_is_sent_again_and_answered_once() {
    let mut world = World::new(2);
    let (offer_id, demand_id) = world.begun();
    world.provider_answers(&offer_id);
    // The answer does not arrive: its receiver is just being started anew.
    let (_, lost) = world.next_message().unwrap();
    let now = world.now;
    world.nodes[1].delivery_failed(now, lost, "test");
    world.events(1, Side::Provider, &offer_id);
    world.restart(0);
    world.deliver();
    let draft = world.one(&demand_id);
    assert!(world.events(1, Side::Provider, &offer_id).is_empty());

    let id = world.nodes[0].create_agreement(now, &draft, now + TimeDelta::hours(1)).unwrap();
    world.nodes[0].confirm(now, id, None).unwrap();
    world.deliver();
    world.nodes[1].approve(now, id, None).unwrap();
    assert!(world.next_message().is_some(), "the approval is lost");
    world.restart(0);
    world.deliver();
    assert_eq!(world.state(0, id), AgreementState::Approved);
    assert_eq!(world.state(1, id), AgreementState::Approved);
}

#[test]
fn an_approval_that_came_to_nothing_is_a_refusal() {
    let mut world = World::new(2);
    let (_, _, draft) = world.bargain();
    let now = world.now;
    let id = world.nodes[0].create_agreement(now, &draft, now + TimeDelta::hours(1)).unwrap();
    world.nodes[0].confirm(now, id, None).unwrap();
    world.deliver();
    world.nodes[1].approve(now, id, None).unwrap();
    let (_, lost) = world.next_message().unwrap();
    world.nodes[1].delivery_failed(now, lost, "test");
    world.deliver();
    assert_eq!(world.state(0, id), AgreementState::Rejected);
    assert_eq!(world.state(1, id), AgreementState::Terminated);
}

#[test]
fn a_refusal_is_told_after_a_restart_and_nothing_is_kept_of_what_is_over() {
    let mut world = World::new(2);
    let (offer_id, demand_id) = world.begun();
    let theirs = world.proposals(1, Side::Provider, &offer_id).remove(0).proposal_id;
    let reason = Some(Reason::new("too late"));
    world.nodes[1].reject(Side::Provider, &offer_id, &theirs, reason).unwrap();
    world.deliver();
    world.restart(0);
    let events = world.events(0, Side::Requestor, &demand_id);
    assert!(
        matches!(&events[..], [MarketEvent::ProposalRejectedEvent { reason: Some(reason), .. }]
            if reason.message() == "too late"),
        "{events:?}"
    );
    world.nodes[0].unsubscribe(Side::Requestor, &demand_id).unwrap();
    world.restart(0);
    world.pass(2 * 3600);
    world.restart(0);
    assert_eq!(world.kept[0].len(), 0, "{:?}", world.kept[0]);
}

#[test]
fn an_offer_of_a_client_survives_and_one_of_the_agent_does_not() {
    let mut world = World::new(2);
    let lasting = world.offer(1, offer(4.0));
    let passing = world.nodes[1].subscribe_passing_offer(world.now, offer(2.0)).unwrap();
    let demand_id = world.demand(0, "(golem.inf.mem.gib=4)");
    let initial = world.one(&demand_id);
    world.answer(&demand_id, &initial);
    world.deliver();
    world.restart(1);
    let offers: Vec<_> = world.nodes[1].offers().into_iter().map(|o| o.offer_id).collect();
    assert_eq!(offers, std::slice::from_ref(&lasting));
    assert!(world.kept[1].values().all(|r| !format!("{r:?}").contains(&passing.to_string())));
    world.provider_answers(&lasting);
    world.deliver();
    world.one(&demand_id);
    world.pass(DEMAND_LIFE.num_seconds() + 1);
    assert!(world.nodes[1].offers().is_empty());
}

#[test]
fn an_offer_that_is_gone_after_a_restart_may_be_answered_for_a_while_only() {
    let mut world = World::new(2);
    world.offer(1, offer(4.0));
    let demand_id = world.demand(0, VM);
    let initial = world.one(&demand_id);
    world.restart(0);
    world.pass(NEGOTIATION_LIFE.num_seconds() + 1);
    let gone = world.nodes[0].proposal(Side::Requestor, &demand_id, &initial);
    assert!(matches!(gone, Err(MarketError::Unknown { .. })), "{gone:?}");

    let mut world = World::new(2);
    world.offer(1, offer(4.0));
    let demand_id = world.demand(0, VM);
    let initial = world.one(&demand_id);
    world.restart(0);
    world.publish(1);
    for _ in 0..20 {
        world.pass(200);
        world.publish(1);
    }
    world.answer(&demand_id, &initial);
    match world.nodes[0].collect(world.now, Side::Requestor, &demand_id, 9, world.now).unwrap() {
        LongPoll::Answer(events) => assert!(events.is_empty(), "{events:?}"),
        LongPoll::Wait(_) => unreachable!("no time to wait"),
    }
}
