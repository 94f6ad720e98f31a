//! Payloads' packets between nodes on loopback, through everything: TUN, switch, lanes, UDP.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_lab::Lab;
use gvpn_net::{Net, NetConfig};
use gvpn_session::Suite;
use payload::{Network, Payload, node, node_at, v4};
use wire::Wire;

mod payload;
mod wire;

/// Two nodes whose payloads share a network. The first calls the second through a wire.
struct Pair {
    a: Net,
    b: Net,
    network: Network,
    here: Payload,
    there: Payload,
    wire: Wire,
    lab: Lab,
    b_identity: Identity,
}

async fn pair() -> Pair {
    let b_identity = Identity::generate();
    let b = node(b_identity.clone()).await;
    pair_with(b, b_identity).await
}

async fn pair_with(b: Net, b_identity: Identity) -> Pair {
    let lab = Lab::new().unwrap();
    let a = node(Identity::generate()).await;
    let wire = Wire::to(b.local_addrs()[0]).await;
    a.add_peer_addrs(b.node_id(), vec![wire.addr]);
    let network = Network::of(&[a.node_id(), b.node_id()]);
    let (here, there) = (Payload::new(&lab, 0), Payload::new(&lab, 1));
    network.join(&a, 0, &here);
    network.join(&b, 1, &there);
    Pair { a, b, network, here, there, wire, lab, b_identity }
}

/// Runs what blocks without holding up the nodes.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_are_made_on_demand_and_carry_both_families() {
    let p = pair().await;
    let bytes: Vec<u8> = (0..8_000_000u32).map(|i| (i >> 5) as u8).collect();
    blocking(|| {
        let first = p.here.reaches(&p.there);
        assert!(first < Duration::from_secs(5), "{first:?}");
        for six in [false, true] {
            assert!(p.here.send_tcp(&p.there, &bytes, six) == bytes);
            assert!(p.there.send_tcp(&p.here, &bytes, six) == bytes);
        }
    });
    let status = &p.a.peers()[0];
    assert!(status.lanes == 2 && status.sent_bytes > 16_000_000, "{status:?}");
    assert!(status.mtu > 1200, "the path MTU is found: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_in_the_roster_gets_no_lane_until_it_is() {
    let lab = Lab::new().unwrap();
    let (a, b) = (node(Identity::generate()).await, node(Identity::generate()).await);
    a.add_peer_addrs(b.node_id(), b.local_addrs());
    let network = Network::of(&[a.node_id(), b.node_id()]);
    let (here, there) = (Payload::new(&lab, 0), Payload::new(&lab, 1));
    network.join(&a, 0, &here);
    // The other node has the payload but does not know that the first is a member.
    network.join(&b, 1, &there);
    b.share_network(network.id(), []);
    blocking(|| {
        let (from, at) = (here.udp(), there.udp());
        at.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        for _ in 0..15 {
            let _ = from.send_to(b"x", (v4(1), 7000));
            assert!(at.recv_from(&mut [0; 9]).is_err(), "nothing may arrive");
        }
    });
    assert!(a.peers()[0].connected);
    b.share_network(network.id(), [a.node_id()]);
    let took = blocking(|| here.reaches(&there));
    assert!(took < Duration::from_secs(2), "{took:?}");
    // Out of the roster again: its lane is gone at once.
    b.share_network(network.id(), []);
    blocking(|| {
        let (from, at) = (here.udp(), there.udp());
        at.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        while at.recv_from(&mut [0; 9]).is_ok() {}
        for _ in 0..5 {
            let _ = from.send_to(b"x", (v4(1), 7000));
            assert!(at.recv_from(&mut [0; 9]).is_err(), "nothing may arrive");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn one_end_without_aes_is_enough_for_the_other_cipher() {
    let b_identity = Identity::generate();
    let mut config = NetConfig::new(b_identity.clone());
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.aes = false;
    let p = pair_with(Net::bind(config).await.unwrap(), b_identity).await;
    blocking(|| p.here.reaches(&p.there));
    for net in [&p.a, &p.b] {
        let lanes = net.dataplane().stats().lanes;
        assert!(!lanes.is_empty());
        assert!(lanes.iter().all(|lane| lane.suite == Suite::ChaCha20Poly1305), "{lanes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_under_traffic_lose_nothing() {
    let p = pair().await;
    blocking(|| p.here.reaches(&p.there));
    let (from, at) = (p.here.udp(), p.there.udp());
    at.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let stop = AtomicBool::new(false);
    let (sent, received) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut number = 0u32;
            while !stop.load(Ordering::SeqCst) {
                from.send_to(&number.to_be_bytes(), (v4(1), 7000)).unwrap();
                number += 1;
                std::thread::sleep(Duration::from_micros(500));
            }
            number
        });
        let receiver = scope.spawn(|| {
            let mut count = 0u32;
            let mut buffer = [0; 64];
            loop {
                let stopped = stop.load(Ordering::SeqCst);
                match at.recv_from(&mut buffer) {
                    // What `reaches` sent last may still be on its way.
                    Ok((n, _)) => count += u32::from(n == 4),
                    Err(_) if stopped => return count,
                    Err(_) => {}
                }
            }
        });
        let handle = tokio::runtime::Handle::current();
        let began = Instant::now();
        for _ in 0..5 {
            blocking(|| handle.block_on(p.a.renew_keys(p.b.node_id()))).unwrap();
            std::thread::sleep(Duration::from_millis(400));
        }
        let peer = p.a.peers().into_iter().find(|peer| peer.node == p.b.node_id()).unwrap();
        let age = peer.keys_age.unwrap();
        assert!(age < began.elapsed(), "keys are {age:?} old");
        stop.store(true, Ordering::SeqCst);
        (sender.join().unwrap(), receiver.join().unwrap())
    });
    assert!(sent > 1000, "{sent}");
    assert_eq!(received, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_is_reached_again() {
    let mut p = pair().await;
    blocking(|| p.here.reaches(&p.there));
    let addr = p.b.local_addrs()[0];
    p.wire.cut();
    drop(p.b);
    p.there = Payload::new(&p.lab, 1);
    p.b = node_at(p.b_identity.clone(), addr).await;
    p.network.join(&p.b, 1, &p.there);
    p.wire.mend();
    let took = blocking(|| p.here.reaches(&p.there));
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_packet_in_a_new_network_outlasts_a_connection_that_died_unnoticed() {
    let p = pair().await;
    blocking(|| p.here.reaches(&p.there));
    // Started anew without a word, elsewhere.
    p.wire.cut();
    drop(p.b);
    let b = node(p.b_identity.clone()).await;
    p.a.add_peer_addrs(b.node_id(), b.local_addrs());
    let second = Network::of(&[p.a.node_id(), b.node_id()]);
    assert_ne!(second.id(), p.network.id());
    let (here, there) = (Payload::new(&p.lab, 0), Payload::new(&p.lab, 1));
    second.join(&p.a, 0, &here);
    second.join(&b, 1, &there);
    let (from, at) = (here.udp(), there.udp());
    at.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    from.send_to(b"once", (v4(1), 7000)).unwrap();
    let mut buffer = [0; 64];
    let arrived = blocking(|| at.recv_from(&mut buffer));
    assert_eq!(&buffer[..arrived.expect("it arrives").0], b"once");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_answer_to_a_restarted_node_goes_to_where_it_is_now() {
    let p = pair().await;
    blocking(|| p.here.reaches(&p.there));
    p.wire.cut();
    drop(p.b);
    let b = node(p.b_identity.clone()).await;
    b.add_peer_addrs(p.a.node_id(), p.a.local_addrs());
    let there = Payload::new(&p.lab, 1);
    p.network.join(&b, 1, &there);
    let (asks, answers) = (there.udp(), p.here.udp());
    for socket in [&asks, &answers] {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    }
    let answered = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        // What `reaches` sent last may still be on its way.
        while answers.recv_from(&mut buffer).expect("the question arrives").0 != 8 {}
        answers.send_to(b"answer", (v4(1), 7000)).unwrap();
    });
    asks.send_to(b"question", (v4(0), 7000)).unwrap();
    let mut buffer = [0; 64];
    let arrived = blocking(|| asks.recv_from(&mut buffer));
    assert_eq!(&buffer[..arrived.expect("the answer arrives").0], b"answer");
    answered.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_moves_to_another_path_when_one_dies() {
    let p = pair().await;
    let second = Wire::to(p.b.local_addrs()[0]).await;
    p.a.add_peer_addrs(p.b.node_id(), vec![second.addr]);
    let (from, at) = (p.here.udp(), p.there.udp());
    at.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
    let mut wires = [&p.wire, &second];
    let mut buffer = [0; 64];
    // Sends for a while; the longest time without an arrival.
    let mut flow = |limit: Duration| {
        let (start, mut last, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
        while start.elapsed() < limit {
            from.send_to(b"tick", (v4(1), 7000)).unwrap();
            if at.recv_from(&mut buffer).is_ok() {
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
        }
        longest.max(last.elapsed())
    };
    blocking(|| flow(Duration::from_secs(2)));
    for _ in 0..3 {
        let remote = p.a.peers()[0].remote;
        wires.sort_by_key(|wire| Some(wire.addr) != remote);
        wires[0].cut();
        let gap = blocking(|| flow(Duration::from_secs(4)));
        assert!(gap < Duration::from_secs(2), "{gap:?}");
        wires[0].mend();
        blocking(|| flow(Duration::from_secs(2)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_pair_is_silent_and_comes_back() {
    let p = pair().await;
    blocking(|| p.here.reaches(&p.there));
    let end = Instant::now() + Duration::from_secs(60);
    let silent = loop {
        let before = p.wire.carried();
        tokio::time::sleep(Duration::from_secs(5)).await;
        if p.wire.carried() == before {
            break before;
        }
        assert!(Instant::now() < end, "the pair never falls silent");
    };
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(p.wire.carried(), silent);
    let took = blocking(|| p.here.reaches(&p.there));
    assert!(took < Duration::from_secs(2), "{took:?}");
}
