//! Multicast and broadcast: who gets a copy.

mod world;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use gvpn_model::{MemberId, NodeId};
use gvpn_roster::{Action, Policy, Rule, Selector};
use gvpn_switch::{DropReason, MAX_GROUPS, MEMBERSHIP_LIFETIME, Table, Targets, Verdict};
use proptest::prelude::*;
use world::*;

const SECOND: u64 = 1_000_000_000;

/// An IGMPv2 report (join) or leave.
fn igmp(from: &str, group: &str, join: bool) -> Vec<u8> {
    let IpAddr::V4(address) = ip(group) else { panic!() };
    let mut message = vec![if join { 0x16 } else { 0x17 }, 0, 0, 0];
    message.extend(address.octets());
    packet(from, group, 2, &message)
}

/// An MLDv1 report, as Linux sends it: with a hop-by-hop router alert, from a link-local address.
fn mld(group: &str) -> Vec<u8> {
    let IpAddr::V6(address) = ip(group) else { panic!() };
    let mut message = vec![58, 0, 5, 2, 0, 0, 1, 0, 131, 0, 0, 0, 0, 0, 0, 0];
    message.extend(address.octets());
    packet("fe80::1234", group, 0, &message)
}

fn report(table: &Table, member: u32, packet: &[u8], now: u64) {
    let port = ix(table, member);
    assert_eq!(table.from_port(port, packet), Verdict::Answer);
    assert_eq!(table.answer(port, packet, now), None);
}

fn replicated(verdict: Verdict) -> Targets {
    match verdict {
        Verdict::Replicate(targets) => targets,
        other => panic!("{other:?}"),
    }
}

fn nodes(table: &Table, targets: &Targets) -> Vec<NodeId> {
    targets.nodes().iter().map(|ix| table.nodes()[ix.0 as usize]).collect()
}

#[test]
fn everybody_gets_a_broadcast_once() {
    let world = World::new();
    let table = world.table(node(1));
    for to in ["255.255.255.255", "10.0.0.255", "224.0.0.1"] {
        let packet = udp("10.0.0.2", to, (1, 2), b"x");
        let targets = replicated(table.from_port(ix(&table, 1), &packet));
        assert_eq!(targets.local(), [ix(&table, 1), ix(&table, 2)], "{to}");
        assert_eq!(targets.nodes().len(), 2, "one copy for each other node: {to}");
        // What comes from a peer goes to no other peer: there are no loops.
        let peer = table.node_ix(&node(2)).unwrap();
        let packet = udp("10.0.0.4", to, (1, 2), b"x");
        let targets = replicated(table.from_peer(peer, &packet));
        assert_eq!(targets.local(), [ix(&table, 1), ix(&table, 2)]);
        assert!(targets.nodes().is_empty());
    }
    let spoofed = udp("10.0.0.3", "255.255.255.255", (1, 2), b"x");
    let verdict = table.from_port(ix(&table, 1), &spoofed);
    assert_eq!(verdict, Verdict::Drop(DropReason::SpoofedSource));
}

#[test]
fn a_group_reaches_those_who_joined() {
    let world = World::new();
    let table = world.table(node(1));
    let owner = world.book.roster().owner;
    for (group, from, join) in [
        ("239.1.1.1", "10.0.0.2", igmp("10.0.0.3", "239.1.1.1", true)),
        ("224.0.0.251", "10.0.0.2", igmp("0.0.0.0", "224.0.0.251", true)),
        ("ff02::fb", "fd00::2", mld("ff02::fb")),
        ("ff05::1:3", "fd00::2", mld("ff05::1:3")),
    ] {
        let packet = udp(from, group, (1, 2), b"x");
        // Nodes that did not announce anything get everything; they know who listens there.
        let targets = replicated(table.from_port(ix(&table, 1), &packet));
        assert_eq!((targets.local().len(), targets.nodes().len()), (0, 2), "{group}");
        report(&table, 2, &join, SECOND);
        let targets = replicated(table.from_port(ix(&table, 1), &packet));
        assert_eq!(targets.local(), [ix(&table, 2)]);
        table.live().announce(node(2), vec![ip(group)]);
        table.live().announce(owner, vec![]);
        let targets = replicated(table.from_port(ix(&table, 1), &packet));
        assert_eq!(nodes(&table, &targets), [node(2)]);
        table.live().announce(node(2), vec![]);
        let targets = replicated(table.from_port(ix(&table, 1), &packet));
        assert!(targets.nodes().is_empty());
        assert!(table.live().groups().contains(&ip(group)));
        table.live().forget_node(owner);
        table.live().forget_node(node(2));
    }
    report(&table, 2, &igmp("10.0.0.3", "239.1.1.1", false), SECOND);
    assert!(!table.live().groups().contains(&ip("239.1.1.1")));
    table.live().announce(node(2), vec![]);
    table.live().announce(owner, vec![]);
    let packet = udp("10.0.0.2", "239.1.1.1", (1, 2), b"x");
    let nobody = table.from_port(ix(&table, 1), &packet);
    assert_eq!(nobody, Verdict::Drop(DropReason::NoListener));
}

#[test]
fn memberships_live_on_in_the_next_epoch_and_end_with_their_member() {
    let mut world = World::new();
    let table = world.table(node(1));
    report(&table, 2, &igmp("10.0.0.3", "239.1.1.1", true), SECOND);
    world.book.add_node(node(5), ip("10.0.0.9")).unwrap();
    let next = table.rebuild(world.book.roster());
    let packet = udp("10.0.0.2", "239.1.1.1", (1, 2), b"x");
    let targets = replicated(next.from_port(ix(&next, 1), &packet));
    assert_eq!((targets.local(), targets.nodes().len()), (&[ix(&next, 2)][..], 3));
    world.book.remove_member(MemberId(2)).unwrap();
    let last = next.rebuild(world.book.roster());
    assert!(replicated(last.from_port(ix(&last, 1), &packet)).local().is_empty());
    assert!(last.live().groups().is_empty());
}

#[test]
fn memberships_that_nobody_confirms_end() {
    let world = World::new();
    let table = world.table(node(1));
    report(&table, 1, &igmp("10.0.0.2", "239.1.1.1", true), SECOND);
    report(&table, 2, &igmp("10.0.0.3", "239.1.1.2", true), SECOND);
    let later = MEMBERSHIP_LIFETIME / 2;
    report(&table, 2, &igmp("10.0.0.3", "239.1.1.2", true), later);
    table.live().expire(MEMBERSHIP_LIFETIME + 2 * SECOND);
    assert_eq!(table.live().groups(), [ip("239.1.1.2")].into());
    table.live().forget_member(MemberId(2));
    assert!(table.live().groups().is_empty());
    assert_eq!(table.membership_queries().len(), 2, "v4 and v6");
}

#[test]
fn a_flood_of_joins_is_counted_and_bounded() {
    let world = World::new();
    let table = world.table(node(1));
    for n in 0..1000u32 {
        let group = format!("239.7.{}.{}", n / 250, n % 250);
        report(&table, 1, &igmp("10.0.0.2", &group, true), SECOND);
    }
    assert_eq!(table.live().groups().len(), MAX_GROUPS);
    assert!(table.live().refused_groups() >= 1000 - MAX_GROUPS as u64 - 1);
    // In and out again and again: soon too often.
    for n in 0..1000 {
        report(&table, 2, &igmp("10.0.0.3", "239.1.1.1", n % 2 == 0), SECOND);
    }
    assert!(table.live().refused_groups() > 1000);
    // The other member's memberships are its own.
    report(&table, 2, &igmp("10.0.0.3", "239.1.1.9", true), 30 * SECOND);
    assert!(table.live().groups().contains(&ip("239.1.1.9")));
}

#[test]
fn the_node_is_told_what_changed_and_what_is_wanted() {
    let world = World::new();
    let table = world.table(node(1));
    let told = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&told);
    table.live().watch(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    let told = || told.load(Ordering::Relaxed);
    report(&table, 2, &igmp("10.0.0.3", "239.1.1.1", true), SECOND);
    assert_eq!(told(), 1);
    report(&table, 2, &igmp("10.0.0.3", "239.1.1.1", true), SECOND);
    assert_eq!(told(), 1, "a confirmation is no news");
    let packet = udp("10.0.0.2", "239.1.1.1", (1, 2), b"x");
    for _ in 0..5 {
        table.from_port(ix(&table, 1), &packet);
    }
    assert_eq!(told(), 2, "asked for once");
    assert!(table.live().wants_groups());
    assert!(!table.live().wants_groups());
}

#[test]
fn multicast_obeys_policy_and_limit() {
    let mut world = World::new();
    let to_db = Selector::Member(MemberId(2));
    let rule = Rule {
        id: 1,
        action: Action::Deny,
        from: Selector::Any,
        to: to_db,
        protocol: Default::default(),
        ports: vec![],
    };
    world.policy(Policy {
        rules: vec![rule],
        multicast_packets_per_second: 100,
        ..Default::default()
    });
    let table = world.table(node(1));
    report(&table, 2, &igmp("10.0.0.3", "239.1.1.1", true), SECOND);
    let packet = udp("10.0.0.2", "239.1.1.1", (1, 2), b"x");
    let verdict = table.from_port(ix(&table, 1), &packet);
    let targets = replicated(verdict.clone());
    assert!(targets.local().is_empty() && !targets.nodes().is_empty(), "db may not have it");
    let passed =
        (0..10_000).filter(|n| table.admit(&packet, &verdict, 100, 1, SECOND + n * 100_000));
    assert!((100..120).contains(&passed.count()), "a hundred a second");
    world.policy(Policy { multicast: false, ..Default::default() });
    let table = world.table(node(1));
    let off = Verdict::Drop(DropReason::MulticastOff);
    assert_eq!(table.from_port(ix(&table, 1), &packet), off);
    let broadcast = udp("10.0.0.2", "255.255.255.255", (1, 2), b"x");
    assert_eq!(table.from_port(ix(&table, 1), &broadcast), off);
}

proptest! {
    /// Against a model: a set of (member, group) on three nodes that tell each other the truth.
    #[test]
    fn exactly_the_joined_get_a_copy(steps in prop::collection::vec((0u8..4, 0u8..4, any::<bool>()), 0..60)) {
        let world = World::new();
        let owner = world.book.roster().owner;
        let homes = [(0u32, owner), (1, node(1)), (2, node(1)), (3, node(2))];
        let tables: Vec<_> = [owner, node(1), node(2)].map(|n| (n, world.table(n))).into();
        let mut model = std::collections::BTreeSet::new();
        for (n, (member, group, join)) in steps.into_iter().enumerate() {
            let (id, home) = homes[usize::from(member)];
            let (_, table) = tables.iter().find(|(n, _)| *n == home).unwrap();
            let group = format!("239.0.0.{}", group + 1);
            report(table, id, &igmp(&format!("10.0.0.{}", id + 1), &group, join), n as u64 * SECOND);
            if join { model.insert((id, group)); } else { model.remove(&(id, group)); }
        }
        for (home, table) in &tables {
            for (other, told) in &tables {
                if other != home {
                    told.live().announce(*home, table.live().groups().into_iter().collect());
                }
            }
        }
        for (from, home) in homes {
            for group in (1..5).map(|g| format!("239.0.0.{g}")) {
                let packet = udp(&format!("10.0.0.{}", from + 1), &group, (1, 2), b"x");
                let (_, table) = tables.iter().find(|(n, _)| *n == home).unwrap();
                let mut got = std::collections::BTreeSet::new();
                if let Verdict::Replicate(targets) = table.from_port(ix(table, from), &packet) {
                    got.extend(targets.local().iter().map(|ix| table.members()[ix.0 as usize].id.0));
                    for peer in nodes(table, &targets) {
                        let (_, there) = tables.iter().find(|(n, _)| *n == peer).unwrap();
                        let targets = replicated(there.from_peer(there.node_ix(&home).unwrap(), &packet));
                        prop_assert!(targets.nodes().is_empty());
                        got.extend(targets.local().iter().map(|ix| there.members()[ix.0 as usize].id.0));
                    }
                }
                let want = model.iter().filter(|(_, g)| *g == group).map(|(id, _)| *id).collect();
                prop_assert_eq!(got, want);
            }
        }
    }
}
