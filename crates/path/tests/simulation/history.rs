//! Random histories of two nodes, held against a reference model.

use std::time::Duration;

use super::{
    SECOND, call,
    internet::{
        Internet, Place, Topology,
        nat::{KINDS, Kind},
        random::Random,
    },
    is_direct, on_all_cores, punchable, seeds,
};

/// What the reference model knows: since when which way has been open without a break.
#[derive(Debug)]
struct Model {
    relay_since: Option<Duration>,
    direct_since: Option<Duration>,
    calm_since: Duration,
    /// Which node heard the other, and was direct, when it was last looked at.
    direct: [bool; 2],
}

fn topology(random: &mut Random) -> Topology {
    let mut side = || match random.below(8) {
        0 => vec![],
        1 => vec![Kind::PortRestricted, random.pick(&KINDS)],
        _ => vec![random.pick(&KINDS)],
    };
    let (a, b) = (side(), side());
    let mut topology = Topology::new(&a, &b);
    topology.delay = Duration::from_millis(1 + random.below(60));
    topology.relays = vec![Place::new(topology.delay)];
    topology.loss = random.pick(&[0, 0, 10, 50]);
    topology.disorder = random.pick(&[0, 0, 5, 30]);
    topology.mtu = [0; 2].map(|_: u16| random.pick(&[1280, 1400, 1500, 1500]));
    topology
}

/// Runs one random history; the first violation of what the model demands.
fn history(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed ^ 0x5eed);
    let topology = topology(&mut random);
    let possible = punchable(&topology.nats[0], &topology.nats[1]);
    let mut net = Internet::new(seed, topology);
    call(&mut net);
    let start = net.elapsed();
    let mut model = Model {
        relay_since: Some(start),
        direct_since: possible.then_some(start),
        calm_since: start,
        direct: [false; 2],
    };
    for _ in 0..12 {
        let now = net.elapsed();
        match random.below(9) {
            0 => {
                net.cut = !net.cut;
                model.direct_since = (possible && !net.cut).then_some(now);
            }
            1 if model.direct_since.is_some() || !net.relays[0].up => {
                let up = !net.relays[0].up;
                net.relay(0, up);
                model.relay_since = up.then_some(now);
            }
            2 => {
                let side = random.below(2) as usize;
                net.address(side);
                let at = net.now;
                net.nodes[side].readdressed(at);
                model.calm_since = now;
            }
            3 => {
                let side = random.below(2) as usize;
                for nat in &mut net.nats[side] {
                    nat.rebind();
                }
                model.calm_since = now;
            }
            4 => {
                let side = random.below(2) as usize;
                let at = net.now;
                net.nodes[side].restart(at);
                model.calm_since = now;
            }
            5 => {
                let side = random.below(2) as usize;
                let at = net.now;
                net.nodes[side].connect(at);
            }
            _ => {}
        }
        // A while without events, watched.
        for _ in 0..random.below(80) {
            net.run(SECOND / 2);
            check(&net, &mut model).map_err(|what| format!("seed {seed}: {what}"))?;
        }
    }
    for node in &mut net.nodes {
        node.traffic = None;
    }
    net.run(40 * SECOND);
    let sent = net.sent;
    net.run(30 * SECOND);
    if net.sent != sent {
        return Err(format!("seed {seed}: {} datagrams while idle", net.sent - sent));
    }
    Ok(())
}

fn check(net: &Internet, model: &mut Model) -> Result<(), String> {
    let now = net.elapsed();
    let open_for = |since: Option<Duration>| {
        since.map_or(Duration::ZERO, |since| now - since.max(model.calm_since))
    };
    // A registration is renewed every five seconds: the relay may know a node that late.
    let relay_for = open_for(model.relay_since).saturating_sub(6 * SECOND);
    let direct_for = open_for(model.direct_since);
    for (side, node) in net.nodes.iter().enumerate() {
        if node.harmed > 0 {
            return Err(format!("at {now:?}: node {side} took {} harmed packets", node.harmed));
        }
        // A way that works without loss is not given up for a worse one; what is changed is lost.
        let hears = node.got_data.is_some_and(|at| net.now - at < SECOND);
        let works = is_direct(net, side) && hears;
        let did_work = std::mem::replace(&mut model.direct[side], works);
        let sound = net.topology.loss == 0 && net.topology.disorder == 0;
        if did_work && !is_direct(net, side) && direct_for > 5 * SECOND && sound {
            return Err(format!("at {now:?}: node {side} gave up a direct way that works"));
        }
        let silent = node.got_data.map_or(now, |at| net.now - at);
        if relay_for > 3 * SECOND && silent > 2 * SECOND {
            return Err(format!(
                "at {now:?}: node {side} hears nothing for {silent:?} though the relay is there \
                 for {relay_for:?}; {:?} in {:?}",
                node.agent.report(net.now),
                net.topology
            ));
        }
        // To find a direct way without the relay, the ends must know each other's new addresses.
        let fair = relay_for > 31 * SECOND && direct_for > 31 * SECOND;
        if fair && !is_direct(net, side) {
            return Err(format!(
                "at {now:?}: node {side} is relayed though direct is open for {direct_for:?}; \
                 {:?} in {:?}",
                node.agent.report(net.now),
                net.topology
            ));
        }
    }
    Ok(())
}

/// Seeds that once showed a fault.
const REGRESSIONS: [u64; 6] = [204, 287, 438, 509, 1117, 3629];

#[test]
fn random_histories_hold_what_the_model_demands() {
    let seeds = seeds(60);
    let found_once = REGRESSIONS.into_iter().filter_map(|seed| history(seed).err());
    let mut failures = on_all_cores(seeds.clone(), |seed| history(seed).err());
    failures.extend(found_once);
    println!("{} histories", seeds.count());
    assert!(failures.is_empty(), "{} histories: {failures:#?}", failures.len());
}
