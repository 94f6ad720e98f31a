//! Names of no network: where its owner allows it, the provider's resolver is asked for a payload.
//!
//! What it is asked and what it answers passes as it is, but for the number: a resolver's answer
//! counts only with a number and from a port that were drawn for the question (RFC 5452). Who asks
//! over TCP is answered over TCP, so that an answer that was cut short can be had whole.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use gvpn_model::NetworkId;
use gvpn_switch::Asked;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::{Semaphore, mpsc},
    time::timeout,
};

use crate::{Resolver, core::Core};

/// Questions that may wait for the task that takes them.
const QUEUE: usize = 64;
/// Questions that may be out at once.
const OUT: usize = 256;
/// How long one server may take, before the next is asked.
const WAIT: Duration = Duration::from_millis(1500);
/// The most servers that are asked, as the C library does.
const SERVERS: usize = 3;
/// Larger messages would not fit into every network.
const LARGEST: usize = 1232;
/// A DNS header.
const HEADER: usize = 12;

/// Answers questions until the node stops. Returns where they go in, unless nobody is to be asked.
pub(crate) fn serve(core: &Arc<Core>) -> Option<mpsc::Sender<(NetworkId, Asked)>> {
    let resolver = core.config.resolver;
    if resolver == Resolver::Nobody {
        return None;
    }
    let (sender, mut questions) = mpsc::channel::<(NetworkId, Asked)>(QUEUE);
    let out = Arc::new(Semaphore::new(OUT));
    let inner = core.clone();
    core.spawn(async move {
        while let Some((network, asked)) = questions.recv().await {
            let Ok(permit) = out.clone().acquire_owned().await else { return };
            let core = inner.clone();
            inner.spawn(async move {
                let answer = ask(&servers(resolver), &asked.question).await;
                if let Some(packet) = answer.and_then(|message| asked.reply(&message)) {
                    core.dataplane().give(network, asked.member, &packet);
                }
                drop(permit);
            });
        }
    });
    Some(sender)
}

/// What the servers say, or that none does (SERVFAIL).
async fn ask(servers: &[SocketAddr], question: &[u8]) -> Option<Vec<u8>> {
    for server in servers {
        match timeout(WAIT, ask_one(*server, question)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%server, %error, "the resolver cannot be asked"),
            Err(_) => tracing::debug!(%server, "the resolver does not answer"),
        }
    }
    failure(question)
}

async fn ask_one(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut number = [0; 2];
    getrandom::fill(&mut number).map_err(io::Error::other)?;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut message = question.to_vec();
    let own: [u8; 2] = *message.first_chunk().ok_or(io::ErrorKind::InvalidInput)?;
    message[..2].copy_from_slice(&number);
    socket.send(&message).await?;
    let mut answer = vec![0; 65_535];
    loop {
        let len = socket.recv(&mut answer).await?;
        let answer = &mut answer[..len];
        if answers(&message, answer) {
            answer[..2].copy_from_slice(&own);
            return Ok(fitting(answer));
        }
    }
}

/// What the provider's resolver says to a question that came over TCP; `None` if nobody is to be
/// asked, or for what is no question.
pub(crate) async fn ask_over_tcp(resolver: Resolver, question: &[u8]) -> Option<Vec<u8>> {
    let servers = servers(resolver);
    if servers.is_empty() {
        return refusal(question);
    }
    for server in servers {
        match timeout(WAIT, ask_one_over_tcp(server, question)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%server, %error, "the resolver cannot be asked"),
            Err(_) => tracing::debug!(%server, "the resolver does not answer over TCP"),
        }
    }
    failure(question)
}

async fn ask_one_over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat()).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    match answers(question, &answer) {
        true => Ok(answer),
        false => Err(io::Error::other("the answer is to another question")),
    }
}

/// Whether `answer` is a response with the number and the question of `asked`.
fn answers(asked: &[u8], answer: &[u8]) -> bool {
    let Some(end) = question_end(asked) else { return false };
    answer.len() >= end
        && answer[..2] == asked[..2]
        && answer[2] & 0x80 != 0
        && answer[HEADER..end].eq_ignore_ascii_case(&asked[HEADER..end])
}

/// An answer that is too long goes without its records, and says so.
fn fitting(answer: &[u8]) -> Vec<u8> {
    match question_end(answer).filter(|_| answer.len() > LARGEST) {
        Some(end) => {
            let mut short = answer[..end].to_vec();
            short[2] |= 0x02;
            short[6..HEADER].fill(0);
            short
        }
        None => answer.to_vec(),
    }
}

/// "It cannot be found out now."
fn failure(question: &[u8]) -> Option<Vec<u8>> {
    without_records(question, 0x82)
}

/// "It is not said here."
fn refusal(question: &[u8]) -> Option<Vec<u8>> {
    without_records(question, 5)
}

/// An answer with this second byte of flags.
fn without_records(question: &[u8], flags: u8) -> Option<Vec<u8>> {
    let mut answer = question.get(..question_end(question)?)?.to_vec();
    answer[2] |= 0x80;
    answer[3] = flags;
    answer[6..HEADER].fill(0);
    Some(answer)
}

/// Where the single question of a DNS message ends.
fn question_end(message: &[u8]) -> Option<usize> {
    if message.get(4..6)? != [0, 1] {
        return None;
    }
    let mut at = HEADER;
    loop {
        match *message.get(at)? {
            0 => break,
            // A question's name is not compressed.
            label if label > 63 => return None,
            label => at += 1 + usize::from(label),
        }
    }
    (message.len() >= at + 5).then_some(at + 5)
}

fn servers(resolver: Resolver) -> Vec<SocketAddr> {
    match resolver {
        Resolver::At(server) => vec![server],
        Resolver::Nobody => Vec::new(),
        Resolver::System => {
            let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            name_servers(&text)
        }
    }
}

/// The servers in a `resolv.conf`.
fn name_servers(text: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let ip = words.next().filter(|word| *word == "nameserver").and(words.next())?;
        Some(SocketAddr::new(ip.parse().ok()?, 53))
    };
    text.lines().filter_map(server).take(SERVERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";

    /// A resolver that answers each question with what `answer` makes of it.
    async fn resolver(answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2000];
            loop {
                let (len, from) = socket.recv_from(&mut buffer).await.unwrap();
                for message in answer(&buffer[..len]) {
                    socket.send_to(&message, from).await.unwrap();
                }
            }
        });
        at
    }

    fn response(question: &[u8], more: usize) -> Vec<u8> {
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        answer.extend(vec![7; more]);
        answer
    }

    #[tokio::test]
    async fn only_the_answer_to_the_question_counts() {
        let server = resolver(|question| {
            let mut number = response(question, 1);
            number[0] ^= 1;
            let mut other = response(question, 2);
            other[14] ^= 1;
            vec![number, other, question.to_vec(), vec![1], response(question, 9)]
        });
        let answer = ask(&[server.await], QUESTION).await.unwrap();
        assert_eq!(answer, response(QUESTION, 9));
    }

    #[tokio::test]
    async fn silence_is_a_failure_and_the_next_server_is_asked() {
        let silent = resolver(|_| Vec::new()).await;
        let failed = ask(&[silent], QUESTION).await.unwrap();
        assert_eq!((&failed[..2], failed[3] & 15), (&QUESTION[..2], 2));
        assert_eq!(failed.len(), QUESTION.len());
        let good = resolver(|question| vec![response(question, 3)]).await;
        assert_eq!(ask(&[silent, good], QUESTION).await.unwrap(), response(QUESTION, 3));
        assert_eq!(ask(&[good], b"nonsense").await, None);
    }

    #[tokio::test]
    async fn who_asks_over_tcp_gets_all_of_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut question = vec![0; stream.read_u16().await.unwrap().into()];
                stream.read_exact(&mut question).await.unwrap();
                let answer = response(&question, 5000);
                stream.write_u16(answer.len() as u16).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            }
        });
        let answer = ask_over_tcp(Resolver::At(at), QUESTION).await.unwrap();
        assert_eq!(answer, response(QUESTION, 5000));
        let refused = ask_over_tcp(Resolver::Nobody, QUESTION).await.unwrap();
        assert_eq!((refused.len(), refused[3] & 15), (QUESTION.len(), 5));
        let nobody = "127.0.0.1:1".parse().unwrap();
        let failed = ask_over_tcp(Resolver::At(nobody), QUESTION).await.unwrap();
        assert_eq!(failed[3] & 15, 2);
    }

    #[test]
    fn long_answers_are_cut_and_say_so() {
        let cut = fitting(&response(QUESTION, 3000));
        assert_eq!((cut.len(), cut[2] & 2), (QUESTION.len(), 2));
    }

    #[test]
    fn servers_are_read() {
        let text = "# nameserver 9.9.9.9\nnameserver 10.0.0.1\nsearch x\nnameserver fd00::1\n";
        let want: Vec<SocketAddr> =
            vec!["10.0.0.1:53".parse().unwrap(), "[fd00::1]:53".parse().unwrap()];
        assert_eq!(name_servers(text), want);
        for (text, want) in [("system", Some(Resolver::System)), ("none", Some(Resolver::Nobody))] {
            assert_eq!(text.parse().ok(), want);
        }
        assert_eq!("1.2.3.4".parse(), Ok(Resolver::At("1.2.3.4:53".parse().unwrap())));
        assert!("1.2.3.4:x".parse::<Resolver>().is_err());
    }
}
