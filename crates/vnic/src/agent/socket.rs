//! Sockets opened inside the namespace for use outside: a socket stays where it was made.

use std::{io, net::SocketAddr, os::fd::OwnedFd};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::protocol::{Refusal, SocketOrder};

const BACKLOG: i32 = 1024;

pub(super) fn open(order: &SocketOrder) -> Result<OwnedFd, Refusal> {
    let (what, opened) = match order {
        SocketOrder::Tcp { v6, from } => {
            let from = from.map(|ip| SocketAddr::new(ip, 0));
            ("open a TCP socket".to_owned(), tcp(*v6, from))
        }
        SocketOrder::Listen(on) => (format!("listen on {on}"), listen(*on)),
        SocketOrder::Udp(on) => (format!("open a UDP socket on {on}"), udp(*on)),
    };
    opened.map(OwnedFd::from).map_err(|e| Refusal::new(what, &e))
}

fn tcp(v6: bool, from: Option<SocketAddr>) -> io::Result<Socket> {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // BBR recovers best from loss on long paths; where the kernel lacks it, its default serves.
    let _ = socket.set_tcp_congestion(b"bbr");
    if let Some(from) = from {
        socket.bind(&SockAddr::from(from))?;
    }
    Ok(socket)
}

fn listen(on: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(on), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    if on.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    let _ = socket.set_tcp_congestion(b"bbr");
    socket.bind(&SockAddr::from(on))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn udp(on: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(on), Type::DGRAM.nonblocking(), None)?;
    if on.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_broadcast(true)?;
    socket.bind(&SockAddr::from(on))?;
    Ok(socket)
}
