//! Programs of this benchmark that run at the ends of a tunnel, for what iperf3 cannot do.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use clap::Subcommand;
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt};

use crate::turn;

/// Where [`Program::Sink`] listens.
pub(crate) const PORT: u16 = 5202;
/// Where [`Program::Greet`] listens.
pub(crate) const GREETING_PORT: u16 = 5203;
/// Bytes of a datagram.
const SEGMENT: u16 = 1200;
/// Datagrams a system call.
const SEGMENTS: usize = 50;
/// A sink ends after such a silence.
const SILENCE: Duration = Duration::from_millis(700);

/// A program at one end.
#[derive(Debug, Subcommand)]
pub(crate) enum Program {
    /// Sends datagrams with segmentation offload for some seconds; prints how many bytes.
    #[command(hide = true)]
    Blast { to: SocketAddr, seconds: u64 },
    /// Receives datagrams until they cease; prints how many bytes.
    #[command(hide = true)]
    Sink,
    /// The same through a TURN server, as channel data.
    #[command(hide = true)]
    Turn { server: SocketAddr, to: SocketAddr, seconds: u64 },
    /// Accepts connections, sends a byte on each and closes it.
    #[command(hide = true)]
    Greet,
    /// Connects so many times and prints the median time to the first byte in microseconds.
    #[command(hide = true)]
    Knock { to: SocketAddr, times: usize },
    /// Asks so many times for a WebSocket and prints the median time to the answer, which comes when
    /// the connection behind it stands, in microseconds.
    #[command(hide = true)]
    Upgrade { api: SocketAddr, path: String, key: String, times: usize },
}

impl Program {
    pub(crate) fn run(&self) -> io::Result<()> {
        match *self {
            Self::Upgrade { api, ref path, ref key, times } => {
                println!("{:.0}", upgrade(api, path, key, times)?);
            }
            Self::Blast { to, seconds } => println!("{}", blast(to, seconds)?),
            Self::Turn { server, to, seconds } => {
                let (socket, data) = turn::channel(server, to, usize::from(SEGMENT))?;
                let data = data.repeat(SEGMENTS);
                println!("{}", send(&socket, server, &data, SEGMENT + turn::HEADER, seconds)?);
            }
            Self::Sink => println!("{}", sink()?),
            Self::Greet => greet()?,
            Self::Knock { to, times } => println!("{:.0}", knock(to, times)?),
        }
        Ok(())
    }
}

fn blast(to: SocketAddr, seconds: u64) -> io::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    send(&socket, to, &vec![7; usize::from(SEGMENT) * SEGMENTS], SEGMENT, seconds)
}

fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    data: &[u8],
    segment: u16,
    seconds: u64,
) -> io::Result<u64> {
    let (target, parts) = (SockaddrStorage::from(to), [IoSlice::new(data)]);
    let segmented = [ControlMessage::UdpGsoSegments(&segment)];
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut sent = 0;
    while Instant::now() < end {
        let none = MsgFlags::empty();
        match sendmsg(socket.as_raw_fd(), &parts, &segmented, none, Some(&target)) {
            Ok(bytes) => sent += bytes as u64,
            Err(nix::Error::ENOBUFS | nix::Error::EAGAIN) => std::thread::yield_now(),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}

fn sink() -> io::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    setsockopt(&socket, sockopt::RcvBuf, &(4 << 20))?;
    let mut buffer = vec![0; 1 << 16];
    let mut received = socket.recv(&mut buffer)? as u64;
    socket.set_read_timeout(Some(SILENCE))?;
    while let Ok(bytes) = socket.recv(&mut buffer) {
        received += bytes as u64;
    }
    Ok(received)
}

fn greet() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, GREETING_PORT))?;
    loop {
        listener.accept()?.0.write_all(b"!")?;
    }
}

fn knock(to: SocketAddr, times: usize) -> io::Result<f64> {
    median_time(times, || TcpStream::connect(to)?.read_exact(&mut [0]))
}

fn upgrade(api: SocketAddr, path: &str, key: &str, times: usize) -> io::Result<f64> {
    const ACCEPTED: &[u8] = b"HTTP/1.1 101 ";
    // RFC 6455, section 1.3; the key is an example's.
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {api}\r\nAuthorization: Bearer {key}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    median_time(times, || {
        let mut socket = TcpStream::connect(api)?;
        socket.set_nodelay(true)?;
        socket.write_all(request.as_bytes())?;
        let mut answer = [0; ACCEPTED.len()];
        socket.read_exact(&mut answer)?;
        if answer == ACCEPTED {
            return Ok(());
        }
        Err(io::Error::other(format!("the gate says {}", String::from_utf8_lossy(&answer))))
    })
}

/// Median of so many times, in microseconds.
fn median_time(times: usize, attempt: impl Fn() -> io::Result<()>) -> io::Result<f64> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let begin = Instant::now();
        attempt()?;
        took.push(begin.elapsed().as_secs_f64() * 1e6);
    }
    took.sort_by(f64::total_cmp);
    Ok(took[times / 2])
}
