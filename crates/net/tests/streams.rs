//! Streams between nodes on loopback.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use gvpn_identity::Identity;
use gvpn_net::{Net, NetConfig, NetError, NodeId, PathKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::Wire;

mod wire;

async fn node() -> Net {
    node_with(Identity::generate()).await
}

async fn node_with(identity: Identity) -> Net {
    let mut config = NetConfig::new(identity);
    config.listen = vec![([127, 0, 0, 1], 0).into()];
    config.workers = 1;
    Net::bind(config).await.unwrap()
}

fn introduce(a: &Net, b: &Net) {
    a.add_peer_addrs(b.node_id(), b.local_addrs());
}

/// Echoes what it reads until the other end has finished.
fn serve_echo(net: &Net) {
    let mut incoming = net.serve("echo");
    tokio::spawn(async move {
        while let Some(call) = incoming.recv().await {
            tokio::spawn(async move {
                assert_eq!(call.peer, call.stream.peer());
                let (mut writer, mut reader) = call.stream.split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
                let _ = writer.finish();
            });
        }
    });
}

async fn echo(net: &Net, node: NodeId, bytes: &[u8]) -> Result<(), NetError> {
    let stream = net.open(node, "echo").await?;
    let (mut writer, mut reader) = stream.split();
    let sent = bytes.to_vec();
    let sender = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.finish().unwrap();
    });
    let mut back = Vec::new();
    reader.read_to_end(&mut back).await.unwrap();
    sender.await.unwrap();
    assert!(back == bytes, "{} of {} bytes came back", back.len(), bytes.len());
    Ok(())
}

/// QUIC retires the ids that a handshake began with; packets that name them may come late.
#[tokio::test(flavor = "multi_thread")]
async fn late_copies_of_a_handshake_harm_no_connection() {
    let (a, b) = (node().await, node().await);
    let wire = Wire::to(b.local_addrs()[0]).await;
    a.add_peer_addrs(b.node_id(), vec![wire.addr]);
    serve_echo(&b);
    let stream = a.open(b.node_id(), "echo").await.unwrap();
    let (mut writer, mut reader) = stream.split();
    for round in 0..20u8 {
        writer.write_all(&[round]).await.unwrap();
        assert_eq!(reader.read_u8().await.unwrap(), round);
        assert!(wire.repeat_handshakes().await > 2);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_waited_for_until_who_holds_it_ends() {
    let held = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bind = |addr| {
        let mut config = NetConfig::new(Identity::generate());
        config.listen = vec![addr];
        Net::bind(config)
    };
    let addr = held.local_addr().unwrap();
    let refused = bind(addr).await.unwrap_err().to_string();
    assert!(refused.contains(&format!("cannot listen on UDP {addr}")), "{refused}");
    let (net, ()) = tokio::join!(bind(addr), async {
        // It has been tried once, as this comes second.
        drop(held);
    });
    assert_eq!(net.unwrap().local_addrs(), [addr]);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_carry_bytes_messages_and_half_close() {
    let (a, b) = (node().await, node().await);
    introduce(&a, &b);
    serve_echo(&b);
    echo(&a, b.node_id(), b"hello").await.unwrap();
    let large: Vec<u8> = (0..20_000_000u32).map(|i| (i >> 3) as u8).collect();
    echo(&a, b.node_id(), &large).await.unwrap();

    let mut incoming = b.serve("sum");
    tokio::spawn(async move {
        let mut call = incoming.recv().await.unwrap();
        while let Some(numbers) = call.stream.recv_msg::<Vec<u64>>().await.unwrap() {
            call.stream.send_msg(&numbers.iter().sum::<u64>()).await.unwrap();
        }
        call.stream.send_msg(&"done").await.unwrap();
    });
    let mut stream = a.open(b.node_id(), "sum").await.unwrap();
    stream.send_msg(&[1, 2, 3]).await.unwrap();
    assert_eq!(stream.recv_msg::<u64>().await.unwrap(), Some(6));
    stream.finish().unwrap();
    assert_eq!(stream.recv_msg::<String>().await.unwrap(), Some("done".into()));
    assert_eq!(stream.recv_msg::<u64>().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_called_node_can_call_back_without_any_address() {
    let (a, b) = (node().await, node().await);
    introduce(&a, &b);
    serve_echo(&a);
    serve_echo(&b);
    echo(&a, b.node_id(), b"there").await.unwrap();
    echo(&b, a.node_id(), b"and back").await.unwrap();
    let report = b.ping(a.node_id()).await.unwrap();
    assert_eq!(report.kind, PathKind::Direct);
    assert_eq!(report.remote, Some(a.local_addrs()[0]));
    assert!(report.rtt < Duration::from_secs(1), "{report:?}");
    let peers = a.peers();
    assert_eq!(peers.len(), 1);
    assert!(peers[0].connected && peers[0].sent_bytes > 0 && peers[0].received_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_may_call_each_other_at_once() {
    let (a, b) = (node().await, node().await);
    introduce(&a, &b);
    introduce(&b, &a);
    serve_echo(&a);
    serve_echo(&b);
    let (there, back) =
        tokio::join!(echo(&a, b.node_id(), b"there"), echo(&b, a.node_id(), b"back"));
    there.unwrap();
    back.unwrap();
    for _ in 0..20 {
        echo(&a, b.node_id(), b"again").await.unwrap();
        echo(&b, a.node_id(), b"again").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impostor_at_the_right_address_is_refused() {
    let (a, mallory) = (node().await, node().await);
    serve_echo(&mallory);
    let wanted = Identity::generate().node_id();
    a.add_peer_addrs(wanted, mallory.local_addrs());
    let error = a.open(wanted, "echo").await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, NetError::Unreachable { .. }), "{text}");
    assert!(text.contains(&mallory.node_id().to_string()), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_what_is_wrong() {
    let (a, b) = (node().await, node().await);
    introduce(&a, &b);
    let error = a.open(b.node_id(), "nothing").await.unwrap_err();
    assert!(matches!(&error, NetError::Refused { service, .. } if service == "nothing"), "{error}");

    let nobody = Identity::generate().node_id();
    let error = a.open(nobody, "echo").await.unwrap_err();
    assert!(matches!(error, NetError::UnknownNode { .. }), "{error}");
    assert!(error.to_string().contains("no relay is configured"), "{error}");

    // A service that nobody takes streams from any more.
    drop(b.serve("echo"));
    let error = a.open(b.node_id(), "echo").await.unwrap_err();
    assert!(matches!(error, NetError::Refused { .. }), "{error}");

    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    a.add_peer_addrs(nobody, vec![silent.local_addr().unwrap()]);
    let start = Instant::now();
    let error = a.open(nobody, "echo").await.unwrap_err();
    assert!(matches!(error, NetError::Unreachable { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_and_malformed_messages_are_refused_and_cost_nothing() {
    let (a, b) = (node().await, node().await);
    introduce(&a, &b);
    let mut incoming = b.serve("typed");
    let mut to = a.open(b.node_id(), "typed").await.unwrap();
    let mut from = incoming.recv().await.unwrap().stream;
    to.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let error = from.recv_msg::<u64>().await.unwrap_err();
    assert!(matches!(error, NetError::Message { .. }), "{error}");

    let mut to = a.open(b.node_id(), "typed").await.unwrap();
    let mut from = incoming.recv().await.unwrap().stream;
    to.send_frame(b"{").await.unwrap();
    let error = from.recv_msg::<u64>().await.unwrap_err();
    assert!(matches!(error, NetError::Message { .. }), "{error}");
    let huge = vec![0; gvpn_net::MAX_MESSAGE + 1];
    assert!(matches!(to.send_frame(&huge).await, Err(NetError::Message { .. })));

    let mut to = a.open(b.node_id(), "typed").await.unwrap();
    let mut from = incoming.recv().await.unwrap().stream;
    to.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
    to.finish().unwrap();
    let error = from.recv_msg::<u64>().await.unwrap_err();
    assert!(matches!(error, NetError::Closed { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_is_reached_again_within_two_seconds() {
    let a = node().await;
    let identity = Identity::generate();
    let b = node_with(identity.clone()).await;
    let addr = b.local_addrs()[0];
    let wire = Wire::to(addr).await;
    a.add_peer_addrs(b.node_id(), vec![wire.addr]);
    serve_echo(&b);
    echo(&a, b.node_id(), b"before").await.unwrap();
    // The node vanishes without a word: its goodbye is lost.
    wire.cut();
    let node = b.node_id();
    drop(b);
    let mut config = NetConfig::new(identity);
    config.listen = vec![addr];
    let b = loop {
        match Net::bind(config.clone()).await {
            Ok(net) => break net,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    serve_echo(&b);
    assert_eq!(b.node_id(), node);
    wire.mend();
    let start = Instant::now();
    echo(&a, node, b"after").await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_peer_is_noticed_on_a_stream_that_is_kept_alive() {
    let a = node().await;
    // The other node lives in a runtime of its own, which comes to a stop: no way leads to it then.
    let others = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (b, mut incoming) = others
        .spawn(async {
            let b = node().await;
            let incoming = b.serve("control");
            (b, incoming)
        })
        .await
        .unwrap();
    introduce(&a, &b);
    let mut stream = a.open(b.node_id(), "control").await.unwrap();
    let _at_b = incoming.recv().await.unwrap();
    stream.keep_alive();
    others.shutdown_background();
    let start = Instant::now();
    let result = tokio::time::timeout(Duration::from_secs(30), stream.recv_msg::<u64>()).await;
    let error = result.expect("the end is noticed").unwrap_err();
    assert!(matches!(error, NetError::Closed { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_goodbye_ends_streams_at_once() {
    let (a, b) = (node().await, node().await);
    introduce(&a, &b);
    let mut incoming = b.serve("control");
    let mut stream = a.open(b.node_id(), "control").await.unwrap();
    let _at_b = incoming.recv().await.unwrap();
    b.shutdown().await;
    let result = tokio::time::timeout(Duration::from_secs(5), stream.recv_msg::<u64>()).await;
    assert!(result.expect("the goodbye arrives").is_err());
}

/// A node that serves `echo` in a runtime of its own, which comes to a stop without a word: no way
/// leads to the node then.
async fn mortal(identity: &Identity) -> (tokio::runtime::Runtime, Net) {
    let others = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let identity = identity.clone();
    let made = others.spawn(async {
        let net = node_with(identity).await;
        serve_echo(&net);
        net
    });
    let net = made.await.unwrap();
    (others, net)
}

async fn die(others: tokio::runtime::Runtime) {
    let stop = move || others.shutdown_timeout(Duration::from_secs(30));
    tokio::task::spawn_blocking(stop).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_died_without_a_word_is_given_up_within_seconds() {
    let (a, identity) = (node().await, Identity::generate());
    let (others, b) = mortal(&identity).await;
    introduce(&a, &b);
    echo(&a, b.node_id(), b"before").await.unwrap();
    die(others).await;
    // On the old connection, and without one.
    for _ in 0..2 {
        let start = Instant::now();
        let error = a.open(b.node_id(), "echo").await.unwrap_err();
        assert!(matches!(error, NetError::Unreachable { .. }), "{error}");
        assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    }
    let (others, b) = mortal(&identity).await;
    introduce(&a, &b);
    echo(&a, b.node_id(), b"after").await.unwrap();
    die(others).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_is_back_within_seconds_is_waited_for() {
    let (a, identity) = (node().await, Identity::generate());
    let (others, b) = mortal(&identity).await;
    introduce(&a, &b);
    echo(&a, b.node_id(), b"before").await.unwrap();
    die(others).await;
    let back = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (others, b) = mortal(&identity).await;
        introduce(&a, &b);
        (others, b)
    };
    let (opened, (others, _b)) = tokio::join!(echo(&a, b.node_id(), b"after"), back);
    opened.unwrap();
    die(others).await;
}
