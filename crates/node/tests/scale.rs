//! Large networks: many real nodes in one process, many members a node.
//!
//! With `GVPN_FIGURES=1` the figures are written into `docs/networks.md`.

mod world;

use std::{
    collections::HashSet,
    fmt::Write as _,
    net::IpAddr,
    time::{Duration, Instant},
};

use gvpn_lab::figures;
use gvpn_model::{MemberId, NetworkId};
use gvpn_node::NetworkSpec;
use gvpn_roster::{MemberEdit, MemberSpec};
use world::{PATIENCE, World};

/// Most nodes in one process; larger networks have several members on each.
const NODES: usize = 100;
/// Changes that are timed.
const CHANGES: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn changes_reach_a_thousand_members() {
    let mut table = String::from(
        "| members | nodes | all join at once | one change, median | 99th percentile |\n\
         |---|---|---|---|---|\n",
    );
    for (members, prefix) in [(2, "10.80.0.0/24"), (100, "10.81.0.0/24"), (1000, "10.82.0.0/16")] {
        let nodes = NODES.min(members as usize);
        let world = World::new(nodes).await;
        let (id, join) = world.network(prefix, members).await;
        world.agree(id);
        let (median, worst) = time_changes(&world, id, members).await;
        world.agree(id);
        world.quiet();
        let millis = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
        let row =
            [members.to_string(), nodes.to_string(), millis(join), millis(median), millis(worst)];
        writeln!(table, "| {} |", row.join(" | ")).unwrap();
        world.stop().await;
    }
    println!("{table}");
    if figures::wanted() {
        figures::write("networks.md", "consistency", &table).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_come_and_go_under_load() {
    let world = World::new(10).await;
    let (id, _) = world.network("10.83.0.0/16", 100).await;
    let networks = world.owner.networks();
    let mut gone = HashSet::new();
    for n in 0..100u32 {
        let node = world.others[n as usize % 10].id();
        networks.add_member(id, MemberSpec::new(node, vec![])).await.unwrap();
        if n % 2 == 0 {
            networks.remove_member(id, MemberId(1 + n)).await.unwrap();
            gone.insert(MemberId(1 + n));
        }
        let edit = MemberEdit { quarantined: Some(n % 3 == 0), ..MemberEdit::default() };
        networks.edit_member(id, MemberId(101 + n), edit).await.unwrap();
    }
    assert!(networks.settled(id, PATIENCE).await.unwrap());
    world.agree(id);
    let roster = networks.roster(id).unwrap();
    assert_eq!(roster.members.len(), 151);
    assert!(roster.members.iter().all(|m| !gone.contains(&m.id)));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_in_a_hundred_networks() {
    let world = World::new(2).await;
    let networks = world.owner.networks();
    let mut ids = Vec::new();
    for n in 0..100 {
        // All with the same prefix: they have nothing to do with each other.
        let spec = NetworkSpec { ip: "10.84.0.0/24".into(), ..NetworkSpec::default() };
        let id = networks.create(&spec).unwrap().id;
        let ip: IpAddr = format!("10.84.0.{}", 2 + n).parse().unwrap();
        let spec = MemberSpec::new(world.others[n % 2].id(), vec![ip]);
        networks.add_member(id, spec).await.unwrap();
        ids.push(id);
    }
    for (n, id) in ids.iter().enumerate() {
        assert!(networks.settled(*id, PATIENCE).await.unwrap());
        world.agree(*id);
        let other = &world.others[(n + 1) % 2];
        assert!(other.networks().in_force(*id).is_none(), "it is none of its business");
    }
    for id in &ids {
        networks.remove(*id).await.unwrap();
    }
    let start = Instant::now();
    while world.others.iter().any(|node| node.networks().memberships() > 0) {
        assert!(start.elapsed() < PATIENCE, "they have not left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.stop().await;
}

/// Times single changes from the call to everybody's acknowledgement: median, 99th percentile.
async fn time_changes(world: &World, id: NetworkId, members: u32) -> (Duration, Duration) {
    let networks = world.owner.networks();
    let mut times = Vec::new();
    for n in 0..CHANGES {
        let member = MemberId(1 + (n as u32 * 7) % members);
        let name = Some(Some(format!("name-{n}")));
        let start = Instant::now();
        let edit = MemberEdit { name, ..MemberEdit::default() };
        networks.edit_member(id, member, edit).await.unwrap();
        assert!(networks.settled(id, PATIENCE).await.unwrap());
        times.push(start.elapsed());
    }
    times.sort();
    (times[CHANGES / 2], times[CHANGES * 99 / 100])
}
