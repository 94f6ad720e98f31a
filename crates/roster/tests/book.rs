//! The owner's book: what it accepts, what it refuses, and that a refusal changes nothing.

use std::net::IpAddr;

use gvpn_identity::Identity;
use gvpn_model::{MemberId, NodeId};
use gvpn_roster::{
    Action, BookError, MemberEdit, MemberSpec, NetworkSpec, OwnerBook, Policy, PortRange, Protocol,
    Route, Rule, Selector, SettingsEdit, generate_ula, network_id,
};
use ipnet::IpNet;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn node(n: u8) -> NodeId {
    NodeId::from_bytes([n; 20])
}

fn book() -> OwnerBook {
    let spec = NetworkSpec::new(net("192.168.0.0/24"));
    OwnerBook::create(Identity::generate(), [1; 16], spec).unwrap()
}

#[test]
fn a_new_network_gives_its_owner_the_first_host() {
    let book = book();
    let roster = book.roster();
    assert_eq!(roster.settings.subnets[0].gateway, ip("192.168.0.1"));
    assert_eq!(book.owner_member().ips, [ip("192.168.0.1")]);
    assert_eq!(roster.network, network_id(roster.owner, &[1; 16]));
    assert_eq!(book.epoch(), 1);
}

#[test]
fn golem_clients_may_repeat_themselves() {
    let mut book = book();
    let owner = book.roster().owner;
    // yapapi: the owner's address first, then the nodes, then all again.
    assert!(!book.add_owner_address(ip("192.168.0.1")).unwrap());
    let (first, added) = book.add_node(node(1), ip("192.168.0.2")).unwrap();
    assert!(added);
    assert_eq!(book.add_node(node(1), ip("192.168.0.2")).unwrap(), (first, false));
    assert_eq!(book.add_node(owner, ip("192.168.0.1")).unwrap(), (MemberId(0), false));
    // Two activities of one provider: two members.
    let (second, added) = book.add_node(node(1), ip("192.168.0.3")).unwrap();
    assert!(added && second != first);
    let epoch = book.epoch();
    let taken = book.add_node(node(2), ip("192.168.0.2")).unwrap_err();
    assert_eq!(taken, BookError::Taken { ip: ip("192.168.0.2"), member: first, node: node(1) });
    assert_eq!(book.epoch(), epoch, "a refusal makes no epoch");
    book.remove_node(node(1)).unwrap();
    assert_eq!(book.roster().members.len(), 1);
    assert_eq!(book.remove_node(node(1)), Err(BookError::UnknownNode(node(1))));
    // A number is never given twice.
    let (third, _) = book.add_node(node(1), ip("192.168.0.2")).unwrap();
    assert!(third > second);
}

#[test]
fn the_address_given_without_asking_makes_way_for_the_first_asked_for() {
    let mut book = book();
    assert!(book.add_owner_address(ip("192.168.0.9")).unwrap());
    assert_eq!(book.owner_member().ips, [ip("192.168.0.9")]);
    assert!(book.add_owner_address(ip("192.168.0.10")).unwrap());
    assert_eq!(book.owner_member().ips, [ip("192.168.0.9"), ip("192.168.0.10")]);
    // The first host is free for others now.
    book.add_node(node(1), ip("192.168.0.1")).unwrap();
}

#[test]
fn an_address_asked_for_by_name_stays() {
    let mut book = book();
    book.add_owner_address(ip("192.168.0.1")).unwrap();
    book.add_owner_address(ip("192.168.0.10")).unwrap();
    assert_eq!(book.owner_member().ips, [ip("192.168.0.1"), ip("192.168.0.10")]);
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let mut book = book();
    let (member, _) = book.add_node(node(1), ip("192.168.0.2")).unwrap();
    let (other, _) = book.add_node(node(2), ip("192.168.0.3")).unwrap();
    book.edit_member(other, MemberEdit { name: Some(Some("db".into())), ..Default::default() })
        .unwrap();
    let before = book.roster().clone();
    for bad in ["10.0.0.1", "192.168.0.0", "192.168.0.255", "fd00::1", "192.168.0.2"] {
        assert!(book.add_node(node(3), ip(bad)).is_err(), "{bad}");
        let edit = MemberEdit { add_ips: vec![ip(bad)], ..Default::default() };
        assert!(book.edit_member(other, edit).is_err(), "{bad}");
    }
    let edits = [
        MemberEdit { ips: Some(vec![]), ..Default::default() },
        MemberEdit { remove_ips: vec![ip("192.168.0.2")], ..Default::default() },
        MemberEdit { name: Some(Some("db".into())), ..Default::default() },
        MemberEdit { name: Some(Some("-x".into())), ..Default::default() },
        MemberEdit { name: Some(Some("a.b".into())), ..Default::default() },
        MemberEdit { groups: Some(vec!["".into()]), ..Default::default() },
        // Half good: nothing of it happens.
        MemberEdit {
            quarantined: Some(true),
            ips: Some(vec![ip("192.168.0.3")]),
            ..Default::default()
        },
    ];
    for edit in edits {
        assert!(book.edit_member(member, edit.clone()).is_err(), "{edit:?}");
    }
    let stay = MemberEdit { node: Some(node(9)), ..Default::default() };
    assert_eq!(book.edit_member(MemberId(0), stay), Err(BookError::OwnersOwn(MemberId(0))));
    assert_eq!(book.remove_member(MemberId(77)), Err(BookError::UnknownMember(MemberId(77))));
    assert!(book.add_subnet(net("192.168.0.128/25"), None).is_err());
    assert!(book.add_subnet(net("127.0.0.0/8"), None).is_err());
    assert!(book.set_gateway(net("192.168.0.0/24"), ip("192.168.1.1")).is_err());
    assert!(book.remove_subnet(net("192.168.0.0/24")).is_err());
    for mtu in [0, 576, 1279, 9001] {
        let edit = SettingsEdit { mtu: Some(mtu), ..Default::default() };
        assert_eq!(book.edit_settings(edit), Err(BookError::Mtu(mtu)));
    }
    for (destination, via) in
        [("192.168.0.0/28", member), ("10.0.0.0/8", MemberId(50)), ("10.0.0.1/8", member)]
    {
        let routes = Some(vec![Route { destination: net(destination), via }]);
        let edit = SettingsEdit { routes, ..Default::default() };
        assert!(book.edit_settings(edit).is_err(), "{destination} {via}");
    }
    assert_eq!(*book.roster(), before);
}

#[test]
fn rules_must_name_somebody_and_make_sense() {
    let mut book = book();
    let (member, _) = book.add_node(node(1), ip("192.168.0.2")).unwrap();
    let edit = MemberEdit { groups: Some(vec!["Web".into()]), ..Default::default() };
    book.edit_member(member, edit).unwrap();
    let rule = Rule {
        id: 0,
        action: Action::Deny,
        from: Selector::Any,
        to: Selector::Any,
        protocol: Protocol::Any,
        ports: vec![],
    };
    let mut with = |rule: Rule| {
        let policy = Policy { rules: vec![rule.clone(), rule], ..Default::default() };
        book.edit_settings(SettingsEdit { policy: Some(policy), ..Default::default() })
    };
    let good = [
        Rule { from: Selector::Group("web".into()), ..rule.clone() },
        Rule { to: Selector::Member(member), ..rule.clone() },
        Rule { to: Selector::Prefix(net("192.168.0.0/28")), ..rule.clone() },
        Rule {
            protocol: Protocol::Tcp,
            ports: vec![PortRange { first: 1, last: 80 }],
            ..rule.clone()
        },
    ];
    for rule in good {
        assert_eq!(with(rule.clone()), Ok(true), "{rule:?}");
    }
    let bad = [
        Rule { from: Selector::Group("nobody".into()), ..rule.clone() },
        Rule { to: Selector::Member(MemberId(9)), ..rule.clone() },
        Rule { to: Selector::Prefix(net("10.0.0.0/8")), ..rule.clone() },
        Rule { ports: vec![PortRange { first: 1, last: 80 }], ..rule.clone() },
        Rule {
            protocol: Protocol::Tcp,
            ports: vec![PortRange { first: 81, last: 80 }],
            ..rule.clone()
        },
        Rule { id: 7, ..rule.clone() },
    ];
    for rule in bad {
        assert!(with(rule.clone()).is_err(), "{rule:?}");
    }
}

#[test]
fn everything_can_change_while_it_runs() {
    let mut book = book();
    let (member, _) = book.add_node(node(1), ip("192.168.0.2")).unwrap();
    let ula = generate_ula(b"seed");
    let edit = |edit: MemberEdit, book: &mut OwnerBook| {
        assert_eq!(book.edit_member(member, edit.clone()), Ok(true), "{edit:?}");
        assert_eq!(book.edit_member(member, edit.clone()), Ok(false), "again: {edit:?}");
    };
    book.add_subnet(ula, None).unwrap();
    let v6 = book.free_address(ula).unwrap();
    assert_ne!(v6, book.roster().settings.subnets[1].gateway);
    edit(MemberEdit { ips: Some(vec![ip("192.168.0.7"), v6]), ..Default::default() }, &mut book);
    edit(MemberEdit { add_ips: vec![ip("192.168.0.8")], ..Default::default() }, &mut book);
    edit(MemberEdit { name: Some(Some("WEB".into())), ..Default::default() }, &mut book);
    edit(MemberEdit { node: Some(node(2)), ..Default::default() }, &mut book);
    edit(MemberEdit { quarantined: Some(true), ..Default::default() }, &mut book);
    let row = book.roster().member(member).unwrap().clone();
    assert_eq!(row.ips, [ip("192.168.0.7"), v6, ip("192.168.0.8")]);
    assert_eq!((row.name.as_deref(), row.node), (Some("web"), node(2)));
    assert_eq!(book.holder(ip("192.168.0.2")), None, "the old address is free");
    let lengths: Vec<_> =
        book.roster().interface_addresses(&row).iter().map(|n| n.prefix_len()).collect();
    assert_eq!(lengths, [24, 64, 24]);

    let old = net("192.168.0.0/24");
    assert_eq!(book.remove_subnet(old), Err(BookError::PrefixInUse(old, 1)));
    edit(MemberEdit { ips: Some(vec![v6]), ..Default::default() }, &mut book);
    let v6_owner = book.free_address(ula).unwrap();
    book.add_owner_address(v6_owner).unwrap();
    assert_eq!(book.remove_subnet(old), Ok(true));
    assert_eq!(book.owner_member().ips, [v6_owner]);
    let gateway = ip(&ula.network().to_string().replace("::", "::99"));
    assert_eq!(book.set_gateway(ula, gateway), Ok(true));
    let routes = vec![Route { destination: net("10.0.0.0/8"), via: member }];
    let edit = SettingsEdit {
        name: Some(Some("Lab".into())),
        mtu: Some(1380),
        routes: Some(routes),
        hosts: Some([("Printer.home".to_owned(), vec![ip("10.0.0.3")])].into()),
        ..Default::default()
    };
    assert_eq!(book.edit_settings(edit), Ok(true));
    assert!(book.roster().settings.hosts.contains_key("printer.home"));
    // A member takes the routes through it along.
    book.remove_member(member).unwrap();
    assert!(book.roster().settings.routes.is_empty());
}

#[test]
fn addresses_are_found_until_there_are_none() {
    let spec = NetworkSpec::new(net("10.0.0.0/28"));
    let mut book = OwnerBook::create(Identity::generate(), [2; 16], spec).unwrap();
    let mut seen = vec![ip("10.0.0.1")];
    for n in 0..13 {
        let id = book.add_member(MemberSpec::new(node(n), vec![])).unwrap();
        let got = book.roster().member(id).unwrap().ips[0];
        assert!(!seen.contains(&got));
        seen.push(got);
    }
    let full = book.add_member(MemberSpec::new(node(99), vec![]));
    assert_eq!(full, Err(BookError::Full(net("10.0.0.0/28"))));
    book.remove_node(node(4)).unwrap();
    book.add_member(MemberSpec::new(node(99), vec![])).unwrap();
    let wide = net("fd00::/64");
    book.add_subnet(wide, None).unwrap();
    let derived = book.derived_address(wide, node(1), "web").unwrap();
    assert_eq!(derived, book.derived_address(wide, node(1), "web").unwrap());
}

#[test]
fn a_book_survives_a_restart() {
    let identity = Identity::generate();
    let spec = NetworkSpec::new(net("192.168.0.0/24"));
    let mut book = OwnerBook::create(identity.clone(), [3; 16], spec).unwrap();
    book.add_node(node(1), ip("192.168.0.2")).unwrap();
    book.remove_node(node(1)).unwrap();
    let saved = book.save();
    let mut back = OwnerBook::restore(identity.clone(), &saved).unwrap();
    assert_eq!(back.snapshot(), book.snapshot());
    assert_eq!(back.add_node(node(2), ip("192.168.0.2")).unwrap().0, MemberId(2));
    // The automatic address is still automatic.
    back.add_owner_address(ip("192.168.0.9")).unwrap();
    assert_eq!(back.owner_member().ips, [ip("192.168.0.9")]);
    assert!(OwnerBook::restore(Identity::generate(), &saved).is_err());
    for cut in 0..saved.len() {
        assert!(OwnerBook::restore(identity.clone(), &saved[..cut]).is_err());
    }
}

#[test]
fn edits_read_as_json_patches() {
    let edit: MemberEdit = serde_json::from_str(r#"{"name": null, "ips": ["10.0.0.1"]}"#).unwrap();
    assert_eq!(edit.name, Some(None));
    assert_eq!(edit.activity, None);
    assert!(serde_json::from_str::<MemberEdit>(r#"{"nmae": "x"}"#).is_err());
    let rule: Rule = serde_json::from_str(
        r#"{"action": "deny", "from": {"group": "web"}, "to": {"member": 3}, "protocol": "tcp",
            "ports": [{"first": 22, "last": 22}]}"#,
    )
    .unwrap();
    assert_eq!(rule.from, Selector::Group("web".into()));
}
