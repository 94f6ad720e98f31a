//! The stack in this process, joined by a socket of frames to a second one that listens.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use gvpn_gate::{Dial, GateStream, UserStack};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{self, CongestionControl, State},
    wire::{EthernetAddress, IpAddress, IpCidr},
};
use socket2::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMIT: Duration = Duration::from_secs(120);
const SIZE: usize = 8 << 20;
/// Echoes, and ends when it was told the end.
const ECHO: u16 = 7;
/// Resets who connects, at the first byte.
const RESET: u16 = 9;
/// Ends its direction at once, and says at the end how many bytes it got.
const COUNT: u16 = 13;

struct Wire(Socket);
struct Frame(Vec<u8>);
struct Room<'a>(&'a Socket);

impl Device for Wire {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Frame, Room<'_>)> {
        let mut frame = vec![0; 2000];
        let n = (&self.0).read(&mut frame).ok().filter(|n| *n > 0)?;
        frame.truncate(n);
        Some((Frame(frame), Room(&self.0)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Room<'_>> {
        Some(Room(&self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        // A frame that finds no room is lost: the stacks recover.
        let _ = (&mut &*self.0).write(&frame);
        result
    }
}

/// The other member: a thread with a stack of its own.
struct Peer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    fn start(fd: OwnedFd) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = Some(std::thread::spawn(move || serve(Wire(fd.into()), &stopped)));
        Self { stop, thread }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(mut wire: Wire, stop: &AtomicBool) {
    let start = Instant::now();
    let now = || smoltcp::time::Instant::from_micros(start.elapsed().as_micros() as i64);
    let config = Config::new(EthernetAddress([2, 0, 0, 0, 0, 99]).into());
    let mut interface = Interface::new(config, &mut wire, now());
    interface.update_ip_addrs(|list| {
        list.push(IpCidr::new(IpAddress::v4(10, 0, 0, 2), 24)).unwrap();
        list.push(IpCidr::new(IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 2), 64)).unwrap();
    });
    let mut sockets = SocketSet::new(Vec::new());
    let mut served = [ECHO, RESET, COUNT].map(|port| {
        let buffer = || tcp::SocketBuffer::new(vec![0; 256 << 10]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Cubic);
        (port, sockets.add(socket), 0)
    });
    while !stop.load(Ordering::Acquire) {
        // Every port listens before the first frame is looked at.
        for (port, handle, count) in &mut served {
            step(&mut sockets, *handle, *port, count);
        }
        interface.poll(now(), &mut wire, &mut sockets);
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn step(sockets: &mut SocketSet<'_>, handle: SocketHandle, port: u16, count: &mut u64) {
    let socket = sockets.get_mut::<tcp::Socket>(handle);
    if matches!(socket.state(), State::Closed | State::TimeWait)
        && socket.remote_endpoint().is_none()
        || socket.state() == State::TimeWait
    {
        socket.abort();
        *count = 0;
        socket.listen(port).unwrap();
    }
    if socket.state() == State::Listen || socket.state() == State::SynReceived {
        return;
    }
    let ended = !socket.may_recv();
    match port {
        RESET if socket.can_recv() => socket.abort(),
        COUNT => {
            while let Ok(n @ 1..) = socket.recv(|bytes| (bytes.len(), bytes.len())) {
                *count += n as u64;
            }
            if ended && socket.may_send() {
                socket.send_slice(&count.to_be_bytes()).unwrap();
                socket.close();
            }
        }
        ECHO => {
            while socket.can_recv() && socket.can_send() {
                let room = socket.send_capacity() - socket.send_queue();
                let bytes = socket.recv(|b| (b.len().min(room), b[..b.len().min(room)].to_vec()));
                let bytes = bytes.unwrap();
                let sent = socket.send_slice(&bytes).unwrap();
                assert_eq!(sent, bytes.len());
            }
            if ended && !socket.can_recv() && socket.may_send() {
                socket.close();
            }
        }
        _ => {}
    }
}

fn world() -> (UserStack, Peer) {
    let (stack, other) = UserStack::new(1500).unwrap();
    let addresses = ["10.0.0.1/24".parse().unwrap(), "fd00::1/64".parse().unwrap()];
    stack.set_addresses(&addresses, &[]);
    (stack, Peer::start(other))
}

async fn dial(stack: &UserStack, remote: &str) -> GateStream {
    let remote: SocketAddr = remote.parse().unwrap();
    tokio::time::timeout(LIMIT, stack.dial(remote, None)).await.unwrap().unwrap()
}

async fn failure(stack: &UserStack, remote: &str, from: Option<&str>) -> ErrorKind {
    let from = from.map(|ip| ip.parse().unwrap());
    let dialled = stack.dial(remote.parse().unwrap(), from);
    tokio::time::timeout(LIMIT, dialled).await.unwrap().unwrap_err().kind()
}

async fn none_left(stack: &UserStack) {
    let start = Instant::now();
    while stack.sockets() > 0 {
        assert!(start.elapsed() < LIMIT, "{} sockets are left", stack.sockets());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

async fn echo(remote: &str) {
    let (stack, _peer) = world();
    let (mut reader, mut writer) = tokio::io::split(dial(&stack, remote).await);
    let sending = tokio::spawn(async move {
        writer.write_all(&content(SIZE)).await.unwrap();
        writer.shutdown().await.unwrap();
        writer
    });
    let mut got = Vec::new();
    tokio::time::timeout(LIMIT, reader.read_to_end(&mut got)).await.unwrap().unwrap();
    assert!(got == content(SIZE), "{} bytes came back", got.len());
    drop((sending.await.unwrap(), reader));
    none_left(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_go_both_ways_and_the_end_with_them() {
    echo("10.0.0.2:7").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_too() {
    echo("[fd00::2]:7").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_before_the_end_arrives() {
    let (stack, _peer) = world();
    let mut stream = dial(&stack, "10.0.0.2:13").await;
    stream.write_all(&content(SIZE)).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(stream.write(b"more").await.unwrap_err().kind(), ErrorKind::BrokenPipe);
    let count = tokio::time::timeout(LIMIT, stream.read_u64()).await.unwrap().unwrap();
    assert_eq!(count, SIZE as u64);
    assert_eq!(tokio::time::timeout(LIMIT, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    drop(stream);
    none_left(&stack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_and_resets_are_errors() {
    let (stack, peer) = world();
    assert_eq!(failure(&stack, "10.0.0.2:8", None).await, ErrorKind::ConnectionRefused);
    let foreign = failure(&stack, "10.0.0.2:7", Some("10.0.0.77")).await;
    assert_eq!(foreign, ErrorKind::AddrNotAvailable);
    let mut stream = dial(&stack, "10.0.0.2:9").await;
    stream.write_all(b"x").await.unwrap();
    let read = tokio::time::timeout(LIMIT, stream.read(&mut [0; 8])).await.unwrap();
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
    drop(stream);
    // Neither an attempt that is given up nor a connection that is dropped leaves anything.
    let nobody = stack.dial("10.0.0.3:1".parse().unwrap(), None);
    assert!(tokio::time::timeout(Duration::from_millis(50), nobody).await.is_err());
    drop(dial(&stack, "10.0.0.2:7").await);
    none_left(&stack).await;
    stack.set_addresses(&["fd00::1/64".parse().unwrap()], &[]);
    assert_eq!(failure(&stack, "10.0.0.2:7", None).await, ErrorKind::NetworkUnreachable);
    drop(peer);
    assert_eq!(failure(&stack, "[fd00::2]:7", None).await, ErrorKind::NotConnected);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_stops_the_other() {
    let (stack, _peer) = world();
    let mut stream = dial(&stack, "10.0.0.2:7").await;
    let mut sent = 0_usize;
    let chunk = vec![7; 64 << 10];
    // Until nothing more is taken: the buffers on the way are full.
    while let Ok(n) = tokio::time::timeout(Duration::from_secs(3), stream.write(&chunk)).await {
        sent += n.unwrap();
        assert!(sent < 16 << 20, "nothing holds the writer back");
    }
    let mut got = vec![0; sent];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut got)).await.unwrap().unwrap();
    assert!(got.iter().all(|byte| *byte == 7));
}
