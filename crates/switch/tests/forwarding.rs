//! Where packets go, and which are stopped.

mod world;

use gvpn_model::MemberId;
use gvpn_roster::{
    Action, MemberEdit, Policy, PortRange, Protocol, Route, Rule, Selector, SettingsEdit,
};
use gvpn_switch::{
    DropReason, Table, Verdict,
    trace::{Outcome, Question, Step},
};
use proptest::prelude::*;
use world::*;

fn dropped(reason: DropReason) -> Verdict {
    Verdict::Drop(reason)
}

#[test]
fn packets_go_to_the_member_that_has_the_address() {
    let world = World::new();
    let table = world.table(node(1));
    let (web, db, far) = (ix(&table, 1), ix(&table, 2), ix(&table, 3));
    for (from, to, want) in
        [("10.0.0.2", "10.0.0.3", db), ("fd00::2", "fd00::4", far), ("10.0.0.2", "10.0.0.2", web)]
    {
        assert_eq!(table.from_port(web, &ping(from, to)), Verdict::Deliver(want), "{to}");
    }
    assert!(table.members()[db.0 as usize].local);
    assert!(!table.members()[far.0 as usize].local);
    let nobody = table.from_port(web, &ping("10.0.0.2", "10.0.0.99"));
    assert_eq!(nobody, dropped(DropReason::NoSuchMember));
    let peer = table.node_ix(&node(2)).unwrap();
    assert_eq!(table.from_peer(peer, &ping("fd00::4", "fd00::3")), Verdict::Deliver(db));
    let through = table.from_peer(peer, &ping("10.0.0.4", "10.0.0.1"));
    assert_eq!(through, dropped(DropReason::NotHere), "no transit to the owner's node");
    assert_eq!(
        table.from_peer(peer, &ping("10.0.0.4", "10.0.0.254")),
        dropped(DropReason::NotHere)
    );
}

#[test]
fn nobody_sends_from_an_address_that_is_not_theirs() {
    let world = World::new();
    let table = world.table(node(1));
    let peer = table.node_ix(&node(2)).unwrap();
    for source in ["10.0.0.3", "10.0.0.1", "10.0.0.254", "10.0.0.77", "8.8.8.8", "255.255.255.255"]
    {
        let packet = ping(source, "10.0.0.2");
        let spoofed = dropped(DropReason::SpoofedSource);
        assert_eq!(table.from_port(ix(&table, 1), &packet), spoofed, "{source}");
        assert_eq!(table.from_peer(peer, &packet), spoofed, "{source}");
    }
    // A link-local address follows from the member's id, and is guarded like the others.
    let own = format!("{}", world.book.roster().members[1].link_local());
    let packet = ping(&own, "fd00::4");
    assert_eq!(table.from_port(ix(&table, 1), &packet), Verdict::Deliver(ix(&table, 3)));
    assert_eq!(table.from_port(ix(&table, 2), &packet), dropped(DropReason::SpoofedSource));
}

#[test]
fn a_route_leads_through_its_member_and_back() {
    let mut world = World::new();
    let wide = Route { destination: "0.0.0.0/0".parse().unwrap(), via: MemberId(1) };
    let narrow = Route { destination: "192.168.7.0/24".parse().unwrap(), via: MemberId(3) };
    let edit = SettingsEdit { routes: Some(vec![wide, narrow]), ..Default::default() };
    world.book.edit_settings(edit).unwrap();
    let table = world.table(node(1));
    let (web, db, far) = (ix(&table, 1), ix(&table, 2), ix(&table, 3));
    for (to, want) in [("192.168.7.9", far), ("8.8.8.8", web)] {
        assert_eq!(table.from_port(db, &ping("10.0.0.3", to)), Verdict::Deliver(want), "{to}");
    }
    let peer = table.node_ix(&node(2)).unwrap();
    assert_eq!(table.from_peer(peer, &ping("192.168.7.9", "10.0.0.3")), Verdict::Deliver(db));
    let stolen = table.from_peer(peer, &ping("8.8.8.8", "10.0.0.3"));
    assert_eq!(stolen, dropped(DropReason::SpoofedSource), "that route is another member's");
    // Inside the prefixes only members count, whatever the routes say.
    assert_eq!(
        table.from_port(db, &ping("10.0.0.3", "10.0.0.99")),
        dropped(DropReason::NoSuchMember)
    );
}

#[test]
fn rules_decide_in_order_on_both_ends() {
    let mut world = World::new();
    let groups = |g: &str| MemberEdit { groups: Some(vec![g.into()]), ..Default::default() };
    world.edit(1, groups("clients"));
    world.edit(3, groups("servers"));
    let rule = |id, action, from: &str, to: &str, protocol, port: Option<u16>| Rule {
        id,
        action,
        from: if from == "*" { Selector::Any } else { Selector::Group(from.into()) },
        to: if to == "*" { Selector::Any } else { Selector::Group(to.into()) },
        protocol,
        ports: port.map(|p| PortRange { first: p, last: p }).into_iter().collect(),
    };
    world.policy(Policy {
        default: Action::Deny,
        rules: vec![
            rule(1, Action::Deny, "clients", "servers", Protocol::Tcp, Some(22)),
            rule(2, Action::Allow, "clients", "servers", Protocol::Tcp, None),
            rule(3, Action::Allow, "*", "*", Protocol::Icmp, None),
            rule(4, Action::Allow, "clients", "servers", Protocol::Udp, Some(53)),
        ],
        ..Default::default()
    });
    let (here, there) = (world.table(node(1)), world.table(node(2)));
    let (client, server) = ("10.0.0.2", "10.0.0.4");
    let cases = [
        (tcp(client, server, (40000, 80), 2), true, "allowed"),
        (tcp(client, server, (40000, 22), 2), false, "denied by the first rule"),
        (udp(client, server, (40000, 53), b"?"), true, "a port that is allowed"),
        (udp(client, server, (40000, 54), b"?"), false, "a port that is not"),
        (ping(client, server), true, "icmp"),
        (packet(client, server, 47, &[0; 8]), false, "the default"),
    ];
    for (packet, passes, why) in &cases {
        let at_port = here.from_port(ix(&here, 1), packet);
        let at_peer = there.from_peer(there.node_ix(&node(1)).unwrap(), packet);
        let want = |table: &Table| match passes {
            true => Verdict::Deliver(ix(table, 3)),
            false => dropped(DropReason::Denied),
        };
        assert_eq!((at_port, at_peer), (want(&here), want(&there)), "{why}");
    }
    // Replies pass where requests do; nothing else comes back.
    let back = |packet: Vec<u8>| there.from_port(ix(&there, 3), &packet);
    let client_ix = ix(&there, 1);
    assert_eq!(back(tcp(server, client, (80, 40000), 0x12)), Verdict::Deliver(client_ix));
    assert_eq!(back(udp(server, client, (53, 40000), b"!")), Verdict::Deliver(client_ix));
    assert_eq!(back(tcp(server, client, (80, 40000), 2)), dropped(DropReason::Denied), "a SYN");
    assert_eq!(back(udp(server, client, (54, 40000), b"!")), dropped(DropReason::Denied));
    // Rules are counted, and go on counting in the next epoch.
    let hits: Vec<_> = here.live().rule_hits();
    assert_eq!(hits, [(1, 1), (2, 1), (3, 1), (4, 1)]);
    let next = here.rebuild(world.book.roster());
    next.from_port(ix(&next, 1), &cases[0].0);
    assert_eq!(here.live().rule_hits()[1], (2, 2));
}

#[test]
fn fragments_without_ports_follow_the_allowing_rules() {
    let mut world = World::new();
    let ports = vec![PortRange { first: 80, last: 80 }];
    let rule = Rule {
        id: 1,
        action: Action::Allow,
        from: Selector::Any,
        to: Selector::Any,
        protocol: Protocol::Udp,
        ports,
    };
    world.policy(Policy { default: Action::Deny, rules: vec![rule], ..Default::default() });
    let table = world.table(node(1));
    let mut later = packet("10.0.0.2", "10.0.0.3", 17, &[9; 16]);
    later[7] = 5;
    assert_eq!(table.from_port(ix(&table, 1), &later), Verdict::Deliver(ix(&table, 2)));
    later[9] = 6;
    assert_eq!(table.from_port(ix(&table, 1), &later), dropped(DropReason::Denied));
}

#[test]
fn quarantine_cuts_a_member_off_at_once() {
    let mut world = World::new();
    let before = world.table(node(1));
    world.edit(2, MemberEdit { quarantined: Some(true), ..Default::default() });
    let table = before.rebuild(world.book.roster());
    let cut = dropped(DropReason::Quarantined);
    let peer = table.node_ix(&node(2)).unwrap();
    assert_eq!(table.from_port(ix(&table, 1), &ping("10.0.0.2", "10.0.0.3")), cut);
    assert_eq!(table.from_port(ix(&table, 2), &ping("10.0.0.3", "10.0.0.2")), cut);
    assert_eq!(table.from_port(ix(&table, 2), &ping("10.0.0.3", "10.0.0.254")), cut);
    assert_eq!(table.from_peer(peer, &ping("10.0.0.4", "10.0.0.3")), cut);
    let broadcast = table.from_peer(peer, &udp("10.0.0.4", "255.255.255.255", (1, 2), b""));
    let Verdict::Replicate(targets) = broadcast else { panic!("{broadcast:?}") };
    assert_eq!(targets.local(), [ix(&table, 1)], "not even broadcasts");
}

#[test]
fn a_trace_says_what_would_happen_and_why() {
    let mut world = World::new();
    let rule = Rule {
        id: 9,
        action: Action::Deny,
        from: Selector::Any,
        to: Selector::Member(MemberId(3)),
        protocol: Protocol::Tcp,
        ports: vec![PortRange { first: 22, last: 22 }],
    };
    world.policy(Policy { rules: vec![rule], ..Default::default() });
    let table = world.table(node(9));
    let ask = |from: &str, to: &str, protocol, port| {
        table.trace(&Question { source: ip(from), destination: ip(to), protocol, port })
    };
    let denied = ask("10.0.0.2", "10.0.0.4", Protocol::Tcp, 22);
    assert_eq!(denied.outcome, Outcome::Dropped("denied".into()));
    assert!(denied.steps.contains(&Step::Rule { id: 9, action: Action::Deny, reply: false }));
    let passes = ask("10.0.0.2", "10.0.0.4", Protocol::Tcp, 80);
    assert_eq!(passes.outcome, Outcome::Delivered(MemberId(3)));
    assert_eq!(passes.steps[0], Step::Source { member: MemberId(1), node: node(1) });
    for (from, to, port, want) in [
        ("10.0.0.77", "10.0.0.4", 80, "spoofed_source"),
        ("10.0.0.2", "10.0.0.77", 80, "no_such_member"),
        ("10.0.0.2", "fd00::4", 80, "malformed"),
    ] {
        let trace = ask(from, to, Protocol::Udp, port);
        assert_eq!(trace.outcome, Outcome::Dropped(want.into()), "{from} {to}");
    }
    let dns = ask("10.0.0.2", "10.0.0.254", Protocol::Udp, 53);
    assert_eq!(dns.outcome, Outcome::Answered("dns".into()));
    assert!(table.live().rule_hits().iter().all(|(_, hits)| *hits == 0), "nothing is counted");
}

/// What the trace says and what the table does are two programs: they must agree.
fn agree(world: &World, from: u8, to: u8, protocol: Protocol, port: u16) {
    let (source, destination) = (format!("10.0.0.{from}"), format!("10.0.0.{to}"));
    let question = Question { source: ip(&source), destination: ip(&destination), protocol, port };
    let Some(holder) = world.book.holder(question.source) else { return };
    let table = world.table(holder.node);
    let packet = match protocol {
        Protocol::Tcp => tcp(&source, &destination, (49152, port), 2),
        Protocol::Udp => udp(&source, &destination, (49152, port), b""),
        _ => ping(&source, &destination),
    };
    let done = table.from_port(table.member_ix(holder.id).unwrap(), &packet);
    let said = table.trace(&question).outcome;
    match (&done, &said) {
        (Verdict::Deliver(to), Outcome::Delivered(id)) => {
            assert_eq!(table.members()[to.0 as usize].id, *id);
        }
        (Verdict::Drop(reason), Outcome::Dropped(name)) => assert_eq!(reason.name(), name),
        (Verdict::Answer, Outcome::Answered(_)) => {}
        (Verdict::Replicate(_), Outcome::Replicated) => {}
        _ => panic!("done {done:?}, said {said:?}"),
    }
}

fn a_rule() -> impl Strategy<Value = Rule> {
    let selector = prop_oneof![
        Just(Selector::Any),
        (0u32..4).prop_map(|m| Selector::Member(MemberId(m))),
        Just(Selector::Prefix("10.0.0.0/30".parse().unwrap())),
    ];
    let protocol = prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)];
    (selector.clone(), selector, protocol, any::<bool>(), 1u16..5).prop_map(
        |(from, to, protocol, allow, last)| Rule {
            id: 0,
            action: if allow { Action::Allow } else { Action::Deny },
            from,
            to,
            protocol,
            ports: vec![PortRange { first: 1, last }],
        },
    )
}

proptest! {
    #[test]
    fn trace_and_table_agree(
        rules in prop::collection::vec(a_rule(), 0..6),
        allow in any::<bool>(),
        packets in prop::collection::vec((1u8..7, prop_oneof![1u8..7, Just(254), Just(255)], 0u8..3, 0u16..6), 1..40),
    ) {
        let mut world = World::new();
        let default = if allow { Action::Allow } else { Action::Deny };
        world.policy(Policy { default, rules, ..Default::default() });
        for (from, to, protocol, port) in packets {
            let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp][usize::from(protocol)];
            agree(&world, from, to, protocol, port);
        }
    }

    #[test]
    fn any_bytes_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..120), shape in 0u8..4) {
        let mut world = World::new();
        let rule = Rule { id: 1, action: Action::Deny, from: Selector::Any, to: Selector::Any,
            protocol: Protocol::Tcp, ports: vec![PortRange { first: 1, last: 2 }] };
        world.policy(Policy { rules: vec![rule], ..Default::default() });
        let table = world.table(node(1));
        let port = ix(&table, 1);
        // Half-way sensible bytes reach deeper.
        let (source, destination) = match shape {
            1 => (&[10, 0, 0, 2][..], &[10, 0, 0, 254][..]),
            2 => (&[10, 0, 0, 2][..], &[224, 0, 0, 22][..]),
            _ => (&[][..], &[][..]),
        };
        if bytes.len() >= 20 && shape < 3 && !source.is_empty() {
            bytes[0] = 0x40 | (bytes[0] & 15);
            bytes[12..16].copy_from_slice(source);
            bytes[16..20].copy_from_slice(destination);
        }
        let verdict = table.from_port(port, &bytes);
        table.from_peer(table.node_ix(&node(2)).unwrap(), &bytes);
        table.admit(&bytes, &verdict, 1, 1, 0);
        for reply in [table.answer(port, &bytes, 0), table.refusal(&bytes, DropReason::Denied, 0)].into_iter().flatten() {
            assert_sums(&reply);
        }
    }
}
