//! Nodes and several relays: what becomes of them when relays die, come back, or are out of reach.

use std::time::Duration;

use super::{
    SECOND, TICK, call,
    internet::{
        Internet, Place, Topology,
        nat::{KINDS, Kind},
        random::Random,
        relay_addr, round_trips,
    },
    on_all_cores, seeds,
};

const MILLISECOND: Duration = Duration::from_millis(1);
/// How long a restart of a relay may be felt beyond the time that it is not there.
const RESTART: Duration = Duration::from_secs(3);
/// How long after a change of the world everybody knows of it: a relay that was out of reach is
/// called at least this often.
const NOTICE: Duration = Duration::from_secs(6);
/// By then a relay that has gone without a word is no longer named.
const FORGET: Duration = Duration::from_secs(25);
/// A round trip is an average, an eighth of which each keep-alive makes: by then (thirty of them) a
/// relay that has come near or gone far is seen where it is.
const MEASURED: Duration = Duration::from_secs(240);
/// What may be left by then of a hundred milliseconds.
const REST: Duration = Duration::from_millis(3);

/// Two nodes that need relays, these.
fn dependent(delays: &[u64]) -> Topology {
    let mut topology = Topology::new(&[Kind::Symmetric], &[Kind::Symmetric]);
    topology.relays = delays.iter().map(|ms| Place::new(MILLISECOND * *ms as u32)).collect();
    topology
}

/// The relay through which a node reaches the other.
fn used(net: &Internet, side: usize) -> Option<usize> {
    let relay = net.nodes[side].route.filter(|(hop, _)| hop.is_relayed())?.0.wire_addr();
    (0..net.relays.len()).find(|at| relay_addr(*at) == relay)
}

fn silence(net: &Internet) -> Duration {
    let start = net.start;
    net.nodes.iter().map(|node| net.now - node.got_data.unwrap_or(start)).max().unwrap()
}

/// Lets time pass; the longest silence.
fn watch(net: &mut Internet, length: Duration) -> Duration {
    let end = net.now + length;
    let mut longest = Duration::ZERO;
    while net.now < end {
        net.run(TICK);
        longest = longest.max(silence(net));
    }
    longest
}

/// Restarts a relay that is away for so long.
fn restart(net: &mut Internet, at: usize, away: Duration) {
    net.relay(at, false);
    net.run(away);
    net.relay(at, true);
}

#[test]
fn a_restart_of_the_relay_loses_nobody_for_more_than_three_seconds() {
    for seed in 0..20 {
        let mut topology = dependent(&[10 + seed]);
        topology.loss = [0, 10][seed as usize % 2];
        let mut net = Internet::new(seed, topology);
        call(&mut net);
        net.run(10 * SECOND);
        let away = MILLISECOND * (50 * seed as u32);
        restart(&mut net, 0, away);
        let silent = watch(&mut net, 10 * SECOND);
        assert!(silent <= RESTART + away, "seed {seed}: {silent:?}, away for {away:?}");
        assert!(silence(&net) < SECOND, "seed {seed}");
    }
}

#[test]
fn a_relay_that_dies_without_a_word_is_replaced() {
    for seed in 0..6 {
        let mut net = Internet::new(seed, dependent(&[10, 30]));
        call(&mut net);
        net.run(10 * SECOND);
        let dead = used(&net, 0).expect("there is no other way");
        net.relay(dead, false);
        let silent = watch(&mut net, 10 * SECOND);
        assert!(silent <= 2 * SECOND, "seed {seed}: {silent:?}");
        assert!((0..2).all(|side| used(&net, side) == Some(1 - dead)), "seed {seed}");
        net.run(FORGET);
        for side in 0..2 {
            let record = net.registries[1 - dead][side].as_ref().unwrap();
            assert_eq!(record.relays, [relay_addr(1 - dead)], "seed {seed}");
        }
        net.relay(dead, true);
        net.run(NOTICE + SECOND);
        for (registry, side) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let record = net.registries[registry][side].as_ref().unwrap();
            assert_eq!(record.relays, [relay_addr(0), relay_addr(1)], "seed {seed}");
        }
    }
}

#[test]
fn a_relay_that_one_node_cannot_reach_is_replaced() {
    for seed in 0..6 {
        let mut net = Internet::new(seed, dependent(&[10, 30]));
        call(&mut net);
        net.run(10 * SECOND);
        let lost = used(&net, 0).expect("there is no other way");
        net.relay_cut[lost][(seed % 2) as usize] = true;
        let silent = watch(&mut net, 40 * SECOND);
        assert!(silent <= 2 * SECOND, "seed {seed}: {silent:?}");
        net.relay_cut[lost] = [false; 2];
        let silent = watch(&mut net, 40 * SECOND);
        assert!(silent <= SECOND, "seed {seed}: {silent:?}");
    }
}

#[test]
fn a_peer_is_reached_through_the_relay_where_it_is_at_home() {
    for seed in 0..3 {
        let mut topology = dependent(&[20, 30]);
        topology.fleet = true;
        topology.relays[0].configured = [true, false];
        topology.relays[1].configured = [false, true];
        let mut net = Internet::new(seed, topology);
        call(&mut net);
        net.run(3 * SECOND);
        assert!(silence(&net) < SECOND, "seed {seed}");
        // Visits end when they are of no use, and not before.
        net.nodes.iter_mut().for_each(|node| node.traffic = Some(SECOND / 2));
        let silent = watch(&mut net, 400 * SECOND);
        assert!(silent < 2 * SECOND, "seed {seed}: {silent:?}");
        for node in &mut net.nodes {
            node.traffic = None;
        }
        net.run(400 * SECOND);
        for side in 0..2 {
            // Only from the one through which they last talked.
            let mut at = net.nodes[side].client.connected();
            at.retain(|relay| *relay != relay_addr(side));
            let last = used(&net, side).map(relay_addr);
            assert!(at.iter().all(|relay| Some(*relay) == last), "seed {seed}: {at:?}");
        }
    }
}

#[test]
fn a_node_that_lost_sight_of_the_only_common_relay_is_looked_for_at_its_others() {
    for seed in 0..6 {
        let mut topology = dependent(&[20, 30]);
        topology.fleet = true;
        topology.relays[1].configured = [true, false];
        let mut net = Internet::new(seed, topology);
        call(&mut net);
        let at = net.now;
        net.nodes[1].call(at, &[]);
        net.run(10 * SECOND);
        // That relay forwards to where the node was for half a minute.
        net.relay_cut[0][0] = true;
        let silent = watch(&mut net, 40 * SECOND);
        assert!(silent <= NOTICE + 3 * SECOND, "seed {seed}: {silent:?}");
        assert!((0..2).all(|side| used(&net, side) == Some(1)), "seed {seed}");
    }
}

#[test]
fn a_node_that_is_started_anew_finds_a_peer_of_which_its_relay_lost_sight() {
    for seed in 0..12 {
        let mut topology = dependent(&[20, 30]);
        topology.fleet = true;
        topology.relays[1].configured = [true, false];
        let mut net = Internet::new(seed, topology);
        call(&mut net);
        // Who is called does not call: it is who looks that must find it.
        net.run(10 * SECOND);
        net.relay_cut[0][0] = true;
        // The record names the other relay only, but the first one forwards for half a minute.
        net.run(15 * SECOND);
        assert_eq!(net.registries[0][0].as_ref().unwrap().relays, [relay_addr(1)], "seed {seed}");
        net.nodes[0].traffic = None;
        net.nats[1].iter_mut().for_each(|nat| nat.rebind());
        let at = net.now;
        net.nodes[1].restart(at);
        net.run(5 * SECOND);
        let heard = net.nodes[0].got_data.is_some_and(|got| net.now - got < SECOND / 4);
        assert!(heard, "seed {seed}: nothing yet");
        assert_eq!(used(&net, 1), Some(1), "seed {seed}");
    }
}

#[test]
fn the_nearest_relay_is_home_and_a_little_nearer_is_no_reason_to_move() {
    for seed in 0..10 {
        let mut net = Internet::new(seed, dependent(&[60, 25, 22]));
        net.run(10 * SECOND);
        let home = net.nodes[0].client.home.home();
        assert!(home.is_some_and(|home| home != relay_addr(0)), "seed {seed}");
        let moves = net.nodes[0].client.moves;
        net.run(300 * SECOND);
        assert_eq!(net.nodes[0].client.moves, moves, "seed {seed}");
        // The far one comes near.
        net.topology.relays[0].delay = [3 * MILLISECOND; 2];
        net.run(120 * SECOND);
        assert_eq!(net.nodes[0].client.home.home(), Some(relay_addr(0)), "seed {seed}");
        let record = net.registries[1][0].as_ref().unwrap();
        assert_eq!(record.relays.first(), Some(&relay_addr(0)), "seed {seed}");
        assert_eq!(net.nodes[0].client.moves, moves + 1, "seed {seed}");
    }
}

#[test]
fn a_node_that_does_nothing_sends_its_relays_nothing_but_keep_alives() {
    let mut net = Internet::new(1, dependent(&[10, 20, 30]));
    net.run(20 * SECOND);
    let before = net.nodes.each_ref().map(|n| (n.client.requests, n.client.pings));
    net.run(160 * SECOND);
    for (node, (requests, pings)) in net.nodes.iter().zip(before) {
        assert_eq!(node.client.requests, requests);
        let pings = node.client.pings - pings;
        // Every eight seconds to each of three relays.
        assert!((57..=63).contains(&pings), "{pings}");
    }
    assert_eq!(net.sent, 0);
}

/// What the reference model knows: since when which relay has been in reach of which node.
struct Model {
    reach: Vec<[Option<Duration>; 2]>,
    calm_since: Duration,
    /// When a relay went out of reach without which they have none that both were told of: if it
    /// was in use, another one must be visited.
    alone_since: Duration,
    /// When a relay was last restarted, and for how long it was not there.
    restarted: Option<(Duration, Duration)>,
    /// When a relay last came near or went far.
    measured_from: Option<Duration>,
}

impl Model {
    /// Since when the nodes have had a relay through which they can talk.
    fn open_since(&self, net: &Internet) -> Option<Duration> {
        let places = &net.topology.relays;
        let told = |at: usize, side: usize| places[at].configured[side];
        let all = 0..places.len();
        // One is at home where the other is not, but has another relay of the fleet to ask.
        let visited = [0, 1].into_iter().filter(|_| net.topology.fleet).flat_map(|host| {
            let guest = 1 - host;
            let asked = all.clone().filter(move |at| told(*at, guest));
            let asked = asked.filter_map(move |at| self.reach[at][guest]).min();
            let homes =
                all.clone().filter(move |at| told(*at, host)).filter_map(|at| self.both(at));
            // It is visited only when there is no nearer way, which takes its time.
            homes.filter_map(move |since| Some(since.max(asked?).max(self.alone_since) + NOTICE))
        });
        self.common(net).or_else(|| visited.min())
    }

    /// Since when they have had a relay that both were told of.
    fn common(&self, net: &Internet) -> Option<Duration> {
        let told = |at: &usize| net.topology.relays[*at].configured == [true; 2];
        (0..self.reach.len()).filter(told).filter_map(|at| self.both(at)).min()
    }

    /// Since when a relay has been in reach of both.
    fn both(&self, at: usize) -> Option<Duration> {
        Some(self.reach[at][0]?.max(self.reach[at][1]?))
    }
}

fn topology(random: &mut Random) -> Topology {
    let mut side = || match random.below(8) {
        0 => vec![],
        1 => vec![Kind::PortRestricted, random.pick(&KINDS)],
        2 | 3 => vec![random.pick(&KINDS)],
        _ => vec![Kind::Symmetric],
    };
    let (a, b) = (side(), side());
    let mut topology = Topology::new(&a, &b);
    topology.delay = MILLISECOND * (1 + random.below(60) as u32);
    topology.fleet = random.below(2) == 0;
    let number = random.pick(&[1, 1, 2, 2, 2, 3, 3, 6]);
    topology.relays = (0..number)
        .map(|_| {
            let delay = [0; 2].map(|_| MILLISECOND * (1 + random.below(60) as u32));
            let some = [[true; 2], [true, false], [false, true]];
            let configured = if topology.fleet { random.pick(&some) } else { [true; 2] };
            Place { delay, configured }
        })
        .collect();
    topology.loss = random.pick(&[0, 0, 10, 30]);
    topology.disorder = random.pick(&[0, 0, 5, 30]);
    topology
}

/// Runs one random history; the first violation of what the model demands.
fn history(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0x0e1a_7500);
    let topology = topology(&mut random);
    let relays = topology.relays.len();
    let mut net = Internet::new(seed, topology);
    call(&mut net);
    // Both have something to say: who calls must reach a relay where the other is.
    let at = net.now;
    net.nodes[1].call(at, &[]);
    let start = net.elapsed();
    let reach = vec![[Some(start); 2]; relays];
    let mut model = Model {
        reach,
        calm_since: start,
        alone_since: start,
        restarted: None,
        measured_from: None,
    };
    for _ in 0..10 {
        let (at, side) = (random.below(relays as u64) as usize, random.below(2) as usize);
        let now = net.elapsed();
        match random.below(10) {
            0 => {
                let up = !net.relays[at].up;
                net.relay(at, up);
                model.update(&net);
            }
            1 | 2 if net.relays[at].up => {
                let away = MILLISECOND * random.below(1000) as u32;
                restart(&mut net, at, away);
                model.restarted = Some((now, away));
            }
            3 => {
                net.relay_cut[at][side] = !net.relay_cut[at][side];
                model.update(&net);
            }
            4 => {
                net.topology.relays[at].delay[side] = MILLISECOND * (1 + random.below(60) as u32);
                model.measured_from = Some(now);
            }
            5 => {
                net.address(side);
                let at = net.now;
                net.nodes[side].readdressed(at);
                model.calm_since = now;
            }
            6 => {
                net.nats[side].iter_mut().for_each(|nat| nat.rebind());
                model.calm_since = now;
            }
            7 => {
                let at = net.now;
                net.nodes[side].restart(at);
                model.calm_since = now;
            }
            8 => net.cut = !net.cut,
            _ => {}
        }
        // A while without events, watched.
        for _ in 0..random.below(80) {
            net.run(SECOND / 2);
            check(&net, &model).map_err(|what| format!("seed {seed}: {what}"))?;
        }
    }
    settled(&mut net, &model).map_err(|what| format!("seed {seed}: {what}; {:?}", net.topology))
}

impl Model {
    /// Takes note of which relays are in reach now.
    fn update(&mut self, net: &Internet) {
        let now = net.elapsed();
        let before = self.in_reach();
        for (at, relay) in net.relays.iter().enumerate() {
            for side in 0..2 {
                let reach = &mut self.reach[at][side];
                let open = relay.up && !net.relay_cut[at][side];
                *reach = if open { reach.or(Some(now)) } else { None };
            }
        }
        if self.common(net).is_none() && self.in_reach() < before {
            self.alone_since = now;
        }
    }

    /// How many relays are in reach of both.
    fn in_reach(&self) -> usize {
        (0..self.reach.len()).filter(|at| self.both(*at).is_some()).count()
    }
}

fn check(net: &Internet, model: &Model) -> Result<(), String> {
    let now = net.elapsed();
    let since = model.open_since(net).map(|since| since.max(model.calm_since));
    let open_for = since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
    // What a restart may cost, while it may still be felt.
    let excuse = match model.restarted {
        Some((at, away)) if now - at < RESTART + away + 2 * SECOND => RESTART + away,
        _ => 2 * SECOND,
    };
    for (side, node) in net.nodes.iter().enumerate() {
        if node.harmed > 0 {
            return Err(format!("at {now:?}: node {side} took {} harmed packets", node.harmed));
        }
        let silent = node.got_data.map_or(now, |at| net.now - at);
        if open_for > NOTICE + 3 * SECOND && silent > excuse {
            return Err(format!(
                "at {now:?}: node {side} hears nothing for {silent:?} though there is a relay for \
                 {open_for:?}; {:?}; {:?} in {:?}",
                node.client.home,
                node.agent.report(net.now),
                net.topology
            ));
        }
    }
    Ok(())
}

/// What must hold once nothing happens any more: relays that are in reach are registered with, records
/// say so, the home is near and stays, and nothing is sent but keep-alives.
fn settled(net: &mut Internet, model: &Model) -> Result<(), String> {
    for node in &mut net.nodes {
        node.traffic = None;
    }
    net.run(FORGET + 20 * SECOND);
    registered(net)?;
    // Another home may turn out to be the nearest one still, of which relays are told; peers are not.
    let sent = net.sent;
    if let Some(measured) = model.measured_from.map(|from| from + MEASURED) {
        let before = net.nodes.each_ref().map(|n| (n.client.requests, n.client.moves));
        net.run(measured.saturating_sub(net.elapsed()));
        for (node, (requests, moves)) in net.nodes.iter().zip(before) {
            if node.client.requests != requests && node.client.moves == moves {
                return Err("relays were told something though the home is the same".into());
            }
        }
        registered(net)?;
    }
    let before = net.nodes.each_ref().map(|n| (n.client.requests, n.client.moves, n.client.pings));
    let nearer = [0, 1].map(|side| is_another_nearer(net, side));
    net.run(80 * SECOND);
    for (side, (requests, moves, pings)) in before.into_iter().enumerate() {
        let (client, relays) = (&net.nodes[side].client, net.relays.len() as u64);
        let moved = client.moves - moves;
        let (may, must) = nearer[side];
        if moved > u64::from(may) || (must && net.topology.disorder == 0) {
            return Err(format!(
                "node {side} has moved {moved} times while idle; another relay was nearer: {must}"
            ));
        }
        if (client.requests != requests && moved == 0) || net.sent != sent {
            return Err("relays or peers were told something while idle".into());
        }
        // Ten keep-alives each, and those that were lost.
        let limit = relays * if net.topology.loss + net.topology.disorder == 0 { 11 } else { 30 };
        if client.pings - pings > limit {
            return Err(format!("{} keep-alives in 80 s", client.pings - pings));
        }
    }
    Ok(())
}

/// Whether a relay is clearly nearer than a node's home, which it is below three quarters of the home's
/// round trip: whether it may seem so, and whether it must. In between chance decides: answers take now a
/// step longer, now not, and some time their average gets there.
fn is_another_nearer(net: &Internet, side: usize) -> (bool, bool) {
    let node = &net.nodes[side].client.home;
    let trips = |addr| {
        let at = (0..net.relays.len()).find(|at| relay_addr(*at) == addr)?;
        Some(round_trips(net.topology.relays[at].delay[side]))
    };
    let clearly =
        |other: Duration, home: Duration| other < home * 3 / 4 && other + 5 * MILLISECOND < home;
    let Some((shortest, longest)) = node.home().and_then(trips) else { return (false, false) };
    let others: Vec<_> = node.named().into_iter().filter_map(trips).collect();
    let may = others.iter().any(|other| clearly(other.0, longest));
    let must = others.iter().any(|other| clearly(other.1 + REST, shortest));
    (may, must)
}

/// Relays in reach have the nodes, and records name just those.
fn registered(net: &Internet) -> Result<(), String> {
    for side in 0..2 {
        let told = |at: &usize| net.topology.relays[*at].configured[side];
        let open = |at: &usize| net.relays[*at].up && !net.relay_cut[*at][side];
        let near: Vec<usize> = (0..net.relays.len()).filter(told).filter(open).collect();
        let node = &net.nodes[side];
        let mut named = node.client.home.named();
        if named.first() != node.client.home.home().as_ref() && !near.is_empty() {
            return Err(format!("node {side} is at {named:?}, at home elsewhere"));
        }
        for at in &near {
            if !net.relays[*at].has(side) {
                return Err(format!("relay {at} does not have node {side}"));
            }
            let record = net.registries[net.relays[*at].registry][side].as_ref();
            let said = record.map(|record| record.relays.clone()).unwrap_or_default();
            let (mut a, mut b) = (said.clone(), named.clone());
            a.sort();
            b.sort();
            if a != b || said.first() != named.first() {
                return Err(format!("node {side} is at {named:?}, relay {at} says at {said:?}"));
            }
        }
        named.sort();
        let expected: Vec<_> = near.iter().map(|at| relay_addr(*at)).collect();
        if named != expected {
            return Err(format!("node {side} is at {named:?}, could be at {expected:?}"));
        }
    }
    Ok(())
}

/// Seeds that once showed a fault, of the core or of the model.
/// 7 and 15: a relay that came later was of no use at once when the one in use died.
/// 69 and 307: a node that had lost sight of the only relay that both were told of was looked for there
/// for half a minute, since that relay did not know it yet, though its record named others.
/// 334: a relay that had come near became home when its round trip showed it, after 85 s.
/// 353: the relay that was visited died, and another one had to be visited.
/// 476, 702, 2027, 2718 and 3964: a relay that had lost sight of a guest was believed to forward to it
/// for half a minute, and the relay that the guest's record names was not visited.
/// 2065, 2554, 2914, 3509 and 3805: no relay forwarded between nodes that had met directly, and
/// relays were asked only when the direct way had been silent for long.
/// 1118, 1289, 2048, 2283, 2523, 3146, 3172, 3838 and 3957: answers that came late by chance made
/// another relay home.
/// 3212: another relay's round trip was three quarters of the home's on average.
const REGRESSIONS: [u64; 26] = [
    7, 15, 69, 307, 334, 353, 476, 702, 1118, 1289, 2027, 2048, 2065, 2283, 2523, 2554, 2718, 2914,
    3146, 3172, 3212, 3509, 3805, 3838, 3957, 3964,
];

#[test]
fn random_histories_of_relays_hold_what_the_model_demands() {
    let seeds = seeds(20);
    let mut failures = on_all_cores(seeds.clone(), |seed| history(seed).err());
    failures.extend(REGRESSIONS.into_iter().filter_map(|seed| history(seed).err()));
    println!("{} histories", seeds.count());
    assert!(failures.is_empty(), "{} histories: {failures:#?}", failures.len());
}
