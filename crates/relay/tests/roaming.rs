//! Nodes that move while their payloads talk over TCP: the connections survive. Real sockets, TUN
//! devices and nftables NATs in namespaces; needs root.

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab, Lan, Nat, figures};
use gvpn_net::{Net, NetConfig, PathKind};
use gvpn_relay::{Relay, RelayConfig};
use parking_lot::Mutex;
use payload::{Network, Payload, v4};
use tokio::runtime::Handle;

#[path = "../../net/tests/payload/mod.rs"]
mod payload;

const PORT: u16 = 7464;
const LIMIT: Duration = Duration::from_secs(60);
/// What a stall may last where the kernel reports the change, and where nobody does.
///
/// These are the limits that nodes must keep, without allowance. They hold in the time that this
/// machine gives to a thread: a [`Metronome`] beats beside the connection, and what is counted is its
/// beats. On a machine with nothing else to do that is the time of the clock (the page has that);
/// where others have the processors, neither the metronome nor a node is run, and a limit in the
/// clock's time would be one for them.
const TOLD: Duration = Duration::from_secs(1);
const UNTOLD: Duration = Duration::from_secs(3);
const BEAT: Duration = Duration::from_millis(5);

/// Time as a thread has it that is always ready after a short sleep.
struct Metronome {
    beats: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
}

impl Metronome {
    fn start() -> Self {
        let (beats, stop) = (Arc::<AtomicU32>::default(), Arc::<AtomicBool>::default());
        let (count, ended) = (Arc::clone(&beats), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !ended.load(Ordering::SeqCst) {
                std::thread::sleep(BEAT);
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { beats, stop }
    }
}

impl Drop for Metronome {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// How long a connection stood still: by the clock, and by the metronome.
#[derive(Debug, Clone, Copy, Default)]
struct Stall {
    clock: Duration,
    beats: Duration,
}

impl Stall {
    fn is_within(self, limit: Duration) {
        println!("stall: {self:?}");
        assert!(self.beats <= limit, "{self:?}, {limit:?} is allowed");
    }
}

/// Runs a future where its sockets belong.
fn inside<T: Send>(host: &Host, future: impl Future<Output = T> + Send) -> T {
    let runtime = Handle::current();
    tokio::task::block_in_place(|| host.enter(|| runtime.block_on(future)).unwrap())
}

fn on_every_address() -> Vec<SocketAddr> {
    vec![SocketAddr::new([0, 0, 0, 0].into(), PORT)]
}

/// A relay on a network of its own, to which hosts can be added.
struct World {
    lab: Lab,
    wan: Lan,
    relay: Relay,
    _relay_host: Host,
}

impl World {
    fn new() -> Self {
        let lab = Lab::new().unwrap();
        let wan = lab.lan().unwrap();
        let host = lab.host("relay").unwrap();
        host.join(&wan, &["198.51.100.1/24"]).unwrap();
        let mut config = RelayConfig::new(Identity::generate(), on_every_address());
        config.workers = 1;
        let relay = inside(&host, Relay::start(config)).unwrap();
        Self { lab, wan, relay, _relay_host: host }
    }

    fn host(&self, address: &str) -> Host {
        let host = self.lab.host("node").unwrap();
        host.join(&self.wan, &[address]).unwrap();
        host
    }

    fn node(&self, host: &Host) -> Net {
        let mut config = NetConfig::new(Identity::generate());
        config.listen = on_every_address();
        config.relays = vec![SocketAddr::new(IpAddr::from([198, 51, 100, 1]), PORT)];
        config.workers = 1;
        inside(host, Net::bind(config)).unwrap()
    }

    /// Both nodes' payloads, in one network, with a TCP connection between them.
    async fn talk(&self, a: &Net, b: &Net) -> Talk {
        until("both register", || self.relay.stats().clients == 2).await;
        let network = Network::of(&[a.node_id(), b.node_id()]);
        let (here, there) = (Payload::new(&self.lab, 0), Payload::new(&self.lab, 1));
        network.join(a, 0, &here);
        network.join(b, 1, &there);
        tokio::task::block_in_place(|| Talk::start(here, there))
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn kind(net: &Net, peer: &Net) -> Option<PathKind> {
    net.peers().iter().find(|p| p.node == peer.node_id()).map(|p| p.kind)
}

async fn both_are(a: &Net, b: &Net, want: PathKind) {
    let holds = || kind(a, b) == Some(want) && kind(b, a) == Some(want);
    until(&format!("both {want:?}"), holds).await;
}

/// A TCP connection between two payloads, on which a byte goes to and fro all the time.
struct Talk {
    longest: Arc<Mutex<Stall>>,
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _payloads: [Payload; 2],
}

impl Talk {
    fn start(here: Payload, there: Payload) -> Self {
        here.reaches(&there);
        let listener = there.host.enter(|| TcpListener::bind((v4(1), 0))).unwrap().unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0; 1];
            while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
        });
        let connect = || TcpStream::connect_timeout(&addr, LIMIT);
        let mut stream = here.host.enter(connect).unwrap().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let longest = Arc::<Mutex<Stall>>::default();
        let rounds = Arc::<AtomicU64>::default();
        let stop = Arc::<AtomicBool>::default();
        let (book, count, ended) = (Arc::clone(&longest), Arc::clone(&rounds), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let metronome = Metronome::start();
            while !ended.load(Ordering::SeqCst) {
                let (since, beat) = (Instant::now(), metronome.beats.load(Ordering::SeqCst));
                stream.write_all(b"x").expect("the connection lives");
                stream.read_exact(&mut [0; 1]).expect("the connection lives");
                let beats = BEAT * (metronome.beats.load(Ordering::SeqCst) - beat);
                let clock = since.elapsed();
                let mut book = book.lock();
                book.clock = book.clock.max(clock);
                book.beats = book.beats.max(beats);
                drop(book);
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self { longest, rounds, stop, thread: Some(thread), _payloads: [here, there] }
    }

    /// The longest round while `event` and what follows from it happened.
    async fn stall(&self, event: impl FnOnce()) -> Stall {
        self.some_rounds().await;
        *self.longest.lock() = Stall::default();
        tokio::task::block_in_place(event);
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.some_rounds().await;
        *self.longest.lock()
    }

    async fn some_rounds(&self) {
        let before = self.rounds.load(Ordering::SeqCst);
        until("the connection goes on", || self.rounds.load(Ordering::SeqCst) > before + 20).await;
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().expect("the connection lived");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_gets_another_address_keeps_its_connections() {
    let world = World::new();
    let (host, other) = (world.host("198.51.100.21/24"), world.host("198.51.100.22/24"));
    let (a, b) = (world.node(&host), world.node(&other));
    let talk = world.talk(&a, &b).await;
    both_are(&a, &b, PathKind::Direct).await;
    let mut stalls = Vec::new();
    for (old, new) in [("21", "31"), ("31", "41"), ("41", "51")] {
        let address = |n: &str| format!("198.51.100.{n}/24");
        let stall = talk
            .stall(|| {
                host.ip(["addr", "del", &address(old), "dev", "eth0"]).unwrap();
                host.ip(["addr", "add", &address(new), "dev", "eth0"]).unwrap();
            })
            .await;
        stall.is_within(TOLD);
        stalls.push(stall.clock.as_millis());
        let now: IpAddr = format!("198.51.100.{new}").parse().unwrap();
        let there = || {
            b.peers().iter().any(|p| p.node == a.node_id() && p.remote.map(|r| r.ip()) == Some(now))
        };
        until("the peer uses the new address", there).await;
    }
    both_are(&a, &b, PathKind::Direct).await;
    stalls.sort_unstable();
    figure(
        "roaming-told",
        &format!("- another address, reported by the kernel: stall of {} ms (median)", stalls[1]),
    );
}

/// Shows a figure, and puts it into the page if that is wanted.
fn figure(name: &str, text: &str) {
    println!("{text}");
    if figures::wanted() {
        figures::write("paths.md", name, text).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nat_that_gets_another_address_breaks_no_connection() {
    let world = World::new();
    let router = world
        .lab
        .nat(Nat::PortRestricted, &world.wan, "198.51.100.21/24", "192.168.1.1/24")
        .unwrap();
    let host = world.lab.host("home").unwrap();
    host.join(&router.lan, &["192.168.1.2/24"]).unwrap();
    host.default_route("192.168.1.1").unwrap();
    let other = world.host("198.51.100.22/24");
    let (a, b) = (world.node(&host), world.node(&other));
    let talk = world.talk(&a, &b).await;
    both_are(&a, &b, PathKind::Direct).await;
    let stall = talk
        .stall(|| {
            // The node is not told.
            router.host.ip(["addr", "del", "198.51.100.21/24", "dev", "eth0"]).unwrap();
            router.host.ip(["addr", "add", "198.51.100.31/24", "dev", "eth0"]).unwrap();
        })
        .await;
    stall.is_within(UNTOLD);
    both_are(&a, &b, PathKind::Direct).await;
    let text = "- the NAT gets another address, of which the node is not told: stall of";
    figure("roaming-untold", &format!("{text} {} ms", stall.clock.as_millis()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relayed_pair_goes_direct_when_that_becomes_possible() {
    let world = World::new();
    let (host, other) = (world.host("198.51.100.21/24"), world.host("198.51.100.22/24"));
    let wall = "table ip wall {
                  chain in {
                    type filter hook input priority 0
                    ip saddr 198.51.100.22 udp dport 7464 drop
                  }
                }";
    host.run("nft", [wall]).unwrap();
    let (a, b) = (world.node(&host), world.node(&other));
    let talk = world.talk(&a, &b).await;
    both_are(&a, &b, PathKind::Relay).await;
    // So long that probes have become rare.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let since = Instant::now();
    let stall = talk.stall(|| drop(host.run("nft", ["delete table ip wall"]).unwrap())).await;
    both_are(&a, &b, PathKind::Direct).await;
    let after = since.elapsed();
    let text = "- a relayed pair for which the direct way opens after 6 s: direct after";
    // Nothing is given up for the direct way before that answers.
    stall.is_within(TOLD);
    let (after_ms, stall) = (after.as_millis(), stall.clock.as_millis());
    figure("direct-again", &format!("{text} {after_ms} ms, stall of {stall} ms"));
    assert!(after < Duration::from_secs(30));
}
