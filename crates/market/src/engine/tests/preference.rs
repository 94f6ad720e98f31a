//! Two demands of one requestor, and too few providers.

use super::*;

const VM: &str = "(golem.runtime.name=vm)";

impl World {
    /// Providers 1.. make an offer each; the ids.
    fn offers(&mut self) -> Vec<SubscriptionId> {
        (1..self.nodes.len()).map(|i| self.offer(i, offer(4.0))).collect()
    }

    /// The nodes whose offers a demand has been proposed since it was asked the last time.
    fn proposed(&mut self, demand: &SubscriptionId) -> Vec<(usize, String)> {
        let proposals = self.proposals(0, Side::Requestor, demand);
        let number = |id| self.nodes.iter().position(|n| n.me == id).unwrap();
        proposals.into_iter().map(|p| (number(p.issuer_id), p.proposal_id)).collect()
    }

    /// Answers an initial proposal; the provider's answer.
    fn haggle(
        &mut self,
        demand_id: &SubscriptionId,
        initial: &str,
        provider: usize,
        offer_id: &SubscriptionId,
    ) -> String {
        let now = self.now;
        self.nodes[0].counter(now, Side::Requestor, demand_id, initial, demand(VM)).unwrap();
        self.deliver();
        let theirs = self.proposals(provider, Side::Provider, offer_id).remove(0).proposal_id;
        let answer = offer(4.0);
        self.nodes[provider].counter(now, Side::Provider, offer_id, &theirs, answer).unwrap();
        self.deliver();
        self.proposed(demand_id).pop().unwrap().1
    }

    fn sign(&mut self, proposal: &str) -> AgreementId {
        let valid_to = self.now + TimeDelta::hours(1);
        let id = self.nodes[0].create_agreement(self.now, proposal, valid_to).unwrap();
        self.nodes[0].confirm(self.now, id, None).unwrap();
        self.deliver();
        id
    }

    fn approve(&mut self, provider: usize, id: AgreementId) {
        self.nodes[provider].approve(self.now, id, None).unwrap();
        self.deliver();
        assert_eq!(self.state(0, id), AgreementState::Approved);
    }

    /// An agreement in force with node 1, made for a demand that is the first.
    fn rent_the_first(&mut self, offers: &[SubscriptionId]) -> (SubscriptionId, AgreementId) {
        let demand = self.demand(0, VM);
        let proposed = self.proposed(&demand);
        let (_, initial) = proposed.iter().find(|(node, _)| *node == 1).unwrap();
        let draft = self.haggle(&demand, initial, 1, &offers[0]);
        let id = self.sign(&draft);
        self.approve(1, id);
        self.events(1, Side::Provider, &offers[0]);
        (demand, id)
    }
}

#[test]
fn a_second_demand_gets_the_providers_that_are_free() {
    let mut world = World::new(3);
    let offers = world.offers();
    let (_, agreement) = world.rent_the_first(&offers);
    let second = world.demand(0, VM);
    let nodes: Vec<_> = world.proposed(&second).into_iter().map(|(node, _)| node).collect();
    assert_eq!(nodes, [2]);
    // It ends: the provider is to be had again.
    world.nodes[0].terminate(world.now, agreement, None).unwrap();
    let nodes: Vec<_> = world.proposed(&second).into_iter().map(|(node, _)| node).collect();
    assert_eq!(nodes, [1]);
}

#[test]
fn of_two_demands_that_bargain_at_once_one_gets_the_provider() {
    let mut world = World::new(3);
    let offers = world.offers();
    let demands = [world.demand(0, VM), world.demand(0, VM)];
    let mut drafts = Vec::new();
    for demand in &demands {
        let mut of_demand = vec![String::new(); 3];
        for (node, initial) in world.proposed(demand) {
            of_demand[node] = world.haggle(demand, &initial, node, &offers[node - 1]);
        }
        drafts.push(of_demand);
    }
    let first = world.sign(&drafts[0][1]);
    assert_eq!(world.state(0, first), AgreementState::Pending);
    // Asked for the same provider, the second demand hears no, and takes the other.
    let same = world.sign(&drafts[1][1]);
    assert_eq!(world.state(0, same), AgreementState::Rejected);
    let why = world.nodes[0].await_approval(world.now, same, world.now).unwrap_err().to_string();
    assert!(why.contains("another one that matches is free"), "{why}");
    let other = world.sign(&drafts[1][2]);
    assert_eq!(world.state(0, other), AgreementState::Pending);
    world.approve(1, first);
    world.approve(2, other);
    // When the first is over, the second demand may have its provider.
    world.nodes[0].terminate(world.now, first, None).unwrap();
    assert!(world.proposed(&demands[1]).iter().any(|(node, _)| *node == 1));
}

#[test]
fn the_only_provider_works_for_two_demands() {
    let mut world = World::new(2);
    let offers = world.offers();
    world.rent_the_first(&offers);
    let second = world.demand(0, VM);
    let proposed = world.proposed(&second);
    assert_eq!(proposed.len(), 1);
    let draft = world.haggle(&second, &proposed[0].1, 1, &offers[0]);
    let id = world.sign(&draft);
    world.approve(1, id);
}

#[test]
fn providers_that_say_no_are_not_free() {
    let mut world = World::new(3);
    let offers = world.offers();
    world.rent_the_first(&offers);
    let second = world.demand(0, VM);
    let (node, initial) = world.proposed(&second).remove(0);
    assert_eq!(node, 2);
    let now = world.now;
    world.nodes[0].counter(now, Side::Requestor, &second, &initial, demand(VM)).unwrap();
    world.deliver();
    let theirs = world.proposals(2, Side::Provider, &offers[1]).remove(0).proposal_id;
    world.nodes[2].reject(Side::Provider, &offers[1], &theirs, None).unwrap();
    world.deliver();
    let events = world.events(0, Side::Requestor, &second);
    assert!(matches!(&events[..], [
        MarketEvent::ProposalRejectedEvent { .. },
        MarketEvent::ProposalEvent { proposal, .. },
    ] if proposal.issuer_id == world.nodes[1].me));
}

#[test]
fn a_client_that_wants_none_of_the_free_gets_the_others_later() {
    let mut world = World::new(3);
    let offers = world.offers();
    world.rent_the_first(&offers);
    let second = world.demand(0, VM);
    assert_eq!(world.proposed(&second).len(), 1);
    let next = world.nodes[0].poll_timeout().unwrap();
    assert!(next <= world.now + SECOND_CHOICE);
    world.pass(SECOND_CHOICE.num_seconds() - 1);
    assert_eq!(world.proposed(&second), []);
    world.pass(1);
    assert_eq!(world.proposed(&second)[0].0, 1);
    assert!(world.nodes[0].poll_timeout().unwrap() > world.now, "it asks to be woken for nothing");
}

#[test]
fn a_demand_that_nobody_matches_is_told_of_once() {
    let mut world = World::new(2);
    world.offer(1, offer(4.0));
    world.demand(0, VM);
    let lonely = world.demand(0, "(golem.inf.mem.gib>=9000)");
    world.pass(14);
    assert_eq!(world.nodes[0].poll_notice(), None);
    world.pass(1);
    let told = world.nodes[0].poll_notice();
    assert!(
        matches!(&told, Some(Notice::NobodyMatches { demand, summary })
        if *demand == lonely && summary.contains("9000) excludes 1")),
        "{told:?}"
    );
    world.pass(60);
    assert_eq!(world.nodes[0].poll_notice(), None);
    assert!(world.nodes[0].poll_timeout().unwrap() > world.now);
}
