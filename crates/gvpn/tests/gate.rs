//! The gate from end to end: a WebSocket at the daemon, sockets in a payload. Needs what a
//! provider needs: namespaces and a TUN device.

mod rig;

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use rig::{Daemon, PATIENCE, Rig, eventually};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::frame::coding::CloseCode},
};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const ECHO: u16 = 9000;
const COUNT: u16 = 9001;

/// A payload that echoes and counts, a network around it, and a requestor with this kind of gate.
async fn world(rig: &Rig, gate: &str) -> (Daemon, Daemon, String) {
    let requestor = rig.daemon("requestor", &["--role", "requestor", "--gate", gate]).await;
    let provider = rig.provider("a").await;
    let net = requestor.network("10.50.0.0/24").await;
    let payload = requestor.payload(&provider, &net, "10.50.0.2").await;
    let serve = format!(
        "setsid nc -ll -p {ECHO} -e cat >/dev/null 2>&1 & \
         setsid nc -ll -p {COUNT} -e wc -c >/dev/null 2>&1 &"
    );
    requestor.sh(&payload, &serve).await.unwrap();
    // A member whose payload was never deployed.
    requestor.add_node(&net, &provider, "10.50.0.9").await;
    let path = tcp(&net, "10.50.0.2", COUNT);
    eventually("the servers listen", async || {
        connect_async(requestor.websocket(&path)).await.is_ok()
    })
    .await;
    (requestor, provider, net)
}

fn tcp(net: &str, ip: &str, port: u16) -> String {
    format!("/net-api/v1/net/{net}/tcp/{ip}/{port}")
}

async fn connect(requestor: &Daemon, path: &str) -> Socket {
    connect_async(requestor.websocket(path)).await.unwrap().0
}

/// The status and the message that a connection is refused with.
async fn refusal(requestor: &Daemon, path: &str) -> (u16, String) {
    match connect_async(requestor.websocket(path)).await {
        Err(Error::Http(answer)) => {
            let body: Value = serde_json::from_slice(answer.body().as_ref().unwrap()).unwrap();
            (answer.status().as_u16(), body["message"].as_str().unwrap().to_owned())
        }
        other => panic!("{path}: {other:?}"),
    }
}

async fn next(socket: &mut Socket) -> Message {
    let limit = Instant::now() + PATIENCE;
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, socket.next()).await.expect("no message") {
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(message)) => return message,
            other => panic!("{other:?}"),
        }
    }
}

async fn no_connection_left(requestor: &Daemon, net: &str) {
    let path = format!("/net-api/v1/net/{net}/tcp");
    eventually("no connection is left", async || requestor.get(&path).await.1 == json!([])).await;
}

fn descriptors(daemon: &Daemon) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count()
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

async fn does_what_a_socket_does(gate: &str) {
    let rig = Rig::new().await;
    let (requestor, _provider, net) = world(&rig, gate).await;
    no_connection_left(&requestor, &net).await;
    let before = descriptors(&requestor);

    // Bytes there and back, while both directions are busy.
    let (mut sink, mut source) = connect(&requestor, &tcp(&net, "10.50.0.2", ECHO)).await.split();
    let sending = tokio::spawn(async move {
        for chunk in content(4 << 20).chunks(50_000) {
            sink.send(Message::binary(chunk.to_vec())).await.unwrap();
        }
        sink
    });
    let mut got = Vec::new();
    while got.len() < 4 << 20 {
        match tokio::time::timeout(PATIENCE, source.next()).await.unwrap() {
            Some(Ok(Message::Binary(bytes))) => got.extend_from_slice(&bytes),
            Some(Ok(Message::Ping(_))) => {}
            other => panic!("{other:?} after {} bytes", got.len()),
        }
    }
    assert!(got == content(4 << 20));
    // The client's Close ends the connection; so does a client that vanishes.
    sending.await.unwrap().close().await.unwrap();
    drop(connect(&requestor, &tcp(&net, "10.50.0.2", ECHO)).await);
    no_connection_left(&requestor, &net).await;

    // One direction ended, the other not: the answer comes after the end.
    let mut request =
        requestor.websocket(&tcp(&net, "10.50.0.2", COUNT)).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "gvpn.eof".parse().unwrap());
    let (mut socket, _) = connect_async(request).await.unwrap();
    socket.send(Message::binary(content(100_000))).await.unwrap();
    socket.send(Message::text("")).await.unwrap();
    assert_eq!(next(&mut socket).await, Message::binary("100000\n"));
    drop(socket);

    let refused = refusal(&requestor, &tcp(&net, "10.50.0.2", 81)).await;
    assert_eq!(refused.0, 502, "{refused:?}");
    let silent = refusal(&requestor, &tcp(&net, "10.50.0.9", 80)).await;
    assert_eq!(silent.0, 504, "{silent:?}");
    let unknown = refusal(&requestor, &tcp(&net, "10.50.0.77", 80)).await;
    assert_eq!(unknown.0, 404, "{unknown:?}");

    no_connection_left(&requestor, &net).await;
    eventually("no descriptor is left", async || descriptors(&requestor) <= before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_does_what_a_socket_does() {
    does_what_a_socket_does("namespace").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stack_in_the_daemon_does_what_a_socket_does() {
    does_what_a_socket_does("user").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_whose_agent_was_killed_is_opened_again() {
    let rig = Rig::new().await;
    let (requestor, _provider, net) = world(&rig, "namespace").await;
    for pid in requestor.descendants() {
        let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    }
    let path = tcp(&net, "10.50.0.2", ECHO);
    eventually("the gate works again", async || {
        connect_async(requestor.websocket(&path)).await.is_ok()
    })
    .await;
}

const OWNER: [u8; 4] = [10, 50, 0, 1];
const PAYLOAD: [u8; 4] = [10, 50, 0, 2];
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

fn who_has(ip: [u8; 4]) -> Vec<u8> {
    let mut frame = [[0xff; 6], MAC].concat();
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(MAC.iter().chain(&OWNER).chain(&[0; 6]).chain(&ip));
    frame
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let pairs = bytes.chunks(2).map(|p| u32::from(p[0]) << 8 | u32::from(*p.get(1).unwrap_or(&0)));
    let sum: u32 = pairs.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

fn echo_request(to: [u8; 6], from: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 42, 0, 1];
    icmp.extend_from_slice(data);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum);
    let length = u16::try_from(20 + icmp.len()).unwrap().to_be_bytes();
    let mut ip = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 1, 0, 0];
    ip.extend(from.iter().chain(&PAYLOAD));
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    [to.as_slice(), &MAC, &[8, 0], &ip, &icmp].concat()
}

/// The address in the next ARP reply, which is about `ip`.
async fn mac_of(socket: &mut Socket, ip: [u8; 4]) -> [u8; 6] {
    loop {
        let Message::Binary(frame) = next(socket).await else { panic!("not a frame") };
        if frame.len() >= 42 && frame[12..14] == [8, 6] && frame[20..22] == [0, 2] {
            assert_eq!(frame[28..32], ip);
            return frame[22..28].try_into().unwrap();
        }
    }
}

/// The data of the next echo reply.
async fn echo_reply(socket: &mut Socket) -> Vec<u8> {
    loop {
        let Message::Binary(frame) = next(socket).await else { panic!("not a frame") };
        if frame.len() > 42 && frame[12..14] == [8, 0] && frame[23] == 1 && frame[34] == 0 {
            assert_eq!((&frame[26..30], &frame[30..34]), (&PAYLOAD[..], &OWNER[..]));
            return frame[42..].to_vec();
        }
    }
}

async fn close_code(socket: &mut Socket) -> CloseCode {
    loop {
        match next(socket).await {
            Message::Close(Some(close)) => return close.code,
            Message::Binary(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_frames_go_both_ways_between_two_addresses() {
    let rig = Rig::new().await;
    let (requestor, _provider, net) = world(&rig, "auto").await;
    no_connection_left(&requestor, &net).await;
    let raw = |from: &str, to: &str| format!("/net-api/v1/net/{net}/raw/from/{from}/to/{to}");
    for (from, to, status) in
        [("10.50.0.1", "10.50.0.77", 404), ("10.50.0.2", "10.50.0.9", 403), ("x", "10.50.0.2", 400)]
    {
        let answer = refusal(&requestor, &raw(from, to)).await;
        assert_eq!(answer.0, status, "{from} {to} {answer:?}");
    }
    let mut socket = connect(&requestor, &raw("10.50.0.1", "10.50.0.2")).await;
    let rows = requestor.get(&format!("/net-api/v1/net/{net}/tcp")).await.1;
    assert_eq!((&rows[0]["protocol"], &rows[0]["remoteIp"]), (&json!(255), &json!("10.50.0.2")));
    socket.send(Message::binary(who_has(PAYLOAD))).await.unwrap();
    let mac = mac_of(&mut socket, PAYLOAD).await;

    // Only what the first may send comes back: another's address does not, nor do broken frames.
    for frame in [
        echo_request(mac, [10, 50, 0, 9], b"not mine"),
        echo_request(mac, OWNER, b"cut off")[..30].to_vec(),
        echo_request(mac, OWNER, b"this one"),
    ] {
        socket.send(Message::binary(frame)).await.unwrap();
    }
    assert_eq!(echo_reply(&mut socket).await, b"this one");

    // A second one at the same time; what is no frame ends it, not the first.
    let mut other = connect(&requestor, &raw("10.50.0.1", "10.50.0.2")).await;
    other.send(Message::binary(vec![0; 13])).await.unwrap();
    assert_eq!(close_code(&mut other).await, CloseCode::Size);
    socket.send(Message::binary(echo_request(mac, OWNER, b"again"))).await.unwrap();
    assert_eq!(echo_reply(&mut socket).await, b"again");

    // The network goes: an idle client is told.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(requestor.delete(&format!("/net-api/v1/net/{net}")).await, (200, Value::Null));
    assert_eq!(close_code(&mut socket).await, CloseCode::Away);
}
