//! Payloads talk over a bad line: loss in all forms, reordering, duplicates, corruption. Real
//! sockets and TUNs in namespaces; needs root. With GVPN_FIGURES set, docs/paths.md gets what was
//! measured.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab, Lan, Line, Weather, figures};
use gvpn_net::{Net, NetConfig};
use on::On;
use payload::{Network, Payload};
use sha2::{Digest, Sha256};

mod on;
mod payload;

const PORT: u16 = 7464;
const SIZE: usize = 10_000_000;
const DELAY: Duration = Duration::from_millis(2);

/// Two nodes at the ends of a line, and their payloads.
struct World {
    line: Line,
    here: Payload,
    there: Payload,
    /// How long a first packet took.
    first: Duration,
    nodes: [On<Net>; 2],
    _lans: [Lan; 2],
}

impl World {
    fn new(weather: Weather, seed: u64) -> Self {
        let lab = Lab::new().unwrap();
        let lans = [lab.lan().unwrap(), lab.lan().unwrap()];
        let line = lab.line(&lans[0], &lans[1], weather, seed).unwrap();
        let ips = ["10.0.0.1", "10.0.0.2"];
        let hosts = [0, 1].map(|i| lab.host(["here", "there"][i]).unwrap());
        let links = [0, 1].map(|i| hosts[i].join(&lans[i], &[&format!("{}/24", ips[i])]).unwrap());
        // In reality there are routers in between: nobody's ARP goes over a long line.
        for (i, j) in [(0, 1), (1, 0)] {
            let mac = mac(&hosts[j], &links[j]);
            hosts[i].ip(["neigh", "add", ips[j], "lladdr", &mac, "dev", &links[i]]).unwrap();
        }
        let addrs = ips.map(|ip| SocketAddr::new(ip.parse().unwrap(), PORT));
        let mut hosts = hosts.into_iter();
        let nodes = addrs.map(|addr| {
            let host = hosts.next().unwrap();
            let mut config = NetConfig::new(Identity::generate());
            config.listen = vec![addr];
            config.workers = 1;
            On::start(host, || async { Net::bind(config).await.unwrap() })
        });
        let ids = nodes.each_ref().map(|node| node.what.node_id());
        nodes[0].with(|net| net.add_peer_addrs(ids[1], vec![addrs[1]]));
        let network = Network::of(&ids);
        let (here, there) = (Payload::new(&lab, 0), Payload::new(&lab, 1));
        nodes[0].with(|net| network.join(net, 0, &here));
        nodes[1].with(|net| network.join(net, 1, &there));
        let first = here.reaches(&there);
        for payload in [&here, &there] {
            patient(payload);
        }
        Self { line, here, there, first, nodes, _lans: lans }
    }

    /// Sends 10 MB by TCP between the payloads and compares checksums; how long it took.
    fn transfer(&self) -> Duration {
        let bytes: Vec<u8> = (0..SIZE as u32).flat_map(|i| i.to_le_bytes()).take(SIZE).collect();
        let start = Instant::now();
        let got = self.here.send_tcp(&self.there, &bytes, false);
        let took = start.elapsed();
        assert_eq!(got.len(), bytes.len());
        assert_eq!(Sha256::digest(got), Sha256::digest(bytes));
        took
    }
}

fn mac(host: &Host, interface: &str) -> String {
    let shown = host.run("ip", ["-brief", "link", "show", "dev", interface]).unwrap();
    shown.split_whitespace().find(|word| word.matches(':').count() == 5).unwrap().to_owned()
}

/// Linux doubles the time until it sends again with each loss, from a fifth of a second up to two
/// minutes, and where every fourth segment and acknowledgement is lost it gets there. From 20 ms to a
/// second here, where the kernel has those settings.
fn patient(payload: &Payload) {
    for (name, value) in [("tcp_rto_max_ms", 1000), ("tcp_rto_min_us", 20_000)] {
        let file = format!("/proc/sys/net/ipv4/{name}");
        let setting = format!("test ! -e {file} || echo {value} > {file}");
        payload.host.run("sh", ["-c", &setting]).unwrap();
    }
}

fn figure(name: &str, text: &str) {
    println!("{text}");
    if figures::wanted() {
        figures::write("paths.md", name, text).unwrap();
    }
}

/// Both ways lose as much, from the call on.
fn loses(name: &str, what: &str, weather: Weather) {
    let world = World::new(Weather { delay: DELAY, ..weather }, 1);
    let took = world.transfer();
    let counts = world.line.counts();
    assert!(counts.lost > 1000, "{counts:?}");
    let (first, seconds) = (world.first.as_secs_f64(), took.as_secs_f64());
    let rate = SIZE as f64 * 8e-6 / seconds;
    let text =
        format!("first packet after {first:.1} s, 10 MB in {seconds:.1} s ({rate:.1} Mbit/s)");
    figure(name, &format!("- {what}: {text}"));
}

#[test]
fn ten_megabytes_arrive_though_every_fifth_frame_is_lost() {
    let weather = Weather { loss: 0.2, ..Weather::default() };
    loses("loss-uniform", "20 % of the frames lost, each by itself", weather);
}

#[test]
fn ten_megabytes_arrive_though_a_quarter_is_lost_in_bursts() {
    let weather = Weather { loss: 0.25, burst: 4.0, ..Weather::default() };
    loses("loss-bursts", "25 % of the frames lost, in bursts of 4 on average", weather);
}

#[test]
fn reordering_duplicates_and_corruption_do_no_harm() {
    let weather = Weather {
        delay: DELAY,
        jitter: DELAY,
        reorder: 0.05,
        duplicate: 0.05,
        corrupt: 0.01,
        ..Weather::default()
    };
    let world = World::new(weather, 2);
    let took = world.transfer();
    let counts = world.line.counts();
    assert!(counts.late > 100 && counts.repeated > 100 && counts.changed > 20, "{counts:?}");
    // What was changed so that UDP's checksum does not tell is found out by the seal.
    let drops = world.nodes[1].what.dataplane().stats().drops;
    let seal = drops.iter().any(|(reason, count)| *reason == "forged" && *count > 0);
    assert!(seal, "{drops:?}");
    let rate = SIZE as f64 * 8e-6 / took.as_secs_f64();
    let text = "- 5 % overtaken, 5 % doubled, 1 % changed on the way, jitter of 2 ms: 10 MB in";
    figure("disorder", &format!("{text} {:.1} s ({rate:.1} Mbit/s)", took.as_secs_f64()));
}
