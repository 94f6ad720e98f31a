//! Nodes that lie.

use super::*;
use crate::{Terms, WireProposal};

fn propose_agreement(world: &mut World) -> (AgreementId, MarketMessage) {
    let (_, _, proposal) = world.bargain();
    let id = world.nodes[0].create_agreement(world.now, &proposal, at(3600)).unwrap();
    world.nodes[0].confirm(world.now, id, None).unwrap();
    let (_, transmit) = world.next_message().unwrap();
    (id, transmit.message)
}

#[test]
fn a_stranger_cannot_touch_a_negotiation_or_an_agreement() {
    let mut world = World::new(3);
    let id = world.agree();
    let stranger = world.nodes[2].me;
    let signature = world.nodes[2].identity.sign("gvpn agreement terminated v1", id.as_bytes());
    for node in 0..2 {
        let end = MarketMessage::TerminateAgreement {
            agreement: id,
            reason: None,
            signature: signature.clone(),
        };
        world.nodes[node].handle_message(at(0), stranger, end.clone());
        // Nor with the right sender and another's signature.
        let peer = world.nodes[1 - node].me;
        world.nodes[node].handle_message(at(0), peer, end);
        assert_eq!(world.state(node, id), AgreementState::Approved);
    }
}

#[test]
fn an_approval_needs_the_providers_signature() {
    let mut world = World::new(3);
    let (id, message) = propose_agreement(&mut world);
    let (requestor, provider) = (world.nodes[0].me, world.nodes[1].me);
    world.nodes[1].handle_message(at(0), requestor, message);
    let signature = world.nodes[2].identity.sign("gvpn agreement approved v1", b"whatever");
    let approve = MarketMessage::ApproveAgreement { agreement: id, date: at(0), signature };
    world.nodes[0].handle_message(at(0), provider, approve);
    assert_eq!(world.state(0, id), AgreementState::Pending);
}

#[test]
fn changed_terms_are_refused() {
    let mut world = World::new(2);
    let (_, message) = propose_agreement(&mut world);
    let MarketMessage::ProposeAgreement { proposal, terms, .. } = message else { panic!() };
    let mut changed: Terms = serde_json::from_str(&terms).unwrap();
    changed.offer.draft.properties.set("golem.inf.mem.gib", 1000.0);
    let terms = serde_json::to_string(&changed).unwrap();
    let signature = world.nodes[0].identity.sign("gvpn agreement proposed v1", terms.as_bytes());
    let from = world.nodes[0].me;
    let message = MarketMessage::ProposeAgreement { proposal, terms, signature };
    world.nodes[1].handle_message(at(0), from, message);
    let Some(Transmit {
        message: MarketMessage::RejectAgreement { reason: Some(reason), .. }, ..
    }) = world.nodes[1].poll_transmit()
    else {
        panic!("the provider must say no")
    };
    assert!(reason.message().contains("terms"), "{reason:?}");
}

#[test]
fn proposals_from_nowhere_are_answered_with_a_reason() {
    let mut world = World::new(3);
    let (offer_id, demand_id, draft) = world.bargain();
    let stranger = world.nodes[2].me;
    let wire = |answers: Option<&str>, offer: &SubscriptionId, n: u8| WireProposal {
        id: ProposalId::from_bytes([n; 32]),
        answers: answers.and_then(ProposalId::read),
        offer: offer.clone(),
        demand: demand_id.clone(),
        demand_made: at(0),
        made: at(0),
        draft: demand("()"),
    };
    let gone = SubscriptionId::from("gone");
    for (node, proposal) in [
        (1, wire(Some(&draft), &offer_id, 1)),
        (1, WireProposal { demand: gone.clone(), ..wire(None, &gone, 2) }),
        (0, wire(None, &gone, 3)),
        (1, WireProposal { draft: super::draft(json!({}), "()"), ..wire(None, &offer_id, 4) }),
        (1, WireProposal { draft: demand("((("), ..wire(None, &offer_id, 5) }),
    ] {
        let id = proposal.id.clone();
        world.nodes[node].handle_message(at(0), stranger, MarketMessage::Propose(proposal));
        let answer = world.nodes[node].poll_transmit().map(|t| t.message);
        assert!(
            matches!(&answer, Some(MarketMessage::RejectProposal { proposal, reason: Some(_) }) if *proposal == id),
            "{answer:?}"
        );
    }
}

#[test]
fn a_flood_of_proposals_keeps_the_newest_only() {
    let mut world = World::new(3);
    let offer_id = world.offer(1, offer(4.0));
    let stranger = world.nodes[2].me;
    for n in 0..1000_u32 {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        let wire = WireProposal {
            id: ProposalId::from_bytes(id),
            answers: None,
            offer: offer_id.clone(),
            demand: SubscriptionId::from("d"),
            demand_made: at(0),
            made: at(0),
            draft: demand("()"),
        };
        world.nodes[1].handle_message(at(i64::from(n)), stranger, MarketMessage::Propose(wire));
    }
    assert_eq!(world.nodes[1].negotiations.len(), MAX_NEGOTIATIONS_PER_NODE);
}
