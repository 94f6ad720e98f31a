//! What a client and a payload see of the bridge between them.

mod world;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use gvpn_gate::{BridgeOptions, Ended};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};
use world::{Client, World, wait_for};

const LONG: Duration = Duration::from_secs(20);

fn quick() -> BridgeOptions {
    BridgeOptions {
        ping_every: Duration::from_millis(100),
        silence_limit: Duration::from_millis(600),
        absence_limit: Duration::from_secs(60),
        stall_limit: Duration::from_secs(60),
        linger: Duration::from_millis(500),
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// Collects data until the Close frame; returns both.
async fn to_the_close(client: &mut Client) -> (Vec<u8>, Option<CloseCode>) {
    let mut data = Vec::new();
    loop {
        match timeout(LONG, client.next()).await.unwrap().unwrap().unwrap() {
            Message::Binary(bytes) => data.extend_from_slice(&bytes),
            Message::Close(frame) => return (data, frame.map(|f| f.code)),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn to_the_end(payload: &mut TcpStream) -> Vec<u8> {
    let mut data = Vec::new();
    timeout(LONG, payload.read_to_end(&mut data)).await.unwrap().unwrap();
    data
}

#[tokio::test]
async fn text_and_binary_arrive_as_bytes_and_answers_are_binary() {
    let world = World::new(BridgeOptions::default()).await;
    let (mut client, mut payload) = world.connect().await;
    client.send(Message::text("")).await.unwrap();
    client.send(Message::text("hello ")).await.unwrap();
    client.send(Message::binary(&b"world"[..])).await.unwrap();
    let mut got = [0; 11];
    payload.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"hello world");
    payload.write_all(b"yes").await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(&b"yes"[..]));

    let rows = world.gateway.connections();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].remote, payload.local_addr().unwrap());
    assert_eq!(rows[0].local, payload.peer_addr().unwrap());
}

#[tokio::test]
async fn all_data_arrives_before_the_close_that_tells_of_the_payloads_fin() {
    let mut world = World::new(BridgeOptions::default()).await;
    let (mut client, mut payload) = world.connect().await;
    let sent = pattern(24 << 20);
    let expected = sent.clone();
    let sender = tokio::spawn(async move {
        payload.write_all(&sent).await.unwrap();
        payload.shutdown().await.unwrap();
        to_the_end(&mut payload).await
    });
    // A client that starts late and still has something to say.
    tokio::time::sleep(Duration::from_millis(200)).await;
    client.send(Message::binary(&b"late word"[..])).await.unwrap();
    let (got, code) = to_the_close(&mut client).await;
    assert!(got == expected, "{} bytes of {}", got.len(), expected.len());
    assert_eq!(code, Some(CloseCode::Normal));
    assert!(client.next().await.is_none());
    assert_eq!(sender.await.unwrap(), b"late word");
    assert_eq!(world.ended.recv().await, Some(Ended::Closed));
    world.empty().await;
}

#[tokio::test]
async fn the_clients_close_ends_the_tcp_connection_after_its_data() {
    let mut world = World::new(quick()).await;
    let (mut client, mut payload) = world.connect().await;
    let sent = pattern(3 << 20);
    // The payload talks too, and nobody reads it: that must not become a reset.
    payload.write_all(b"unread").await.unwrap();
    for piece in sent.chunks(10_000) {
        client.send(Message::binary(piece.to_vec())).await.unwrap();
    }
    let reader = tokio::spawn(async move { (to_the_end(&mut payload).await, payload) });
    client.close(None).await.unwrap();
    while let Some(Ok(_)) = client.next().await {}
    let (got, _payload) = reader.await.unwrap();
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    assert_eq!(world.ended.recv().await, Some(Ended::Closed));
    world.empty().await;
}

#[tokio::test]
async fn each_direction_ends_by_itself_in_the_half_close_protocol() {
    let mut world = World::new(BridgeOptions::default()).await;
    // The client ends first, as `nc -N` does.
    let (mut client, mut payload) = world.connect_half_close().await;
    client.send(Message::binary(&b"question"[..])).await.unwrap();
    client.send(Message::text("")).await.unwrap();
    assert_eq!(to_the_end(&mut payload).await, b"question");
    payload.write_all(b"answer").await.unwrap();
    drop(payload);
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(&b"answer"[..]));
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text(""));
    assert_eq!(to_the_close(&mut client).await, (vec![], Some(CloseCode::Normal)));
    assert!(client.next().await.is_none());
    assert_eq!(world.ended.recv().await, Some(Ended::Closed));

    // The payload ends first.
    let (mut client, mut payload) = world.connect_half_close().await;
    payload.write_all(b"banner").await.unwrap();
    payload.shutdown().await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::binary(&b"banner"[..]));
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text(""));
    client.send(Message::binary(pattern(100_000))).await.unwrap();
    client.send(Message::text("")).await.unwrap();
    assert_eq!(to_the_end(&mut payload).await, pattern(100_000));
    assert_eq!(to_the_close(&mut client).await.1, Some(CloseCode::Normal));
    world.empty().await;
}

#[tokio::test]
async fn a_failure_to_connect_is_an_http_status() {
    let world = World::new(BridgeOptions::default()).await;
    // A port that is taken, and where nobody listens.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (status, body) = world.refusal(held.local_addr().unwrap()).await;
    assert_eq!(status, 502);
    assert!(body.contains("refused") && body.contains("0.0.0.0"), "{body}");
    for (nowhere, says) in [("10.0.0.9:1", "no member"), ("10.0.0.9:2", "within 2 s")] {
        let (status, body) = world.refusal(nowhere.parse().unwrap()).await;
        assert_eq!(status, 504, "{body}");
        assert!(body.contains(says) && body.contains(nowhere), "{body}");
    }
    world.empty().await;
}

#[tokio::test]
async fn a_payload_that_does_not_read_stops_the_client() {
    let world = World::new(BridgeOptions::default()).await;
    let (mut client, mut payload) = world.connect().await;
    let piece = pattern(64 << 10);
    let mut sent = 0;
    while timeout(Duration::from_millis(500), client.send(Message::binary(piece.clone())))
        .await
        .is_ok()
    {
        sent += piece.len();
        assert!(sent < 64 << 20, "nothing holds the client back");
    }
    // What was taken arrives once the payload reads. (The last message is half-sent.)
    let mut got = vec![0; sent];
    timeout(LONG, payload.read_exact(&mut got)).await.unwrap().unwrap();
    assert!(got.chunks(piece.len()).all(|c| c == piece));
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_payload() {
    let world = World::new(quick()).await;
    let (mut client, mut payload) = world.connect().await;
    let piece = pattern(64 << 10);
    let mut sent = 0;
    while let Ok(n) = timeout(Duration::from_millis(1500), payload.write(&piece)).await {
        sent += n.unwrap();
        assert!(sent < 64 << 20, "nothing holds the payload back");
    }
    // The client was silent for longer than the limit: slow, not gone.
    payload.shutdown().await.unwrap();
    let (got, _) = to_the_close(&mut client).await;
    assert_eq!(got.len(), sent);
}

#[tokio::test]
async fn a_reset_is_told_from_an_end() {
    let mut world = World::new(BridgeOptions::default()).await;
    let (mut client, payload) = world.connect().await;
    socket2::SockRef::from(&payload).set_linger(Some(Duration::ZERO)).unwrap();
    drop(payload);
    let (_, code) = to_the_close(&mut client).await;
    assert_eq!(code, Some(CloseCode::Error));
    assert!(client.next().await.is_none());
    assert_eq!(world.ended.recv().await, Some(Ended::PayloadReset));
    world.empty().await;
}

#[tokio::test]
async fn a_client_that_vanishes_is_noticed() {
    // Silent: its connection stands, and it answers no ping.
    let mut world = World::without_kernel(quick()).await;
    let (client, mut payload) = world.connect().await;
    assert_eq!(to_the_end(&mut payload).await, b"");
    assert_eq!(world.ended.recv().await, Some(Ended::ClientSilent));
    drop(client);
    // Its machine answers, its program has not for far too long.
    let impatient = BridgeOptions { absence_limit: Duration::from_secs(1), ..quick() };
    let mut world = World::new(impatient).await;
    let (client, mut payload) = world.connect().await;
    assert_eq!(to_the_end(&mut payload).await, b"");
    assert_eq!(world.ended.recv().await, Some(Ended::ClientSilent));
    drop(client);
    // Gone without a Close frame.
    let (mut client, mut payload) = world.connect().await;
    client.send(Message::binary(&b"last"[..])).await.unwrap();
    drop(client);
    assert_eq!(to_the_end(&mut payload).await, b"last");
    assert_eq!(world.ended.recv().await, Some(Ended::ClientGone));
    // Gone while the payload takes nothing.
    let (mut client, payload) = world.connect().await;
    let piece = pattern(1 << 20);
    while timeout(Duration::from_millis(300), client.send(Message::binary(piece.clone())))
        .await
        .is_ok()
    {}
    drop(client);
    let ended = timeout(LONG, world.ended.recv()).await.unwrap();
    assert_eq!(ended, Some(Ended::ClientGone));
    drop(payload);
    world.empty().await;
}

#[tokio::test]
async fn a_client_that_answers_pings_may_be_idle_for_ever() {
    let world = World::new(quick()).await;
    let (mut client, mut payload) = world.connect().await;
    let idle = timeout(Duration::from_secs(2), async {
        while let Some(Ok(message)) = client.next().await {
            assert!(matches!(message, Message::Ping(_)), "{message:?}");
        }
    });
    assert!(idle.await.is_err(), "the idle connection was closed");
    payload.write_all(b"still here").await.unwrap();
    let mut next = client.next().await;
    while let Some(Ok(Message::Ping(_))) = next {
        next = client.next().await;
    }
    assert_eq!(next.unwrap().unwrap(), Message::binary(&b"still here"[..]));
}

#[tokio::test]
async fn an_oversized_message_ends_the_connection_and_nothing_else() {
    let mut world = World::new(quick()).await;
    let (mut other, mut other_payload) = world.connect().await;
    let (mut client, mut payload) = world.connect().await;
    let _ = client.send(Message::binary(vec![0; 17 << 20])).await;
    assert_eq!(to_the_end(&mut payload).await, b"");
    assert_eq!(timeout(LONG, world.ended.recv()).await.unwrap(), Some(Ended::ClientFault));
    other.send(Message::text("unharmed")).await.unwrap();
    let mut got = [0; 8];
    other_payload.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"unharmed");
}

#[tokio::test]
async fn nothing_leaks() {
    let world = World::new(quick()).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let sockets = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    };
    let (_, closed) = world.connect().await;
    drop(closed);
    world.empty().await;
    let tasks_before = tasks();
    for round in 0..40 {
        let (mut client, mut payload) = world.connect().await;
        match round % 5 {
            0 => drop(client),
            1 => drop(payload),
            2 => {
                client.close(None).await.unwrap();
                while let Some(Ok(_)) = client.next().await {}
            }
            3 => {
                payload.write_all(&pattern(300_000)).await.unwrap();
                payload.shutdown().await.unwrap();
                to_the_close(&mut client).await;
            }
            _ => {
                let refused = world.refusal("127.0.0.1:1".parse().unwrap()).await;
                assert_eq!(refused.0, 504);
            }
        }
    }
    world.empty().await;
    wait_for("the tasks to end", || tasks() <= tasks_before).await;
    // Other tests of this process open sockets too: the count only has to come down again.
    wait_for("the sockets to close", || sockets() < 200).await;
}
