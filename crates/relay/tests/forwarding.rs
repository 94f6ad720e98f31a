//! Nodes that have no way to each other but through a relay: each on a LAN of its own, the relay on
//! all of them.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Mutex,
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab, Lan};
use gvpn_net::{Net, NetConfig, PathKind};
use gvpn_relay::{Relay, RelayConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Handle,
};

const PORT: u16 = 7464;
const LIMIT: Duration = Duration::from_secs(60);

struct World {
    lab: Lab,
    relay_host: Host,
    relay_config: RelayConfig,
    /// What must not be dropped as long as the world is.
    kept: Mutex<Vec<(Host, Lan)>>,
}

/// LAN `i` is 10.0.i.0/24, with the relay at .1.
impl World {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let relay_host = lab.host("relay").unwrap();
        let listen = vec![SocketAddr::new([0, 0, 0, 0].into(), PORT)];
        let mut relay_config = RelayConfig::new(Identity::generate(), listen);
        relay_config.workers = 1;
        Self { lab, relay_host, relay_config, kept: Mutex::default() }
    }

    async fn relay(&self) -> Relay {
        let end = Instant::now() + LIMIT;
        loop {
            let config = self.relay_config.clone();
            match inside(&self.relay_host, Relay::start(config)) {
                Ok(relay) => return relay,
                Err(error) if Instant::now() > end => panic!("{error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn node(&self, lan: u8) -> Net {
        let host = self.lab.host("node").unwrap();
        let bridge = self.lab.lan().unwrap();
        self.relay_host.join(&bridge, &[&format!("10.0.{lan}.1/24")]).unwrap();
        host.join(&bridge, &[&format!("10.0.{lan}.2/24")]).unwrap();
        let mut config = NetConfig::new(Identity::generate());
        config.listen = vec![SocketAddr::new([0, 0, 0, 0].into(), 0)];
        // The node's tasks run outside its namespace and would see other interfaces.
        config.advertise = Some(vec![SocketAddr::new(IpAddr::from([10, 0, lan, 2]), 9)]);
        config.relays = vec![SocketAddr::new(IpAddr::from([10, 0, lan, 1]), PORT)];
        config.workers = 1;
        let net = inside(&host, Net::bind(config)).unwrap();
        self.kept.lock().unwrap().push((host, bridge));
        net
    }
}

/// Runs a future where its sockets belong.
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

fn serve_echo(net: &Net) {
    let mut incoming = net.serve("echo");
    tokio::spawn(async move {
        while let Some(call) = incoming.recv().await {
            tokio::spawn(async move {
                let (mut writer, mut reader) = call.stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.finish();
            });
        }
    });
}

async fn echo(net: &Net, to: &Net, size: usize) {
    let bytes: Vec<u8> = (0..size).map(|i| (i >> 4) as u8).collect();
    let stream = net.open(to.node_id(), "echo").await.unwrap();
    let (mut writer, mut reader) = stream.split();
    let sent = bytes.clone();
    let sender = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.finish().unwrap();
    });
    let mut back = Vec::new();
    reader.read_to_end(&mut back).await.unwrap();
    sender.await.unwrap();
    assert!(back == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_without_any_other_way_meet_through_the_relay() {
    let world = World::new();
    let relay = world.relay().await;
    let (a, b) = (world.node(1), world.node(2));
    until("both register", || relay.stats().clients == 2).await;
    serve_echo(&b);
    let start = Instant::now();
    echo(&a, &b, 100).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    let report = a.ping(b.node_id()).await.unwrap();
    assert_eq!(report.kind, PathKind::Relay, "{report:?}");
    assert_eq!(report.remote, Some("10.0.1.1:7464".parse().unwrap()));
    assert!(report.reason.contains("direct"), "{report:?}");
    echo(&a, &b, 4_000_000).await;
    let stats = relay.stats();
    assert_eq!(stats.sessions, 1);
    assert!(stats.forwarded_bytes > 8_000_000, "{stats:?}");
    assert_eq!(a.observed_addrs().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_relay_interrupts_for_less_than_three_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new();
    world.relay_config.database = Some(dir.path().join("registry.db"));
    let relay = world.relay().await;
    let (a, b) = (world.node(1), world.node(2));
    until("both register", || relay.stats().clients == 2).await;
    let mut incoming = b.serve("ticks");
    let mut ticks = a.open(b.node_id(), "ticks").await.unwrap();
    let mut heard = incoming.recv().await.unwrap().stream;
    ticks.send_msg(&0u32).await.unwrap();
    assert_eq!(heard.recv_msg::<u32>().await.unwrap(), Some(0));
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(relay);
    let relay = world.relay().await;
    let start = Instant::now();
    ticks.send_msg(&1u32).await.unwrap();
    assert_eq!(heard.recv_msg::<u32>().await.unwrap(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    until("both come back", || relay.stats().clients == 2).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}
