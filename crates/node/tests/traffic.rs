//! What pairs of nodes cost each other when they talk and when they do not, and multicast to many:
//! real nodes in one process, with sockets for vNICs.
//!
//! With `GVPN_FIGURES=1` the figures are written into `docs/networks.md`.

mod world;

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use gvpn_dataplane::{Nic, PortSpec};
use gvpn_lab::{figures, heap};
use gvpn_model::NetworkId;
use gvpn_node::Node;
use gvpn_roster::{MemberEdit, Policy, SettingsEdit};
use tokio::net::UnixDatagram;
use world::{PATIENCE, World};

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

/// Threads and memory of the whole process are counted: one test at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How long a pair that has just stopped talking is looked at.
const TAIL: Duration = Duration::from_secs(12);

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 1, 1);

/// A payload: the other end of a member's vNIC, whose frames with UDP are counted.
#[derive(Clone)]
struct Payload {
    ip: Ipv4Addr,
    socket: Arc<UnixDatagram>,
    heard: Arc<AtomicU64>,
}

impl Payload {
    /// Gives the first member of `node` a vNIC.
    fn plug(node: &Node, network: NetworkId) -> Self {
        let roster = node.networks().in_force(network).unwrap();
        let member = roster.members_of(node.id()).next().unwrap();
        let IpAddr::V4(ip) = member.ips[0] else { panic!("an IPv4 address") };
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        let nic = Nic::Dgram(theirs.into_std().unwrap().into());
        node.net().dataplane().attach(PortSpec { network, member: member.id, nic }).unwrap();
        let this = Self { ip, socket: Arc::new(ours), heard: Arc::default() };
        let (socket, heard) = (this.socket.clone(), this.heard.clone());
        tokio::spawn(async move {
            let mut frame = [0; 2000];
            while let Ok(length) = socket.recv(&mut frame).await {
                if length > 34 && frame[12..14] == [8, 0] && frame[23] == 17 {
                    heard.fetch_add(1, Relaxed);
                }
            }
        });
        this
    }

    fn heard(&self) -> u64 {
        self.heard.load(Relaxed)
    }

    async fn send(&self, to: Ipv4Addr) {
        let mut message = vec![0x10, 0, 0x10, 0, 0, 208, 0, 0];
        message.resize(208, 7);
        self.socket.send(&self.frame(to, 17, &[], &message)).await.unwrap();
    }

    /// Joins the group (IGMPv2, RFC 2236).
    async fn join(&self) {
        let mut report = vec![0x16, 0, 0, 0];
        report.extend(GROUP.octets());
        let sum = checksum(&report);
        report[2..4].copy_from_slice(&sum);
        self.socket.send(&self.frame(GROUP, 2, &[0x94, 4, 0, 0], &report)).await.unwrap();
    }

    fn frame(&self, to: Ipv4Addr, protocol: u8, options: &[u8], message: &[u8]) -> Vec<u8> {
        let [_, b, c, d] = to.octets();
        let mut frame = match to.is_multicast() {
            true => vec![1, 0, 0x5e, b & 0x7f, c, d],
            false => vec![2, 0x67, 0x76, 0x70, 0x6e, 1],
        };
        frame.extend([2, 0, 0, 0, 0, 9, 8, 0]);
        let header = 20 + options.len();
        let total = (header + message.len()) as u16;
        let mut ip = vec![0x40 | (header / 4) as u8, 0];
        ip.extend(total.to_be_bytes());
        ip.extend([0, 0, 0, 0, 4, protocol, 0, 0]);
        ip.extend(self.ip.octets());
        ip.extend(to.octets());
        ip.extend(options);
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum);
        frame.extend(ip);
        frame.extend(message);
        frame
    }
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// All know each other's addresses.
fn introduce(nodes: &[Node]) {
    for a in nodes {
        for b in nodes {
            if a.id() != b.id() {
                a.net().add_peer_addrs(b.id(), b.status().listen);
            }
        }
    }
}

async fn eventually(what: &str, mut step: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !step().await {
        assert!(start.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Bytes that two nodes sent each other so far, and that stay counted when a connection ends.
#[derive(Default)]
struct Meter {
    last: u64,
    sum: u64,
}

impl Meter {
    fn read(&mut self, a: &Node, b: &Node) {
        let between = |a: &Node, b: &Node| {
            let peer = a.peers().into_iter().find(|peer| peer.node == b.id());
            peer.map_or(0, |peer| peer.sent_bytes)
        };
        let now = between(a, b) + between(b, a);
        self.sum += now.saturating_sub(self.last);
        self.last = now;
    }

    /// What was sent until now does not count.
    fn restart(&mut self, a: &Node, b: &Node) {
        self.read(a, b);
        self.sum = 0;
    }

    /// Bits a second.
    fn rate(&self, time: Duration) -> f64 {
        self.sum as f64 * 8.0 / time.as_secs_f64()
    }
}

/// Two payloads talk for a while and stop; until half a second later their last packets are answered.
async fn converse(one: &Payload, two: &Payload) {
    let before = (one.heard(), two.heard());
    eventually("the two talk", async || {
        one.send(two.ip).await;
        two.send(one.ip).await;
        one.heard() > before.0 && two.heard() > before.1
    })
    .await;
    for _ in 0..40 {
        one.send(two.ip).await;
        two.send(one.ip).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_costs_next_to_nothing() {
    let _alone = ALONE.lock().await;
    let world = World::new(3).await;
    introduce(&world.others);
    let (id, _) = world.network("10.85.0.0/24", 3).await;
    let [a, b, c] = [0, 1, 2].map(|n| &world.others[n]);
    let [one, two, _three] = [a, b, c].map(|node| Payload::plug(node, id));
    let (mut active, mut owners, mut strangers) =
        (Meter::default(), Meter::default(), Meter::default());
    converse(&one, &two).await;
    active.restart(a, b);
    owners.restart(&world.owner, c);
    let start = Instant::now();
    while start.elapsed() < TAIL {
        tokio::time::sleep(Duration::from_millis(100)).await;
        active.read(a, b);
        owners.read(&world.owner, c);
        strangers.read(b, c);
    }
    let tail = active.rate(start.elapsed());
    assert!(tail <= 1000.0, "{tail} bit/s after the last packet");
    let time = Duration::from_secs(if figures::wanted() { 180 } else { 8 });
    active.restart(a, b);
    let start = Instant::now();
    while start.elapsed() < time {
        tokio::time::sleep(Duration::from_millis(100)).await;
        active.read(a, b);
        owners.read(&world.owner, c);
        strangers.read(b, c);
    }
    let (late, owner) = (active.rate(time), owners.rate(TAIL + time));
    assert_eq!(strangers.sum, 0, "they have nothing to say to each other");
    assert!(late <= 1000.0, "{late} bit/s");
    assert!(owner <= 1000.0, "{owner} bit/s");
    let table = format!(
        "| pair | over | both ways |\n|---|---|---|\n\
         | two members' nodes whose payloads never talked | {0} s | {1} bit/s |\n\
         | two members' nodes whose payloads have just stopped talking | {2} s | {tail:.0} bit/s |\n\
         | the same two, from then on | {3} s | {late:.0} bit/s |\n\
         | the owner and a member's node, no change | {0} s | {owner:.0} bit/s |\n",
        (TAIL + time).as_secs(),
        strangers.sum,
        TAIL.as_secs(),
        time.as_secs(),
    );
    println!("{table}");
    if figures::wanted() {
        figures::write("networks.md", "idle", &table).unwrap();
    }
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn multicast_reaches_all_who_joined() {
    let _alone = ALONE.lock().await;
    let sizes: &[usize] = if figures::wanted() { &[10, 100] } else { &[10] };
    let mut table = String::from(
        "| members that listen, each on its own node | packets/s | copies/s | arrived | sender\'s CPU time a copy | memory of an active peer |\n\
         |---|---|---|---|---|---|\n",
    );
    for listeners in sizes {
        table.push_str(&multicast(*listeners).await);
    }
    println!("{table}");
    if figures::wanted() {
        figures::write("networks.md", "multicast", &table).unwrap();
    }
}

/// A row of figures.
async fn multicast(listeners: usize) -> String {
    let before = data_threads();
    // The first of the others sends: its thread is the first after the owner's.
    let world = World::new(listeners + 1).await;
    let mut threads: Vec<_> = data_threads().difference(&before).copied().collect();
    threads.sort_unstable();
    introduce(&world.others);
    let (id, _) = world.network("10.86.0.0/16", listeners as u32 + 1).await;
    let policy = Policy { multicast_packets_per_second: 0, ..Policy::default() };
    let edit = SettingsEdit { policy: Some(policy), ..SettingsEdit::default() };
    world.owner.networks().edit(id, edit).await.unwrap();
    assert!(world.owner.networks().settled(id, PATIENCE).await.unwrap());
    let payloads: Vec<_> = world.others.iter().map(|node| Payload::plug(node, id)).collect();
    let (sender, others) = payloads.split_first().unwrap();
    for other in others {
        other.join().await;
    }
    let heap = heap::in_use();
    eventually("all hear the group", async || {
        sender.send(GROUP).await;
        others.iter().all(|other| other.heard() > 0)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Both ends of every pair are in this process.
    let memory = heap::in_use().saturating_sub(heap) / listeners / 2;
    let heard = || others.iter().map(Payload::heard).sum::<u64>();
    let (was, cpu) = (heard(), cpu_time(threads[1]));
    let (start, mut sent) = (Instant::now(), 0u64);
    let time = Duration::from_secs(if figures::wanted() { 5 } else { 1 });
    while start.elapsed() < time {
        sender.send(GROUP).await;
        sent += 1;
    }
    let took = start.elapsed().as_secs_f64();
    eventually("what was sent arrives", async || {
        let was = heard();
        tokio::time::sleep(Duration::from_millis(500)).await;
        heard() == was
    })
    .await;
    let copies = sent * listeners as u64;
    let arrived = heard() - was;
    let cpu = (cpu_time(threads[1]) - cpu).as_secs_f64() * 1e6 / copies as f64;
    assert!(arrived > 0 && arrived <= copies, "each copy comes once: {arrived} of {copies}");
    // Whoever leaves hears nothing more.
    let gone = MemberEdit { quarantined: Some(true), ..MemberEdit::default() };
    let roster = world.owner.networks().roster(id).unwrap();
    let member = roster.members_of(world.others[1].id()).next().unwrap().id;
    world.owner.networks().edit_member(id, member, gone).await.unwrap();
    assert!(world.owner.networks().settled(id, PATIENCE).await.unwrap());
    let was = [0, 1].map(|n| others[n].heard());
    eventually("the others hear it", async || {
        sender.send(GROUP).await;
        others[1].heard() > was[1]
    })
    .await;
    assert_eq!(others[0].heard(), was[0]);
    world.stop().await;
    let mut row = String::new();
    writeln!(
        row,
        "| {listeners} | {:.0} | {:.0} | {:.0} % | {cpu:.1} \u{b5}s | {} KiB |",
        sent as f64 / took,
        copies as f64 / took,
        arrived as f64 * 100.0 / copies as f64,
        memory / 1024,
    )
    .unwrap();
    row
}

/// The data-path threads of this process.
fn data_threads() -> HashSet<u32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let data = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("gvpn-data"))
    });
    data.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

/// What a thread of this process has used.
fn cpu_time(thread: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}
