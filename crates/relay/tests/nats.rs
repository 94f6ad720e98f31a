//! Nodes behind real NATs (nftables), with the relay outside.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab, Lan, Nat, Router};
use gvpn_net::{Net, NetConfig, PathKind};
use gvpn_relay::{Relay, RelayConfig};
use tokio::runtime::Handle;

const PORT: u16 = 7464;
const LIMIT: Duration = Duration::from_secs(60);

/// Runs a future where its sockets belong.
fn inside<T: Send>(host: &Host, future: impl Future<Output = T> + Send) -> T {
    let runtime = Handle::current();
    tokio::task::block_in_place(|| host.enter(|| runtime.block_on(future)).unwrap())
}

/// A node behind a NAT of its own: 192.168.`n`.2 behind 198.51.100.`n`.
struct Home {
    net: Net,
    _router: Router,
    _host: Host,
}

impl Home {
    fn new(lab: &Lab, wan: &Lan, n: u8, kind: Nat) -> Self {
        let (outside, gateway) = (format!("198.51.100.{n}/24"), format!("192.168.{n}.1"));
        let router = lab.nat(kind, wan, &outside, &format!("{gateway}/24")).unwrap();
        let host = lab.host("home").unwrap();
        host.join(&router.lan, &[&format!("192.168.{n}.2/24")]).unwrap();
        host.default_route(&gateway).unwrap();
        let mut config = NetConfig::new(Identity::generate());
        config.listen = vec![SocketAddr::new([0, 0, 0, 0].into(), PORT)];
        // The node's tasks run outside its namespace and would see other interfaces.
        config.advertise = Some(vec![SocketAddr::new(IpAddr::from([192, 168, n, 2]), PORT)]);
        config.relays = vec![SocketAddr::new(IpAddr::from([198, 51, 100, 1]), PORT)];
        config.workers = 1;
        Self { net: inside(&host, Net::bind(config)).unwrap(), _router: router, _host: host }
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What became of a call.
#[derive(Debug)]
struct Outcome {
    kind: PathKind,
    first_byte: Duration,
    direct_after: Option<Duration>,
}

/// Two nodes behind such NATs call each other.
async fn meet(kinds: [Nat; 2], want: PathKind) -> Outcome {
    let lab = Lab::new().unwrap();
    let wan = lab.lan().unwrap();
    let relay_host = lab.host("relay").unwrap();
    relay_host.join(&wan, &["198.51.100.1/24"]).unwrap();
    let listen = vec![SocketAddr::new([0, 0, 0, 0].into(), PORT)];
    let mut config = RelayConfig::new(Identity::generate(), listen);
    config.workers = 1;
    let relay = inside(&relay_host, Relay::start(config)).unwrap();
    let homes = [Home::new(&lab, &wan, 11, kinds[0]), Home::new(&lab, &wan, 12, kinds[1])];
    let [a, b] = homes.each_ref().map(|home| &home.net);
    until("both register", || relay.stats().clients == 2).await;
    let mut incoming = b.serve("hello");
    let start = Instant::now();
    let mut stream = a.open(b.node_id(), "hello").await.unwrap();
    let mut call = incoming.recv().await.unwrap();
    stream.send_msg(&1).await.unwrap();
    assert_eq!(call.stream.recv_msg::<u32>().await.unwrap(), Some(1));
    let first_byte = start.elapsed();
    assert!(first_byte < Duration::from_secs(5), "first byte after {first_byte:?}");
    let mut direct_after = None;
    if want == PathKind::Direct {
        let direct = |net: &Net, peer: &Net| {
            let peers = net.peers();
            peers.iter().any(|p| p.node == peer.node_id() && p.kind == PathKind::Direct)
        };
        until("both go direct", || direct(a, b) && direct(b, a)).await;
        direct_after = Some(start.elapsed());
    } else {
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    for (from, to) in [(a, b), (b, a)] {
        let report = from.ping(to.node_id()).await.unwrap();
        assert_eq!(report.kind, want, "{kinds:?}: {report:?}");
        assert_eq!(report.reason.is_empty(), want == PathKind::Direct, "{report:?}");
    }
    Outcome { kind: want, first_byte, direct_after }
}

/// Every pair of NATs. With GVPN_WRITE_DOCS set, the table in docs/paths.md is written anew.
#[tokio::test(flavor = "multi_thread")]
async fn every_pair_of_nats_is_direct_where_it_can_be() {
    let cone = |n: u8| Nat::FullCone([192, 168, n, 2].into());
    let kinds = |n| {
        [
            ("full cone", cone(n)),
            ("port-restricted", Nat::PortRestricted),
            ("symmetric", Nat::Symmetric),
        ]
    };
    let mut rows = String::new();
    for (left, a) in kinds(11) {
        for (right, b) in kinds(12) {
            let hard = |kind| matches!(kind, Nat::Symmetric | Nat::PortRestricted);
            let relayed = hard(a) && hard(b) && (a == Nat::Symmetric || b == Nat::Symmetric);
            let want = if relayed { PathKind::Relay } else { PathKind::Direct };
            let outcome = meet([a, b], want).await;
            let path = if outcome.kind == PathKind::Direct { "direct" } else { "relay" };
            let first = outcome.first_byte.as_millis();
            let after =
                outcome.direct_after.map_or("-".into(), |t| format!("{} ms", t.as_millis()));
            rows += &format!("| {left} | {right} | {path} | {first} ms | {after} |\n");
        }
    }
    if std::env::var_os("GVPN_WRITE_DOCS").is_some() {
        write_table(&rows);
    }
}

fn write_table(rows: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/paths.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- matrix -->\n", "<!-- end of matrix -->");
    let (head, rest) = page.split_once(begin).unwrap();
    let (_, tail) = rest.split_once(end).unwrap();
    let title = "| caller behind | called behind | path | first byte | direct after |\n";
    let table = format!("{head}{begin}{title}|---|---|---|---|---|\n{rows}{end}{tail}");
    std::fs::write(path, table).unwrap();
}
