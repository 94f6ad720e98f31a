//! The http-proxy example: one local HTTP port whose requests are spread over the providers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use gvpn_sdk::Network;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{
    demo::payload::Payload,
    failure::{Failure, Outcome},
};

const REQUESTS: usize = 30;

/// Sends requests to a local port and counts who answered.
pub(crate) async fn check(network: &Network, servers: &[&Payload]) -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(Failure::io("a local port"))?;
    let local = listener.local_addr().map_err(Failure::io("a local port"))?;
    let ips: Vec<IpAddr> = servers.iter().map(|server| server.ip).collect();
    let serving = tokio::spawn(spread(listener, network.clone(), ips));
    let start = Instant::now();
    let mut answers = BTreeMap::<String, usize>::new();
    for _ in 0..REQUESTS {
        *answers.entry(get(local).await?).or_default() += 1;
    }
    let took = start.elapsed().as_secs_f64() * 1e3 / REQUESTS as f64;
    serving.abort();
    for server in servers {
        if answers.get(&server.name).copied().unwrap_or(0) < REQUESTS / servers.len() {
            return Err(Failure::new(format!("answers were {answers:?}")));
        }
    }
    let each: Vec<String> = answers.iter().map(|(name, n)| format!("{name} {n}")).collect();
    Ok(format!("{} answers, {took:.1} ms each", each.join(", ")))
}

/// Leads each connection to the next server.
async fn spread(listener: TcpListener, network: Network, servers: Vec<IpAddr>) {
    for server in servers.iter().cycle() {
        let Ok((mut local, _)) = listener.accept().await else { return };
        let (network, server) = (network.clone(), *server);
        tokio::spawn(async move {
            if let Ok(mut gate) = network.connect(server, 80).await {
                let _ = copy_bidirectional(&mut local, &mut gate).await;
            }
        });
    }
}

/// The body of `GET /`.
async fn get(from: SocketAddr) -> Outcome<String> {
    let request = async {
        let mut tcp = TcpStream::connect(from).await?;
        tcp.write_all(b"GET / HTTP/1.0\r\nHost: demo\r\n\r\n").await?;
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer: String = request.await.map_err(Failure::io("an HTTP request"))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.trim().to_owned()),
        _ => Err(Failure::new(format!("the answer was: {answer}"))),
    }
}
