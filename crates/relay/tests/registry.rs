//! Nodes that find each other through relays, on loopback.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_net::{Net, NetConfig, NetError};
use gvpn_relay::{Relay, RelayConfig};

async fn relay() -> Relay {
    relay_at(RelayConfig::new(Identity::generate(), vec![([127, 0, 0, 1], 0).into()])).await
}

async fn relay_at(mut config: RelayConfig) -> Relay {
    config.workers = 1;
    // The port of a relay that has just ended may be taken for another moment.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Relay::start(config.clone()).await {
            Ok(relay) => return relay,
            Err(error) if Instant::now() > deadline => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn node(relays: &[SocketAddr]) -> Net {
    node_of(Identity::generate(), relays).await
}

async fn node_of(identity: Identity, relays: &[SocketAddr]) -> Net {
    let mut config = NetConfig::new(identity);
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.workers = 1;
    config.relays = relays.to_vec();
    Net::bind(config).await.unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_by_id_alone() {
    let relay = relay().await;
    let (a, b) = (node(&relay.local_addrs()).await, node(&relay.local_addrs()).await);
    until("both register", || relay.stats().clients == 2).await;
    let mut incoming = b.serve("hello");
    let mut stream = a.open(b.node_id(), "hello").await.unwrap();
    let mut call = incoming.recv().await.unwrap();
    assert_eq!(call.peer, a.node_id());
    stream.send_msg(&42).await.unwrap();
    assert_eq!(call.stream.recv_msg::<u32>().await.unwrap(), Some(42));
    assert_eq!(a.relays(), [(relay.local_addrs()[0], relay.node_id())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_node_is_named_in_the_error() {
    let relay = relay().await;
    let a = node(&relay.local_addrs()).await;
    let nobody = Identity::generate().node_id();
    let error = a.open(nobody, "hello").await.unwrap_err();
    assert!(matches!(error, NetError::UnknownNode { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(&nobody.to_string()) && text.contains("not registered"), "{text}");
    assert!(text.contains(&relay.local_addrs()[0].to_string()), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_relay_is_named_in_the_error() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let relay = silent.local_addr().unwrap();
    let a = node(&[relay]).await;
    let error = a.open(Identity::generate().node_id(), "hello").await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&relay.to_string()) && text.contains("relay"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_relay_knows_its_nodes_and_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = RelayConfig::new(Identity::generate(), vec![([127, 0, 0, 1], 0).into()]);
    config.database = Some(dir.path().join("registry.db"));
    let relay = relay_at(config.clone()).await;
    config.listen = relay.local_addrs();
    let (a, b) = (node(&config.listen).await, node(&config.listen).await);
    until("both register", || relay.stats().clients == 2).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    drop(relay);
    let relay = relay_at(config.clone()).await;
    assert_eq!(relay.stats().records, 2, "records survive");
    until("both come back", || relay.stats().clients == 2).await;
    let mut incoming = b.serve("hello");
    a.open(b.node_id(), "hello").await.unwrap();
    assert!(incoming.recv().await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_of_several_relays_will_do() {
    let (one, two) = (relay().await, relay().await);
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let a = node(&[silent, one.local_addrs()[0], two.local_addrs()[0]]).await;
    let b = node(&[two.local_addrs()[0]]).await;
    until("both register", || one.stats().clients == 1 && two.stats().clients == 2).await;
    let mut incoming = b.serve("hello");
    a.open(b.node_id(), "hello").await.unwrap();
    assert!(incoming.recv().await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_too_much_is_told_so() {
    let mut config = RelayConfig::new(Identity::generate(), vec![([127, 0, 0, 1], 0).into()]);
    config.limits.request_burst = 3.0;
    config.limits.requests_per_second = 0.1;
    let relay = relay_at(config).await;
    let a = node(&relay.local_addrs()).await;
    until("it registers", || relay.stats().clients == 1).await;
    for _ in 0..8 {
        let error = a.open(Identity::generate().node_id(), "hello").await.unwrap_err();
        assert!(matches!(error, NetError::UnknownNode { .. }), "{error}");
    }
    assert!(relay.stats().limited > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_registers_while_it_is_called_is_reached() {
    let relay = relay().await;
    let a = node(&relay.local_addrs()).await;
    until("it registers", || relay.stats().clients == 1).await;
    // Nobody answers where the other one is said to be, and the relay does not know it yet.
    let other = Identity::generate();
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    a.add_peer_addrs(other.node_id(), vec![silent.local_addr().unwrap()]);
    let later = async {
        until("it is looked up in vain", || relay.stats().not_found > 0).await;
        node_of(other.clone(), &relay.local_addrs()).await
    };
    let (called, b) = tokio::join!(a.open(other.node_id(), "hello"), later);
    assert_eq!(b.node_id(), other.node_id());
    let Err(error) = called else { panic!("it serves nothing") };
    assert!(matches!(error, NetError::Refused { .. }), "{error}");
}
