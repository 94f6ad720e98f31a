//! Several relays: the nearest is home, a dead one is replaced, a peer's is used to reach it. Nodes
//! live on LANs of their own, with the relays' host on all of them. Needs root and nats-server.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Mutex,
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab, Lan};
use gvpn_net::{Net, NetConfig, PathKind};
use gvpn_relay::{FleetConfig, Relay, RelayConfig};
use tokio::runtime::Handle;

const LIMIT: Duration = Duration::from_secs(60);

struct World {
    lab: Lab,
    relays: Host,
    kept: Mutex<Vec<(Host, Lan)>>,
}

/// LAN `i` is 10.0.i.0/24, with the relays at .1.
impl World {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let relays = lab.host("relays").unwrap();
        Self { lab, relays, kept: Mutex::default() }
    }

    fn relay(&self, port: u16, change: impl FnOnce(&mut RelayConfig)) -> Relay {
        let listen = vec![SocketAddr::new([0, 0, 0, 0].into(), port)];
        let mut config = RelayConfig::new(Identity::generate(), listen);
        config.workers = 1;
        change(&mut config);
        inside(&self.relays, Relay::start(config)).unwrap()
    }

    fn node(&self, lan: u8, ports: &[u16]) -> Net {
        let host = self.lab.host("node").unwrap();
        let bridge = self.lab.lan().unwrap();
        self.relays.join(&bridge, &[&format!("10.0.{lan}.1/24")]).unwrap();
        host.join(&bridge, &[&format!("10.0.{lan}.2/24")]).unwrap();
        // The relays' host answers at all of its addresses and forwards nothing.
        host.default_route(&format!("10.0.{lan}.1")).unwrap();
        let mut config = NetConfig::new(Identity::generate());
        config.listen = vec![SocketAddr::new([0, 0, 0, 0].into(), 0)];
        config.advertise = Some(vec![SocketAddr::new(IpAddr::from([10, 0, lan, 2]), 9)]);
        config.relays =
            ports.iter().map(|p| SocketAddr::new(IpAddr::from([10, 0, lan, 1]), *p)).collect();
        config.workers = 1;
        config.stream_port = None;
        let net = inside(&host, Net::bind(config)).unwrap();
        self.kept.lock().unwrap().push((host, bridge));
        net
    }
}

fn inside<T: Send>(host: &Host, future: impl Future<Output = T> + Send) -> T {
    let runtime = Handle::current();
    tokio::task::block_in_place(|| host.enter(|| runtime.block_on(future)).unwrap())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What one sends the other over a stream that stays open.
struct Talk {
    there: gvpn_net::Stream,
    here: gvpn_net::Stream,
    count: u32,
}

impl Talk {
    async fn begin(a: &Net, b: &Net) -> Self {
        let mut incoming = b.serve("talk");
        let there = a.open(b.node_id(), "talk").await.unwrap();
        let here = incoming.recv().await.unwrap().stream;
        Self { there, here, count: 0 }
    }

    async fn say(&mut self) -> Duration {
        let start = Instant::now();
        self.count += 1;
        self.there.send_msg(&self.count).await.unwrap();
        let heard = tokio::time::timeout(LIMIT, self.here.recv_msg::<u32>()).await;
        assert_eq!(heard.expect("nothing is heard").unwrap(), Some(self.count));
        start.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_relay_is_replaced() {
    let world = World::new();
    let (one, two) = (world.relay(7001, |_| ()), world.relay(7002, |_| ()));
    let (a, b) = (world.node(1, &[7001, 7002]), world.node(2, &[7001, 7002]));
    until("both register at both", || [&one, &two].iter().all(|r| r.stats().clients == 2)).await;
    let mut talk = Talk::begin(&a, &b).await;
    talk.say().await;
    let report = a.ping(b.node_id()).await.unwrap();
    assert_eq!(report.kind, PathKind::Relay, "{report:?}");
    let used = report.remote.unwrap().port();
    // It goes without a word, as when its machine is cut off.
    let (dead, alive) = if used == 7001 { (one, two) } else { (two, one) };
    let drop_it = format!("meta l4proto {{ tcp, udp }} th dport {used} drop;");
    let rules =
        format!("table ip lab {{ chain in {{ type filter hook input priority 0; {drop_it} }}; }};");
    world.relays.run("nft", [rules]).unwrap();
    let stall = talk.say().await;
    let before = alive.stats().forwarded_packets;
    talk.say().await;
    // A relay counts a packet when it is on its way.
    let what = format!("the other relay forwards, after {stall:?}");
    until(&what, || alive.stats().forwarded_packets > before).await;
    drop(dead);
    // The dead one is no longer named: what is left can be used by somebody new.
    until("only one is connected", || {
        [&a, &b].iter().all(|net| net.relays().iter().all(|(addr, _)| addr.port() != used))
    })
    .await;
    let c = world.node(3, &[if used == 7001 { 7002 } else { 7001 }]);
    until("a third registers", || alive.stats().clients == 3).await;
    Talk::begin(&c, &b).await.say().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_reached_through_its_own_relay() {
    let world = World::new();
    let store = tempfile::tempdir().unwrap();
    let mut nats = world.relays.command("nats-server");
    nats.args(["-js", "-a", "127.0.0.1", "-p", "4222", "-sd"]).arg(store.path());
    nats.inner().stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let _nats = nats.spawn().expect("Debian package nats-server");
    // The relays' tasks run outside their host, and so does their connection to NATS: by a socket
    // that was made inside.
    let port = nats_from_outside(&world.relays);
    let fleet = |config: &mut RelayConfig| {
        config.fleet = Some(FleetConfig::new(format!("nats://127.0.0.1:{port}")));
    };
    let (one, two) = (world.relay(7001, fleet), world.relay(7002, fleet));
    let (a, b) = (world.node(1, &[7001]), world.node(2, &[7002]));
    until("records spread", || [&one, &two].iter().all(|r| r.stats().records == 2)).await;
    Talk::begin(&a, &b).await.say().await;
    let report = a.ping(b.node_id()).await.unwrap();
    assert_eq!(report.kind, PathKind::Relay, "{report:?}");
    // By whichever of its addresses.
    assert_eq!(report.remote.unwrap().port(), 7002, "{report:?}");
    assert_eq!((one.stats().sessions, two.stats().sessions), (0, 1));
}

/// A port here that leads to the NATS server there.
fn nats_from_outside(host: &Host) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let host = host.clone();
    std::thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let connect = || std::net::TcpStream::connect("127.0.0.1:4222");
            let Ok(Ok(far)) = host.enter(connect) else { continue };
            let pairs = [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)];
            for (mut from, mut to) in pairs {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    port
}

/// Forwards datagrams between whoever sends to it and `to`, late.
fn slow_wire(to: SocketAddr, delay: Duration) -> SocketAddr {
    let (near, far) =
        (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let addr = near.local_addr().unwrap();
    let caller: &'static Mutex<Option<SocketAddr>> = Box::leak(Box::default());
    let pass = move |from: UdpSocket, out: UdpSocket, there: bool| {
        std::thread::spawn(move || {
            let mut buffer = [0; 65_536];
            while let Ok((size, sender)) = from.recv_from(&mut buffer) {
                std::thread::sleep(delay);
                let target = if there {
                    *caller.lock().unwrap() = Some(sender);
                    Some(to)
                } else {
                    *caller.lock().unwrap()
                };
                if let Some(target) = target {
                    let _ = out.send_to(&buffer[..size], target);
                }
            }
        })
    };
    pass(near.try_clone().unwrap(), far.try_clone().unwrap(), true);
    pass(far, near, false);
    addr
}

#[tokio::test(flavor = "multi_thread")]
async fn the_nearest_relay_is_home() {
    let relay = async || {
        let mut config = RelayConfig::new(Identity::generate(), vec![([127, 0, 0, 1], 0).into()]);
        config.workers = 1;
        Relay::start(config).await.unwrap()
    };
    let (far, near) = (relay().await, relay().await);
    let wire = slow_wire(far.local_addrs()[0], Duration::from_millis(40));
    let mut config = NetConfig::new(Identity::generate());
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.relays = vec![wire, near.local_addrs()[0]];
    config.stream_port = None;
    let node = Net::bind(config).await.unwrap();
    let order = vec![(near.local_addrs()[0], near.node_id()), (wire, far.node_id())];
    until("the nearest comes first", || node.relays() == order).await;
}

/// Nothing that a client sends makes the relay forward more than it may.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_sends_no_faster_than_it_may() {
    const RATE: u64 = 1 << 20;
    let world = World::new();
    let relay = world.relay(7001, |config| config.limits.bytes_per_second = RATE);
    let (a, b) = (world.node(1, &[7001]), world.node(2, &[7001]));
    until("both register", || relay.stats().clients == 2).await;
    let mut talk = Talk::begin(&a, &b).await;
    let start = Instant::now();
    let before = relay.stats().forwarded_bytes;
    let sent = tokio::spawn(async move {
        for _ in 0..48 {
            talk.there.send_msg(&vec![7u8; 64 * 1024]).await.unwrap();
            talk.here.recv_msg::<Vec<u8>>().await.unwrap();
        }
    });
    tokio::time::timeout(LIMIT, sent).await.expect("it goes on").unwrap();
    let (took, stats) = (start.elapsed(), relay.stats());
    // Two clients, and what each may send at once.
    let most = 2.0 * RATE as f64 * (took.as_secs_f64() + 0.3);
    assert!(((stats.forwarded_bytes - before) as f64) < most, "{took:?} {stats:?}");
    assert!(took > Duration::from_millis(1500), "{took:?}");
    let limited = stats.drops.iter().find(|(reason, _)| *reason == "relay_limit");
    assert!(limited.is_some_and(|(_, count)| *count > 0), "{stats:?}");
}
