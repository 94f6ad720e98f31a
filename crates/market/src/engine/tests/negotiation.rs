use super::*;

#[test]
fn demands_meet_offers_in_either_order() {
    let mut world = World::new(3);
    let before = world.demand(0, "(golem.inf.mem.gib>=2)");
    world.offer(1, offer(4.0));
    world.offer(2, offer(1.0));
    let after = world.demand(0, "(golem.inf.mem.gib>=2)");
    for id in [before, after] {
        let proposals = world.proposals(0, Side::Requestor, &id);
        assert_eq!(proposals.len(), 1, "one offer is too small");
        assert_eq!(proposals[0].state, ProposalState::Initial);
        assert_eq!(proposals[0].issuer_id, world.nodes[1].me);
    }
}

#[test]
fn the_offers_constraints_count_too() {
    let mut world = World::new(2);
    world.offer(1, draft(json!({}), "(golem.node.debug.subnet=private)"));
    let id = world.demand(0, "()");
    assert!(world.proposals(0, Side::Requestor, &id).is_empty());
    let report = world.nodes[0].report(&id).unwrap();
    assert_eq!((report.offers, report.matching), (1, 0));
    assert_eq!(report.excluded[0].of, Side::Provider);
    assert_eq!(
        report.summary,
        "0 of 1 offers match; the provider's (golem.node.debug.subnet=private) excludes 1"
    );
}

#[test]
fn the_report_counts_each_clause() {
    let mut world = World::new(4);
    for (node, mem) in [(1, 1.0), (2, 2.0), (3, 8.0)] {
        world.offer(node, offer(mem));
    }
    let id = world.demand(0, "(&(golem.inf.mem.gib>=4)(golem.runtime.capabilities=gpu))");
    let report = world.nodes[0].report(&id).unwrap();
    let counts: Vec<_> =
        report.excluded.iter().map(|e| (e.clause.as_str(), e.offers, e.alone)).collect();
    assert_eq!(
        counts,
        [("(golem.runtime.capabilities=gpu)", 3, 1), ("(golem.inf.mem.gib>=4)", 2, 0)]
    );
    assert_eq!(report.excluded[0].example.as_deref(), Some("[\"vpn\"]"));
    let nobody = World::new(1);
    assert!(nobody.nodes[0].report(&id).is_err());
}

#[test]
fn a_refresh_of_the_same_offer_proposes_nothing_new_and_a_withdrawn_one_is_forgotten() {
    let mut world = World::new(2);
    let offer_id = world.offer(1, offer(4.0));
    let id = world.demand(0, "()");
    world.publish(1);
    assert_eq!(world.proposals(0, Side::Requestor, &id).len(), 1);
    world.nodes[1].unsubscribe(Side::Provider, &offer_id).unwrap();
    world.publish(1);
    world.offer(1, offer(4.0));
    assert_eq!(world.proposals(0, Side::Requestor, &id).len(), 1, "a new offer is new");
    world.pass(301);
    assert_eq!(world.nodes[0].known_offers().count(), 0, "sheets expire");
}

#[test]
fn proposals_link_back_and_both_sides_see_the_same() {
    let mut world = World::new(2);
    let (offer_id, demand_id, draft) = world.bargain();
    let theirs = world.nodes[0].proposal(Side::Requestor, &demand_id, &draft).unwrap();
    assert_eq!(theirs.state, ProposalState::Draft);
    let mine = theirs.prev_proposal_id.unwrap();
    let mine = world.nodes[0].proposal(Side::Requestor, &demand_id, &mine).unwrap();
    assert_eq!(mine.issuer_id, world.nodes[0].me);
    let seen = mine.proposal_id.replacen("R-", "P-", 1);
    let seen = world.nodes[1].proposal(Side::Provider, &offer_id, &seen).unwrap();
    assert_eq!(seen.draft, mine.draft);
    assert_eq!(seen.prev_proposal_id, None, "a provider never made the initial one");
}

#[test]
fn a_rejected_proposal_is_told_and_closed() {
    let mut world = World::new(2);
    let (offer_id, demand_id, draft) = world.bargain();
    let reason = Some(Reason::new("too dear"));
    world.nodes[0].reject(Side::Requestor, &demand_id, &draft, reason.clone()).unwrap();
    world.deliver();
    let events = world.events(1, Side::Provider, &offer_id);
    assert!(matches!(&events[..], [MarketEvent::ProposalRejectedEvent { reason: told, .. }]
        if *told == reason));
    let again = world.nodes[0].create_agreement(world.now, &draft, at(9999));
    assert!(matches!(again, Err(MarketError::Gone(_))));
    let again = world.nodes[0].reject(Side::Requestor, &demand_id, &draft, None);
    assert!(matches!(again, Err(MarketError::Gone(_))));
}

#[test]
fn a_proposal_is_answered_once_and_never_by_its_maker() {
    let mut world = World::new(2);
    world.offer(1, offer(4.0));
    let id = world.demand(0, "()");
    let initial = world.proposals(0, Side::Requestor, &id).remove(0).proposal_id;
    let mut counter = |proposal: &str| {
        world.nodes[0].counter(at(0), Side::Requestor, &id, proposal, demand("()"))
    };
    let mine = counter(&initial).unwrap();
    assert!(matches!(counter(&initial), Err(MarketError::Conflict(_))));
    assert!(matches!(counter(&mine), Err(MarketError::Invalid(_))));
    assert!(matches!(counter("R-0"), Err(MarketError::Unknown { .. })));
}

#[test]
fn an_offer_that_is_retired_is_still_negotiated_and_then_ends() {
    let mut world = World::new(2);
    let offer_id = world.offer(1, offer(4.0));
    let demand_id = world.demand(0, "()");
    world.nodes[1].retire_offer(world.now, &offer_id).unwrap();
    world.bargain_again(&offer_id, &demand_id);
    world.publish(1);
    assert_eq!(world.nodes[0].known_offers().count(), 0);
    world.pass(3601);
    assert!(world.nodes[1].unsubscribe(Side::Provider, &offer_id).is_err());
}

#[test]
fn what_cannot_be_delivered_counts_as_refused() {
    let mut world = World::new(2);
    world.offer(1, offer(4.0));
    let id = world.demand(0, "()");
    let initial = world.proposals(0, Side::Requestor, &id).remove(0).proposal_id;
    world.nodes[0].counter(at(0), Side::Requestor, &id, &initial, demand("()")).unwrap();
    let (_, transmit) = world.next_message().unwrap();
    world.nodes[0].delivery_failed(at(1), transmit, "no answer");
    let events = world.events(0, Side::Requestor, &id);
    let [MarketEvent::ProposalRejectedEvent { reason: Some(reason), .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert!(reason.message().contains("no answer"));
}

#[test]
fn long_polls_wait_answer_and_end_with_the_demand() {
    let mut world = World::new(2);
    let id = world.demand(0, "()");
    let poll = |world: &mut World, now| world.nodes[0].collect(now, Side::Requestor, &id, 1, at(5));
    assert_eq!(poll(&mut world, at(0)), Ok(LongPoll::Wait(at(5))));
    assert_eq!(poll(&mut world, at(5)), Ok(LongPoll::Answer(vec![])));
    world.offer(1, offer(1.0));
    world.nodes[1].subscribe_offer(at(0), offer(2.0)).unwrap();
    world.publish(1);
    for _ in 0..2 {
        let found = poll(&mut world, at(1));
        assert!(matches!(&found, Ok(LongPoll::Answer(events)) if events.len() == 1), "{found:?}");
    }
    world.nodes[0].unsubscribe(Side::Requestor, &id).unwrap();
    assert!(matches!(poll(&mut world, at(1)), Err(MarketError::Unknown { .. })));
}

#[test]
fn demands_end_by_themselves_and_are_limited() {
    let mut world = World::new(1);
    let id = world.demand(0, "()");
    for _ in 1..MAX_SUBSCRIPTIONS {
        world.demand(0, "()");
    }
    let more = world.nodes[0].subscribe_demand(at(0), demand("()"));
    assert!(matches!(more, Err(MarketError::TooMany(_))));
    // Before that, offers are judged once.
    world.pass(20);
    assert_eq!(world.nodes[0].poll_timeout(), Some(at(0) + DEMAND_LIFE));
    world.pass(24 * 3600 - 20);
    assert!(world.nodes[0].unsubscribe(Side::Requestor, &id).is_err());
    assert_eq!(world.nodes[0].poll_timeout(), None);
}

#[test]
fn a_proposal_that_was_fetched_may_be_answered_when_the_provider_has_renewed_its_offer() {
    let mut world = World::new(2);
    let old = world.offer(1, offer(4.0));
    let id = world.demand(0, "()");
    let initial = world.proposals(0, Side::Requestor, &id).remove(0).proposal_id;
    world.nodes[1].retire_offer(world.now, &old).unwrap();
    world.offer(1, offer(8.0));
    world.nodes[0].counter(world.now, Side::Requestor, &id, &initial, demand("()")).unwrap();
    world.deliver();
    assert_eq!(world.proposals(1, Side::Provider, &old).len(), 1);
    // Nothing takes the place of what is withdrawn.
    let initial = world.proposals(0, Side::Requestor, &id).remove(0).proposal_id;
    let offers: Vec<_> = world.nodes[1].offers().into_iter().map(|o| o.offer_id).collect();
    for offer in offers.iter().filter(|o| **o != old) {
        world.nodes[1].retire_offer(world.now, offer).unwrap();
    }
    world.publish(1);
    let answer = world.nodes[0].counter(world.now, Side::Requestor, &id, &initial, demand("()"));
    assert!(matches!(answer, Err(MarketError::Gone(_))), "{answer:?}");
    // What was not answered is forgotten after a while.
    world.offer(1, offer(4.0));
    let last = world.proposals(0, Side::Requestor, &id).remove(0).proposal_id;
    world.offer(1, offer(2.0));
    world.pass(3601);
    assert!(world.nodes[0].proposal(Side::Requestor, &id, &last).is_err() || last.is_empty());
}
