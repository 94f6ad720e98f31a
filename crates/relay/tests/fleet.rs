//! Relays that share one registry through a real NATS server. Needs nats-server.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use gvpn_identity::Identity;
use gvpn_market::{
    Draft, OFFERS, Offer, OfferReply, OfferRequest, OfferSheet, SignedSheet, SubscriptionId,
};
use gvpn_net::{Net, NetConfig, NodeId};
use gvpn_relay::{FleetConfig, Relay, RelayConfig};

const LIMIT: Duration = Duration::from_secs(60);

/// A NATS server with JetStream.
struct Nats {
    port: u16,
    store: tempfile::TempDir,
    process: Option<Child>,
}

impl Nats {
    fn start() -> Self {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let port = free_port();
        let mut nats = Self { port, store: tempfile::tempdir().unwrap(), process: None };
        nats.up();
        nats
    }

    fn up(&mut self) {
        let mut command = Command::new("nats-server");
        command.args(["-js", "-a", "127.0.0.1", "-p", &self.port.to_string(), "-sd"]);
        command.arg(self.store.path()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("Debian package nats-server"));
        let end = Instant::now() + LIMIT;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "nats-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn down(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    async fn relay(&self, database: Option<&Path>) -> Relay {
        let mut config = RelayConfig::new(Identity::generate(), vec![([127, 0, 0, 1], 0).into()]);
        config.workers = 1;
        config.database = database.map(Path::to_owned);
        config.fleet = Some(FleetConfig::new(format!("nats://127.0.0.1:{}", self.port)));
        Relay::start(config).await.unwrap()
    }
}

/// A TCP port below those that the system gives out by itself: nobody takes it while NATS is down.
fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id().wrapping_mul(101) + TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + u16::try_from(number % 20_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.down();
    }
}

async fn node(relay: &Relay) -> (Identity, Net) {
    let identity = Identity::generate();
    let mut config = NetConfig::new(identity.clone());
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.workers = 1;
    config.relays = relay.local_addrs();
    config.stream_port = None;
    (identity, Net::bind(config).await.unwrap())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn connected(relay: &Relay) -> bool {
    relay.stats().fleet.is_some_and(|fleet| fleet.connected)
}

async fn meet(a: &Net, b: &Net) {
    let mut incoming = b.serve("hello");
    a.open(b.node_id(), "hello").await.unwrap();
    assert_eq!(incoming.recv().await.unwrap().peer, a.node_id());
}

fn sheet(identity: &Identity) -> SignedSheet {
    let now = Utc::now();
    let draft = Draft {
        properties: [("golem.runtime.name", "vm")].into_iter().collect(),
        constraints: String::new(),
    };
    let provider = identity.node_id();
    let offer_id = SubscriptionId::derive([1; 16], provider, now, &draft);
    let offer = Offer { offer_id, provider_id: provider, timestamp: now, draft };
    let expires = now + TimeDelta::minutes(5);
    OfferSheet { provider, made: now, expires, offers: vec![offer] }.sign(identity).unwrap()
}

async fn ask(net: &Net, relay: NodeId, request: OfferRequest) -> OfferReply {
    let mut stream = net.open(relay, OFFERS).await.unwrap();
    stream.send_msg(&request).await.unwrap();
    stream.recv_msg::<Result<OfferReply, ()>>().await.unwrap().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_at_one_relay_is_found_at_another() {
    let nats = Nats::start();
    let (one, two) = (nats.relay(None).await, nats.relay(None).await);
    let ((a_identity, a), (_, b)) = (node(&one).await, node(&two).await);
    until("records spread", || [&one, &two].iter().all(|r| r.stats().records == 2)).await;
    meet(&a, &b).await;
    meet(&b, &a).await;
    let mine = sheet(&a_identity);
    let told = ask(&a, one.node_id(), OfferRequest::Publish(mine.clone())).await;
    assert_eq!(told, OfferReply::Published);
    // The other relay answers as soon as it knows.
    let wait = OfferRequest::Changes { book: 0, since: 0, wait_ms: 20_000 };
    let OfferReply::Changes { sheets, .. } = ask(&b, two.node_id(), wait).await else { panic!() };
    assert_eq!(sheets, [mine]);
    // A relay that is new in the fleet learns all that there is.
    let three = nats.relay(None).await;
    until("a new relay learns", || {
        let stats = three.stats();
        (stats.records, stats.providers) == (2, 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_relays_go_on_and_share_later_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let mut nats = Nats::start();
    let one = nats.relay(Some(&dir.path().join("one.db"))).await;
    let two = nats.relay(Some(&dir.path().join("two.db"))).await;
    let (_, a) = node(&one).await;
    until("a is known everywhere", || two.stats().records == 1).await;
    nats.down();
    until("both notice", || !connected(&one) && !connected(&two)).await;
    // What is known is still found, and new nodes register.
    let (_, b) = node(&two).await;
    until("b registers", || two.stats().clients == 1).await;
    assert_eq!(one.stats().records, 1);
    // To reach a it visits the relay where that one is at home.
    meet(&b, &a).await;
    assert_eq!(two.stats().fleet.unwrap().shared, 0);
    // A relay that starts now starts.
    let three = nats.relay(None).await;
    assert!(!connected(&three));
    nats.up();
    until("b is known everywhere", || {
        [&one, &three].iter().all(|r| r.stats().records == 2) && connected(&three)
    })
    .await;
    meet(&a, &b).await;
    assert_eq!(one.stats().fleet.unwrap().refused, 0);
}
