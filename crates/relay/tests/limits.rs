//! What a relay refuses: to be an amplifier, to forward more than it should, to serve too many.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use gvpn_dataplane::control_message;
use gvpn_identity::Identity;
use gvpn_net::{Net, NetConfig};
use gvpn_relay::{Relay, RelayConfig};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

const LIMIT: Duration = Duration::from_secs(60);

fn config() -> RelayConfig {
    let mut config = RelayConfig::new(Identity::generate(), vec![([127, 0, 0, 1], 0).into()]);
    config.workers = 1;
    config
}

async fn node(relay: SocketAddr) -> Net {
    let mut config = NetConfig::new(Identity::generate());
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.workers = 1;
    config.relays = vec![relay];
    config.stream_port = None;
    Net::bind(config).await.unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket
}

/// What has come in, in bytes.
fn drain(socket: &UdpSocket) -> usize {
    let mut buffer = [0; 65_536];
    std::iter::from_fn(|| socket.recv(&mut buffer).ok()).sum()
}

/// A victim whose address somebody else uses gets no more than that one sends.
#[tokio::test(flavor = "multi_thread")]
async fn no_reply_is_larger_than_an_unauthenticated_request() {
    let relay = Relay::start(config()).await.unwrap();
    let at = relay.local_addrs()[0];
    // A node's first packets, which are valid, reach the relay; no answer reaches the node.
    let (near, far) = (socket(), socket());
    let _caller = node(near.local_addr().unwrap()).await;
    let (mut asked, mut answered, mut datagrams) = (0, 0, 0);
    let mut buffer = [0; 65_536];
    let end = Instant::now() + Duration::from_secs(4);
    tokio::task::block_in_place(|| {
        while Instant::now() < end {
            if let Ok(size) = near.recv(&mut buffer) {
                far.send_to(&buffer[..size], at).unwrap();
                asked += size;
                datagrams += 1;
                // One at a time: whatever is sent for it comes now.
                answered += drain(&far);
                assert!(answered <= asked, "{answered} bytes for {asked}");
            }
        }
    });
    assert!(answered > 1000 && datagrams > 2, "it does answer: {answered} bytes for {asked}");
    // All else that may be sent to it.
    let mut random = StdRng::seed_from_u64(4);
    let mut kinds: Vec<Vec<u8>> = vec![
        vec![5, 0, 0, 0, 1, 2, 3, 4],
        [&[5, 0, 0, 0, 1, 2, 3, 4][..], &[7; 100]].concat(),
        control_message(1, 7).to_vec(),
        vec![0x40; 9],
        vec![0x40; 1300],
    ];
    for _ in 0..200 {
        let mut bytes = vec![0; random.random_range(1..1400)];
        random.fill_bytes(&mut bytes);
        // Long headers of unknown versions, short ones, relayed, anything.
        bytes[0] = *[bytes[0], 0xc0, 0xff, 0x45, 5, 6, 4].get(bytes.len() % 7).unwrap();
        kinds.push(bytes);
    }
    tokio::task::block_in_place(|| {
        for request in kinds {
            let from = socket();
            from.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            from.send_to(&request, at).unwrap();
            let got = drain(&from);
            assert!(got <= request.len(), "{got} bytes for {}: {request:02x?}", request.len());
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_full_says_so() {
    let mut config = config();
    config.limits.clients = 1;
    let relay = Relay::start(config).await.unwrap();
    let at = relay.local_addrs()[0];
    let _first = node(at).await;
    until("the first registers", || relay.stats().clients == 1).await;
    let second = node(at).await;
    let nobody = Identity::generate().node_id();
    let end = Instant::now() + LIMIT;
    loop {
        let text = second.open(nobody, "hello").await.unwrap_err().to_string();
        if text.contains("no room for more clients") {
            break;
        }
        assert!(Instant::now() < end, "{text}");
    }
    assert_eq!(relay.stats().clients, 1);
}

/// Whoever is called by many can still call others.
#[tokio::test(flavor = "multi_thread")]
async fn others_take_no_more_than_half_of_a_clients_sessions() {
    let mut config = config();
    config.limits.sessions_per_client = 2;
    let relay = Relay::start(config).await.unwrap();
    let at = relay.local_addrs()[0];
    let (called, another) = (node(at).await, node(at).await);
    let callers = [node(at).await, node(at).await];
    until("all register", || relay.stats().clients == 4).await;
    let streams = [called.serve("hello"), another.serve("hello")];
    for (count, caller) in callers.iter().enumerate() {
        // On loopback both are direct at last.
        caller.open(called.node_id(), "hello").await.unwrap();
        until("it was looked up", || relay.stats().found > count as u64).await;
    }
    until("the first has a session", || relay.stats().sessions == 1).await;
    called.open(another.node_id(), "hello").await.unwrap();
    until("the one that was called has one too", || relay.stats().sessions == 2).await;
    drop(streams);
}

fn fetch(from: SocketAddr) -> String {
    let mut stream = TcpStream::connect(from).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_are_served() {
    let mut config = config();
    config.metrics = Some(SocketAddr::from(([127, 0, 0, 1], 0)).into());
    let relay = Relay::start(config).await.unwrap();
    let _node = node(relay.local_addrs()[0]).await;
    until("it registers", || relay.stats().clients == 1).await;
    socket().send_to(&[5, 0, 0, 0, 9, 9, 9, 9, 1], relay.local_addrs()[0]).unwrap();
    let dropped = |(reason, _): &(&str, u64)| *reason == "unknown_session";
    until("a drop is counted", || relay.stats().drops.iter().any(dropped)).await;
    let at = relay.metrics_addr().unwrap();
    let page = tokio::task::spawn_blocking(move || fetch(at)).await.unwrap();
    for row in [
        "200 OK",
        "text/plain",
        "gvpn_relay_clients 1\n",
        "gvpn_relay_records 1\n",
        "gvpn_relay_forwarded_bytes_total 0\n",
        "gvpn_relay_drops_total{reason=\"unknown_session\"} 1\n",
    ] {
        assert!(page.contains(row), "{row} is missing in {page}");
    }
}
