//! Lines with faults between real LANs. Needs root and /dev/net/tun.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use gvpn_lab::{Host, Lab, Lan, Line, Weather};

struct World {
    a: Host,
    b: Host,
    line: Line,
    _lans: [Lan; 2],
}

impl World {
    fn new(weather: Weather) -> Self {
        let lab = Lab::new().unwrap();
        let lans = [lab.lan().unwrap(), lab.lan().unwrap()];
        let (a, b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        a.join(&lans[0], &["10.9.0.1/24"]).unwrap();
        b.join(&lans[1], &["10.9.0.2/24"]).unwrap();
        let line = lab.line(&lans[0], &lans[1], Weather::default(), 1).unwrap();
        // Each knows the other's Ethernet address before the weather sets in.
        a.run("ping", ["-c1", "-W5", "10.9.0.2"]).unwrap();
        line.set(weather);
        Self { a, b, line, _lans: lans }
    }

    /// Sends so many numbered datagrams; those that arrive, in their order.
    fn datagrams(&self, count: u32) -> Vec<u32> {
        let bind = |host: &Host, at: &str| host.enter(|| UdpSocket::bind(at).unwrap()).unwrap();
        let (from, to) = (bind(&self.a, "10.9.0.1:7"), bind(&self.b, "10.9.0.2:7"));
        to.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                for number in 0..count {
                    let bytes = [&number.to_be_bytes()[..], &[7; 96]].concat();
                    from.send_to(&bytes, "10.9.0.2:7").unwrap();
                    std::thread::sleep(Duration::from_micros(100));
                }
            });
            let mut buffer = [0; 2000];
            let mut arrived = Vec::new();
            loop {
                let all_are_sent = sender.is_finished();
                match to.recv_from(&mut buffer) {
                    Ok(_) => arrived.push(u32::from_be_bytes(*buffer.first_chunk().unwrap())),
                    Err(_) if all_are_sent => return arrived,
                    Err(_) => {}
                }
            }
        })
    }
}

#[test]
fn a_line_takes_its_time() {
    let delay = Duration::from_millis(30);
    let world = World::new(Weather { delay, ..Weather::default() });
    let start = Instant::now();
    world.a.run("ping", ["-c1", "-W5", "10.9.0.2"]).unwrap();
    assert!(start.elapsed() >= 2 * delay, "{:?}", start.elapsed());
}

#[test]
fn frames_get_lost_overtaken_and_doubled() {
    let weather = Weather { loss: 0.2, burst: 3.0, duplicate: 0.1, ..Weather::default() };
    let world = World::new(Weather { reorder: 0.1, ..weather });
    let arrived = world.datagrams(2000);
    let counts = world.line.counts();
    assert!(arrived.len() < 2000 && counts.lost > 100, "{counts:?}");
    assert!(counts.late > 50 && !arrived.is_sorted(), "{counts:?}");
    let mut once = arrived.clone();
    once.sort_unstable();
    once.dedup();
    assert!(counts.repeated > 50 && once.len() < arrived.len(), "{counts:?}");
}

#[test]
fn what_is_changed_or_too_large_is_so_on_the_wire() {
    let world = World::new(Weather { corrupt: 1.0, mtu: Some(500), ..Weather::default() });
    assert!(world.a.run("ping", ["-c1", "-W1", "-s600", "10.9.0.2"]).is_err());
    assert!(world.line.counts().too_large > 0);
    world.datagrams(200);
    assert!(world.line.counts().changed >= 200);
}

#[test]
fn long_frames_pass_where_hosts_send_them() {
    let world = World::new(Weather::default());
    for host in [&world.a, &world.b] {
        host.ip(["link", "set", "eth0", "mtu", "9000"]).unwrap();
    }
    let ping = ["-c1", "-W5", "-Mdo", "-s8972", "10.9.0.2"];
    world.a.run("ping", ping).unwrap();
}
