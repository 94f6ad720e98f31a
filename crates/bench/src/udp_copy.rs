//! The limit of every tunnel between two hosts: the copy-only forwarder cut in two, with UDP between
//! the halves. Super-packets go as they are, in pieces that the kernel cuts and joins; nothing is
//! sealed, looked up or counted.

use std::{
    fs::File,
    io::{self, IoSlice, Read, Write},
    net::UdpSocket,
    os::fd::AsRawFd,
    thread,
};

use gvpn_lab::Host;
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrIn, sendmsg, setsockopt,
    sockopt::{RcvBuf, SndBuf, UdpGroSegment},
};

use crate::{
    bed::{self, Bed},
    copy::{MOST, tun},
    system::{BenchError, Layout, Peer, System, Tunnel, io},
};

/// The copy-only forwarder in two halves.
pub(crate) struct CopyOverUdp;

impl System for CopyOverUdp {
    fn name(&self) -> &str {
        "copy over udp"
    }

    fn available(&self) -> Result<(), String> {
        Ok(())
    }

    fn up(&self, bed: &Bed, _: Layout) -> Result<Tunnel, BenchError> {
        halves(bed, |_| (send, receive))
    }
}

/// Bytes of a datagram on a link with MTU 1500, less what sealing and its headers would take.
pub(crate) const PIECE: usize = 1440;
/// Full datagrams that one system call sends, sealed or not.
pub(crate) const BATCH: usize = 44;
const PORT: u16 = 4789;

/// A tunnel of two halves, which `ends` gives what sends and what receives; the first is 0.
pub(crate) fn halves<S, R>(bed: &Bed, ends: impl Fn(u64) -> (S, R)) -> Result<Tunnel, BenchError>
where
    S: FnOnce(File, &UdpSocket) + Send + 'static,
    R: FnOnce(&UdpSocket, File) + Send + 'static,
{
    let a = half(&bed.a, "10.98.0.1/24", [bed::A, bed::B], ends(0))?;
    let b = half(&bed.b, "10.98.0.2/24", [bed::B, bed::A], ends(1))?;
    Ok(Tunnel {
        client: Box::new(bed.a.clone()),
        servers: vec![Peer { side: Box::new(bed.b.clone()), address: [10, 98, 0, 2].into() }],
        gate: None,
        _guards: vec![Box::new((a, b))],
    })
}

/// One end: a TUN device, a socket, and a thread for each direction, which end with the namespace.
fn half(
    host: &Host,
    inner: &str,
    [from, to]: [&str; 2],
    (send, receive): (
        impl FnOnce(File, &UdpSocket) + Send + 'static,
        impl FnOnce(&UdpSocket, File) + Send + 'static,
    ),
) -> Result<File, BenchError> {
    let device = tun(host, inner)?;
    let socket = host.enter(|| connected(from, to))?.map_err(io("opening a UDP socket"))?;
    let share = || device.try_clone().map_err(io("sharing a TUN device"));
    let (out, back) = (share()?, share()?);
    let sender = socket.try_clone().map_err(io("sharing a socket"))?;
    thread::spawn(move || send(out, &sender));
    thread::spawn(move || receive(&socket, back));
    Ok(device)
}

fn connected(from: &str, to: &str) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((from, PORT))?;
    socket.connect((to, PORT))?;
    setsockopt(&socket, UdpGroSegment, &true)?;
    setsockopt(&socket, SndBuf, &(4 << 20))?;
    setsockopt(&socket, RcvBuf, &(4 << 20))?;
    Ok(socket)
}

/// A datagram that is not full ends a super-packet.
fn send(mut device: File, socket: &UdpSocket) {
    let mut packet = vec![0; MOST + 1];
    while let Ok(mut length) = device.read(&mut packet[..MOST]) {
        length += usize::from(length.is_multiple_of(PIECE));
        for part in packet[..length].chunks(PIECE * BATCH) {
            let _ = pass(socket, part, PIECE);
        }
    }
}

/// Sends `part` as datagrams of `piece` bytes, the last of which may be shorter.
pub(crate) fn pass(socket: &UdpSocket, part: &[u8], piece: usize) -> nix::Result<usize> {
    let length = piece as u16;
    let cut = [ControlMessage::UdpGsoSegments(&length)];
    let control = if part.len() > piece { &cut[..] } else { &[] };
    let nowhere = None::<&SockaddrIn>;
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(part)], control, MsgFlags::empty(), nowhere)
}

/// What the kernel has joined ends where a super-packet does: it joins nothing to a datagram that
/// is not full. One of which a part is lost is dropped when its length shows it.
fn receive(socket: &UdpSocket, mut device: File) {
    let mut packet = vec![0; 2 * MOST];
    let mut length = 0;
    loop {
        match socket.recv(&mut packet[length..]) {
            Ok(more) => length += more,
            // The other half was not there yet.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(_) => return,
        }
        if length.is_multiple_of(PIECE) && length <= MOST {
            continue;
        }
        let _ = device.write(&packet[..length]);
        length = 0;
    }
}
