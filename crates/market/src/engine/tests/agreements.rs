use super::*;

#[test]
fn both_sides_reach_approved_with_both_signatures() {
    let mut world = World::new(2);
    let id = world.agree();
    for node in 0..2 {
        let agreement = world.nodes[node].agreement(id).unwrap();
        assert_eq!(agreement.state, AgreementState::Approved);
        assert!(agreement.approved_date.is_some());
        assert!(agreement.proposed_signature.is_some() && agreement.approved_signature.is_some());
        assert_eq!(world.agreement_events(node, None), [AgreementChange::AgreementApprovedEvent]);
        let side = if node == 0 { Side::Requestor } else { Side::Provider };
        let notice = world.nodes[node].poll_notice().unwrap();
        assert!(matches!(notice, Notice::Approved { side: s, .. } if s == side));
    }
    let mine = world.nodes[0].agreement(id).unwrap();
    let theirs = world.nodes[1].agreement(id).unwrap();
    assert_eq!((&mine.demand, &mine.offer), (&theirs.demand, &theirs.offer));
}

#[test]
fn events_are_filtered_by_session_and_date() {
    let mut world = World::new(2);
    let id = world.agree();
    assert_eq!(world.agreement_events(0, Some("session")).len(), 1);
    assert_eq!(world.agreement_events(0, Some("other")).len(), 0);
    let LongPoll::Answer(events) =
        world.nodes[0].agreement_events(world.now, None, 9, None, world.now)
    else {
        panic!()
    };
    let date = events[0].event_date;
    let poll = |deadline| world.nodes[0].agreement_events(at(1), Some(date), 9, None, deadline);
    assert_eq!(poll(at(6)), LongPoll::Wait(at(6)), "strictly later only");
    world.nodes[0].terminate(at(1), id, None).unwrap();
    assert_eq!(world.agreement_events(0, None).len(), 2);
}

#[test]
fn either_side_may_terminate_and_the_provider_is_offered_again() {
    for ends in 0..2 {
        let mut world = World::new(2);
        let id = world.agree();
        let demand_id = world.nodes[0].demands()[0].demand_id.clone();
        let offer_id = world.offer(1, offer(8.0));
        assert!(world.proposals(0, Side::Requestor, &demand_id).is_empty(), "it works already");
        let reason = Some(Reason::with_code("done", "golem.requestor.code", "Success"));
        world.nodes[ends].terminate(world.now, id, reason.clone()).unwrap();
        world.deliver();
        for node in 0..2 {
            assert_eq!(world.state(node, id), AgreementState::Terminated);
            let last = world.agreement_events(node, None).pop().unwrap();
            let by = if ends == 0 { Side::Requestor } else { Side::Provider };
            assert!(
                matches!(&last, AgreementChange::AgreementTerminatedEvent { terminator, reason: r, .. }
                if *terminator == by && *r == reason)
            );
            let again = world.nodes[node].terminate(world.now, id, None);
            assert!(matches!(again, Err(MarketError::Gone(_))));
        }
        let proposals = world.proposals(0, Side::Requestor, &demand_id);
        assert_eq!(proposals.len(), 2, "the old offer, which still stands, and the new one");
        assert!(world.nodes[1].offers().iter().any(|o| o.offer_id == offer_id));
    }
}

#[test]
fn a_provider_may_refuse_and_the_waiting_client_learns_why() {
    let mut world = World::new(2);
    let (_, _, proposal) = world.bargain();
    let id = world.nodes[0].create_agreement(world.now, &proposal, at(3600)).unwrap();
    let wait = |world: &World| world.nodes[0].await_approval(world.now, id, at(60));
    assert!(matches!(wait(&world), Err(MarketError::Conflict(_))), "not confirmed");
    world.nodes[0].confirm(world.now, id, None).unwrap();
    assert_eq!(wait(&world), Ok(LongPoll::Wait(at(60))));
    world.deliver();
    world.nodes[1].reject_agreement(world.now, id, Some(Reason::new("no room"))).unwrap();
    world.deliver();
    let Err(MarketError::Gone(message)) = wait(&world) else { panic!() };
    assert!(message.contains("no room"), "{message}");
    assert!(matches!(world.nodes[1].approve(world.now, id, None), Err(MarketError::Gone(_))));
}

#[test]
fn a_requestor_may_cancel_until_the_provider_has_answered() {
    let mut world = World::new(2);
    let (_, _, proposal) = world.bargain();
    let id = world.nodes[0].create_agreement(world.now, &proposal, at(3600)).unwrap();
    world.nodes[0].confirm(world.now, id, None).unwrap();
    world.nodes[0].cancel(world.now, id, None).unwrap();
    world.deliver();
    assert_eq!(world.state(1, id), AgreementState::Cancelled);
    assert!(matches!(world.nodes[1].approve(world.now, id, None), Err(MarketError::Gone(_))));

    let mut world = World::new(2);
    let id = world.agree();
    assert!(matches!(world.nodes[0].cancel(world.now, id, None), Err(MarketError::Conflict(_))));
}

#[test]
fn an_approval_that_crosses_a_cancellation_is_undone() {
    let mut world = World::new(2);
    let (_, _, proposal) = world.bargain();
    let id = world.nodes[0].create_agreement(world.now, &proposal, at(3600)).unwrap();
    world.nodes[0].confirm(world.now, id, None).unwrap();
    world.deliver();
    world.nodes[0].cancel(world.now, id, None).unwrap();
    world.nodes[1].approve(world.now, id, None).unwrap();
    world.deliver();
    assert_eq!(world.state(0, id), AgreementState::Cancelled);
    assert_eq!(world.state(1, id), AgreementState::Terminated);
}

#[test]
fn what_is_not_approved_in_time_expires() {
    let mut world = World::new(2);
    let (_, _, proposal) = world.bargain();
    let id = world.nodes[0].create_agreement(world.now, &proposal, at(60)).unwrap();
    world.nodes[0].confirm(world.now, id, None).unwrap();
    world.deliver();
    // Before that, offers are judged once.
    world.pass(20);
    assert_eq!(world.nodes[0].poll_timeout(), Some(at(60)));
    world.pass(40);
    assert_eq!(world.state(0, id), AgreementState::Expired);
    assert!(matches!(world.nodes[1].approve(world.now, id, None), Err(MarketError::Gone(_))));
    assert!(matches!(
        world.nodes[0].await_approval(world.now, id, at(99)),
        Err(MarketError::Gone(_))
    ));
}

#[test]
fn only_the_providers_answer_can_be_agreed_on_and_once() {
    let mut world = World::new(2);
    let offer_id = world.offer(1, offer(4.0));
    let demand_id = world.demand(0, "()");
    let initial = world.proposals(0, Side::Requestor, &demand_id).remove(0).proposal_id;
    let create = |world: &mut World, proposal: &str| {
        world.nodes[0].create_agreement(world.now, proposal, at(3600))
    };
    assert!(matches!(create(&mut world, &initial), Err(MarketError::Invalid(_))));
    let own =
        world.nodes[0].counter(at(0), Side::Requestor, &demand_id, &initial, demand("()")).unwrap();
    assert!(matches!(create(&mut world, &own), Err(MarketError::Invalid(_))));
    world.deliver();
    let theirs = world.proposals(1, Side::Provider, &offer_id).remove(0).proposal_id;
    world.nodes[1].counter(at(0), Side::Provider, &offer_id, &theirs, offer(4.0)).unwrap();
    world.deliver();
    let draft = world.proposals(0, Side::Requestor, &demand_id).remove(0).proposal_id;
    let past = world.nodes[0].create_agreement(at(0), &draft, at(-1));
    assert!(matches!(past, Err(MarketError::Invalid(_))));
    world.nodes[0].unsubscribe(Side::Requestor, &demand_id).unwrap();
    create(&mut world, &draft).expect("also after the demand has ended");
    assert!(matches!(create(&mut world, &draft), Err(MarketError::Conflict(_))));
}

#[test]
fn a_restart_keeps_agreements_and_demands_and_refuses_what_was_pending() {
    let mut world = World::new(2);
    let id = world.agree();
    let demand_id = world.nodes[0].demands()[0].demand_id.clone();
    for node in 0..2 {
        let mut kept = BTreeMap::new();
        while let Some(record) = world.nodes[node].poll_record() {
            let text = serde_json::to_string(&record).unwrap();
            kept.insert(record.key(), serde_json::from_str::<Record>(&text).unwrap());
        }
        let old = &world.nodes[node];
        let mut new = Market::new(old.identity.clone(), [9; 32]);
        new.restore(world.now, kept.into_values());
        assert_eq!(new.agreement(id), old.agreement(id));
        assert_eq!(new.poll_notice(), None);
        world.nodes[node] = new;
        assert_eq!(world.agreement_events(node, None).len(), 1);
    }
    assert_eq!(world.nodes[0].demands()[0].demand_id, demand_id);
    world.nodes[1].terminate(world.now, id, None).unwrap();
    world.deliver();
    assert_eq!(world.state(0, id), AgreementState::Terminated);

    let mut world = World::new(2);
    let (_, _, proposal) = world.bargain();
    let id = world.nodes[0].create_agreement(world.now, &proposal, at(3600)).unwrap();
    world.nodes[0].confirm(world.now, id, None).unwrap();
    world.deliver();
    let records: Vec<_> = std::iter::from_fn(|| world.nodes[1].poll_record()).collect();
    let mut new = Market::new(world.nodes[1].identity.clone(), [9; 32]);
    let last: BTreeMap<_, _> = records.into_iter().map(|r| (r.key(), r)).collect();
    new.restore(world.now, last.into_values());
    world.nodes[1] = new;
    world.deliver();
    assert_eq!(world.state(0, id), AgreementState::Rejected);
}

#[test]
fn lists_are_filtered() {
    let mut world = World::new(2);
    let id = world.agree();
    let list = |filter: AgreementFilter| world.nodes[0].agreements(&filter);
    let all = list(AgreementFilter::default());
    assert_eq!((all[0].id, all[0].role), (id, Side::Requestor));
    for filter in [
        AgreementFilter { state: Some(AgreementState::Terminated), ..Default::default() },
        AgreementFilter { before: Some(at(0)), ..Default::default() },
        AgreementFilter { after: Some(at(99)), ..Default::default() },
        AgreementFilter { session: Some("other".into()), ..Default::default() },
    ] {
        assert!(list(filter).is_empty());
    }
}
