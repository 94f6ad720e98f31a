//! Clients that say anything but what they should: they are turned away, and others notice nothing.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use gvpn_identity::{
    Identity,
    tls::{self, TransportKey},
};
use gvpn_net::{
    Net, NetConfig, NodeRecord, SignedRecord,
    relay_protocol::{self, ToRelay},
    relay_stream,
};
use gvpn_relay::{Relay, RelayConfig};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const LIMIT: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(10);

async fn relay() -> Relay {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = RelayConfig::new(Identity::generate(), vec![any]);
    config.listen_stream = vec![any.into()];
    config.workers = 1;
    Relay::start(config).await.unwrap()
}

async fn node(relay: &Relay) -> Net {
    let mut config = NetConfig::new(Identity::generate());
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.workers = 1;
    config.relays = relay.local_addrs();
    Net::bind(config).await.unwrap()
}

/// The relay still serves: two new nodes find each other.
async fn serves(relay: &Relay) {
    let (a, b) = (node(relay).await, node(relay).await);
    let mut incoming = b.serve("hello");
    let end = Instant::now() + LIMIT;
    while a.open(b.node_id(), "hello").await.is_err() {
        assert!(Instant::now() < end, "the relay no longer serves: {:?}", relay.stats());
    }
    assert_eq!(incoming.recv().await.unwrap().peer, a.node_id());
}

async fn tls(relay: &Relay, identity: &Identity) -> TlsStream<TcpStream> {
    let mut config = tls::client_config(&TransportKey::generate(identity).unwrap()).unwrap();
    config.alpn_protocols = vec![relay_stream::ALPN.to_vec()];
    let name = tls::server_name(Some(relay.node_id())).try_into().unwrap();
    let stream = TcpStream::connect(relay.stream_addrs()[0]).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_on_services_ends_the_stream_and_no_more() {
    let relay = relay().await;
    let rogue = node(&relay).await;
    let mut random = StdRng::seed_from_u64(5);
    for service in [relay_protocol::SERVICE, gvpn_market::OFFERS] {
        for round in 0..40 {
            let mut bytes = vec![0; random.random_range(1..300)];
            random.fill_bytes(&mut bytes);
            if round % 2 == 0 {
                // A frame of the right length with rubbish in it; or one that is far too long.
                let length = if round % 4 == 0 { bytes.len() as u32 } else { u32::MAX >> 4 };
                bytes.splice(0..0, length.to_be_bytes());
            }
            let mut stream = rogue.open(relay.node_id(), service).await.unwrap();
            // The relay may be faster in ending it.
            let _ = stream.write_all(&bytes).await;
            let _ = stream.finish();
            let mut answer = Vec::new();
            let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end");
            assert!(answer.len() < 4096, "{}", answer.len());
        }
    }
    serves(&relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_on_a_tls_stream_ends_it_and_no_more() {
    let relay = relay().await;
    let mut random = StdRng::seed_from_u64(6);
    // Before the handshake: the connection is closed, or waits for more until its time is over.
    for size in [1, 5, 100, 5000] {
        let mut stream = TcpStream::connect(relay.stream_addrs()[0]).await.unwrap();
        let mut bytes = vec![0; size];
        random.fill_bytes(&mut bytes);
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("an end");
    }
    // After it: a frame that is too long ends the stream.
    let mut stream = tls(&relay, &Identity::generate()).await;
    stream.write_all(&[0xff; 4]).await.unwrap();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("an end");
    // Datagrams of all kinds in good frames go where those on UDP go.
    let mut stream = tls(&relay, &Identity::generate()).await;
    for _ in 0..500 {
        let mut bytes = vec![0; random.random_range(1..1500)];
        random.fill_bytes(&mut bytes);
        bytes[0] = *[5, 6, 4, 0x40, 0xc0, bytes[0]].get(bytes.len() % 6).unwrap();
        stream.write_all(&(bytes.len() as u16).to_be_bytes()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    }
    stream.flush().await.unwrap();
    let counted = |relay: &Relay| relay.stats().drops.iter().map(|(_, n)| n).sum::<u64>();
    let end = Instant::now() + LIMIT;
    while counted(&relay) < 100 {
        assert!(Instant::now() < end, "{:?}", relay.stats());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    serves(&relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_few_streams_and_the_newest_stay() {
    let relay = relay().await;
    let identity = Identity::generate();
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(tls(&relay, &identity).await);
        let end = Instant::now() + LIMIT;
        // One after the other, so that it is known which is the newest.
        while relay.stats().streams < streams.len().min(2) {
            assert!(Instant::now() < end, "{:?}", relay.stats());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let newest = streams.split_off(3);
    for mut old in streams {
        let _ = timeout(PATIENCE, old.read_to_end(&mut Vec::new())).await.expect("it ends");
    }
    assert_eq!(relay.stats().streams, 2);
    drop(newest);
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_by_udp_is_counted_and_no_more() {
    let relay = relay().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..3000 {
        let mut bytes = vec![0; random.random_range(1..1500)];
        random.fill_bytes(&mut bytes);
        bytes[0] = *[5, 6, 4, 0x40, 0xc3, bytes[0]].get(bytes.len() % 6).unwrap();
        if bytes.len() > 4 && bytes.len() % 3 == 0 {
            bytes[1..4].fill(0);
        }
        let _ = socket.send_to(&bytes, relay.local_addrs()[0]).await;
    }
    let stats = relay.stats();
    assert_eq!(stats.forwarded_packets, 0, "{stats:?}");
    serves(&relay).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_knocks_at_nobody_but_its_client() {
    let relay = relay().await;
    let identity = Identity::generate();
    let mut config = NetConfig::new(identity.clone());
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.workers = 1;
    let rogue = Net::bind(config).await.unwrap();
    rogue.add_peer_addrs(relay.node_id(), relay.local_addrs());
    let stream = rogue.open(relay.node_id(), relay_protocol::SERVICE).await.unwrap();
    let (mut writer, _reader) = stream.split();
    let record = NodeRecord { node: rogue.node_id(), sequence: 1, addrs: vec![], relays: vec![] };
    let record = SignedRecord::sign(&identity, &record);
    relay_protocol::send(&mut writer, &ToRelay::Register { record }).await.unwrap();
    let own = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let other = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    for (number, socket) in [(1, &other), (2, &own)] {
        let at = socket.local_addr().unwrap();
        relay_protocol::send(&mut writer, &ToRelay::Knock { number, at }).await.unwrap();
    }
    // Requests are done in their order: when the second has come, the first would have.
    let mut heard = [0; 64];
    let size = timeout(PATIENCE, own.recv(&mut heard)).await.expect("a knock").unwrap();
    assert_eq!(heard[..size], [6, 3, 0, 0, 2, 0, 0, 0]);
    assert!(other.try_recv(&mut heard).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_where_it_is_seen_gets_no_more_than_it_sends() {
    let relay = relay().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let question = gvpn_dataplane::mirror::question(7);
    let (mut sent, mut got) = (0, 0);
    let mut answer = [0; 2048];
    for size in (1..question.len()).chain([question.len(); 3]) {
        sent += socket.send_to(&question[..size], relay.local_addrs()[0]).await.unwrap();
    }
    for _ in 0..3 {
        let size = timeout(PATIENCE, socket.recv(&mut answer)).await.expect("an answer").unwrap();
        let told = gvpn_dataplane::mirror::read_answer(&answer[..size]);
        assert_eq!(told, Some((7, socket.local_addr().unwrap())));
        got += size;
    }
    // The short ones came before: what they caused would be here.
    assert!(socket.try_recv(&mut answer).is_err() && got <= sent);
}
