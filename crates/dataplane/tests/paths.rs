//! Small paths, relayed paths, and keys that change under load.

mod support;

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use gvpn_dataplane::{Hop, Offloads, Route};
use support::*;

#[test]
fn packets_of_1280_bytes_and_tcp_cross_any_path() {
    for path in [576 - 28, 1252, 1372] {
        let pair = Pair::new(Offloads::ALL, Kind::Vnet, path);
        ping(&pair.host_a, v4(1), &["-s", "1252", "-M", "do"]);
        ping(&pair.host_b, v6(0), &["-s", "1232"]);
        transfer(&pair.host_a, &pair.host_b, v4(1), 4 << 20);
        transfer(&pair.host_b, &pair.host_a, v6(0), 4 << 20);
        assert_eq!((pair.a.dropped("fragment"), pair.b.dropped("fragment")), (0, 0));
    }
}

#[test]
fn a_packet_larger_than_the_path_is_answered_with_what_fits() {
    let pair = Pair::new(Offloads::ALL, Kind::Vnet, 1372);
    let to = v4(1).to_string();
    let args = ["-c", "1", "-W", "10", "-M", "do", "-s", "1372", &to];
    let refused = pair.host_a.command("ping").args(args).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(!refused.status.success() && said.contains("mtu = 1340"), "{said}");
    assert!(pair.a.dropped("too_big") >= 1);
    // Without the prohibition it goes in parts.
    ping(&pair.host_a, v4(1), &["-M", "dont", "-s", "1372"]);
}

#[test]
fn a_path_that_shrinks_and_grows_under_tcp_carries_it_on() {
    let pair = Pair::new(Offloads::ALL, Kind::Vnet, 1472);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for mtu in [700, 1472, 600, 1300].into_iter().cycle() {
                if done.load(Relaxed) {
                    return;
                }
                routes(&pair.a, &pair.b, mtu);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        transfer(&pair.host_a, &pair.host_b, v4(1), 32 << 20);
        done.store(true, Relaxed);
    });
}

#[test]
fn new_keys_under_load_lose_nothing() {
    let pair = Pair::new(Offloads::ALL, Kind::Vnet, 1472);
    let network = Some(pair.net.id());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for seed in 2..200u8 {
                if done.load(Relaxed) {
                    return;
                }
                lane(&pair.a, &pair.b, network, seed);
                std::thread::sleep(Duration::from_millis(30));
                // What was on its way when the new lane took over has long arrived.
                if seed > 12 {
                    pair.a.plane.remove_lane(1000 + u32::from(seed) - 11);
                    pair.b.plane.remove_lane(2000 + u32::from(seed) - 11);
                }
            }
        });
        transfer(&pair.host_a, &pair.host_b, v4(1), 128 << 20);
        ping_pong(&pair, 3000);
        done.store(true, Relaxed);
    });
    for node in [&pair.a, &pair.b] {
        let lost = ["unknown_lane", "forged", "replayed", "too_old", "no_lane", "lane_exhausted"];
        let drops = node.plane.stats().drops;
        assert!(!drops.iter().any(|(name, _)| lost.contains(name)), "{drops:?}");
    }
}

/// A window of numbered datagrams there and back: all come, in order.
fn ping_pong(pair: &Pair, rounds: u32) {
    let echo = pair.host_b.enter(|| UdpSocket::bind((v4(1), 0)).unwrap()).unwrap();
    let addr = echo.local_addr().unwrap();
    let socket = pair.host_a.enter(|| UdpSocket::bind((v4(0), 0)).unwrap()).unwrap();
    for socket in [&echo, &socket] {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 200];
            for _ in 0..rounds {
                let (n, from) = echo.recv_from(&mut buffer).unwrap();
                echo.send_to(&buffer[..n], from).unwrap();
            }
        });
        let mut received = 0;
        for number in 0..rounds {
            socket.send_to(&number.to_be_bytes().repeat(1 + number as usize % 40), addr).unwrap();
            while number + 1 - received >= 16 || number + 1 == rounds && received < rounds {
                let mut buffer = [0; 200];
                socket.recv(&mut buffer).unwrap();
                assert_eq!(buffer[..4], received.to_be_bytes());
                received += 1;
            }
        }
    });
}

#[test]
fn a_relayed_path_carries_everything() {
    let pair = Pair::new(Offloads::ALL, Kind::Vnet, 1472);
    let relay = UdpSocket::bind(LOCAL).unwrap();
    let addr = relay.local_addr().unwrap();
    let hop = Hop::Relay { relay: addr, session: 0xabcd };
    for (node, peer) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
        node.plane.set_route(peer.id, Some(Route { hop, mtu: 1440 }));
    }
    let done = AtomicBool::new(false);
    let (a, b) = (pair.a.addr(), pair.b.addr());
    relay.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2000];
            while !done.load(Relaxed) {
                let Ok((n, from)) = relay.recv_from(&mut buffer) else { continue };
                assert_eq!(buffer[..8], [5, 0, 0, 0, 0xcd, 0xab, 0, 0]);
                assert!(n <= 1440);
                relay.send_to(&buffer[..n], if from == a { b } else { a }).unwrap();
            }
        });
        ping(&pair.host_a, v4(1), &["-s", "1372"]);
        transfer(&pair.host_a, &pair.host_b, v4(1), 4 << 20);
        done.store(true, Relaxed);
    });
}

#[test]
fn tcp_survives_a_link_that_loses_reorders_doubles_and_corrupts() {
    for offloads in [Offloads::ALL, Offloads::NONE] {
        let kind = if offloads == Offloads::ALL { Kind::Vnet } else { Kind::Plain };
        let pair = Pair::new(offloads, kind, 1472);
        let link = UdpSocket::bind(LOCAL).unwrap();
        link.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let hop = Hop::Direct(link.local_addr().unwrap());
        for (node, peer) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            node.plane.set_route(peer.id, Some(Route { hop, mtu: 1472 }));
        }
        let done = AtomicBool::new(false);
        let (a, b) = (pair.a.addr(), pair.b.addr());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut buffer = [0; 2000];
                let mut late: Option<(Vec<u8>, std::net::SocketAddr)> = None;
                for turn in 0u32.. {
                    if done.load(Relaxed) {
                        return;
                    }
                    let Ok((n, from)) = link.recv_from(&mut buffer) else { continue };
                    let to = if from == a { b } else { a };
                    match turn.wrapping_mul(2_654_435_761) >> 16 & 0x3ff {
                        0..4 => continue,
                        4..8 => buffer[n / 2] ^= 4,
                        8..12 => drop(link.send_to(&buffer[..n], to)),
                        12..24 => {
                            late = Some((buffer[..n].to_vec(), to));
                            continue;
                        }
                        _ => {}
                    }
                    link.send_to(&buffer[..n], to).unwrap();
                    if turn % 7 == 0
                        && let Some((bytes, to)) = late.take()
                    {
                        link.send_to(&bytes, to).unwrap();
                    }
                }
            });
            transfer(&pair.host_a, &pair.host_b, v4(1), 3 << 20);
            transfer(&pair.host_b, &pair.host_a, v6(0), 1 << 20);
            done.store(true, Relaxed);
        });
        for reason in ["forged", "replayed"] {
            assert!(pair.a.dropped(reason) + pair.b.dropped(reason) > 0, "{reason}");
        }
    }
}
