//! The limit of every tunnel between two hosts: the copy-only forwarder cut in two, with UDP between
//! the halves. Super-packets go as they are, in pieces that the kernel cuts and joins; nothing is
//! sealed, looked up or counted.

use std::{
    fs::File,
    io::{self, IoSlice, Read, Write},
    net::{Ipv4Addr, UdpSocket},
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

    fn suits(&self, layout: Layout) -> bool {
        matches!(layout, Layout::Pair | Layout::PlainLink | Layout::Star(_))
    }

    fn up(&self, bed: &Bed, layout: Layout) -> Result<Tunnel, BenchError> {
        halves(bed, layout, |_| (send, receive))
    }
}

/// Bytes of a datagram on a link with MTU 1500, less what sealing and its headers would take.
pub(crate) const PIECE: usize = 1440;
/// Full datagrams that one system call sends, sealed or not.
pub(crate) const BATCH: usize = 44;
const PORT: u16 = 4789;

/// The sockets of one end, each connected to another end.
pub(crate) struct Sockets(Vec<UdpSocket>);

impl Sockets {
    /// The one that leads to where a packet (behind its `virtio_net_hdr`) goes: ends are numbered by
    /// the last byte of their addresses.
    pub(crate) fn towards(&self, packet: &[u8]) -> Option<&UdpSocket> {
        match &self.0[..] {
            [only] => Some(only),
            many => many.get(usize::from(*packet.get(LAST_BYTE)?).checked_sub(FIRST)?),
        }
    }
}

/// Where the last byte of an IPv4 packet's destination is, behind a `virtio_net_hdr`.
const LAST_BYTE: usize = 10 + 19;
/// The last byte of the first server's address.
const FIRST: usize = 2;

/// A tunnel between a half on host `a` and those of the servers on host `b`. `ends` gives what sends
/// from a half and what receives at it, for that on `a` if told 0, else for one on `b`.
pub(crate) fn halves<S, R>(
    bed: &Bed,
    layout: Layout,
    ends: impl Fn(u64) -> (S, R),
) -> Result<Tunnel, BenchError>
where
    S: FnOnce(File, Sockets) + Send + 'static,
    R: FnOnce(&UdpSocket, File) + Send + 'static,
{
    let (mut sockets, mut servers, mut devices) = (vec![], vec![], vec![]);
    for number in 0..layout.servers() {
        let place = match layout {
            Layout::Star(_) => bed.place()?,
            _ => bed.b.clone(),
        };
        let address = Ipv4Addr::new(10, 98, 0, (FIRST as u16 + number) as u8);
        let device = tun(&place, &format!("{address}/24"))?;
        let open = |host: &Host, from, to| {
            host.enter(|| connected(from, to, PORT + number))?.map_err(io("opening a UDP socket"))
        };
        half(&device, vec![open(&bed.b, bed::B, bed::A)?], || ends(1))?;
        sockets.push(open(&bed.a, bed::A, bed::B)?);
        servers.push(Peer { side: Box::new(place), address: address.into() });
        devices.push(device);
    }
    let device = tun(&bed.a, "10.98.0.1/24")?;
    half(&device, sockets, || ends(0))?;
    devices.push(device);
    Ok(Tunnel {
        client: Box::new(bed.a.clone()),
        servers,
        gate: None,
        keys_age: None,
        _guards: vec![Box::new(devices)],
    })
}

/// Starts a thread that sends and one for each socket that receives; they end with the namespace.
fn half<S, R>(
    device: &File,
    sockets: Vec<UdpSocket>,
    end: impl Fn() -> (S, R),
) -> Result<(), BenchError>
where
    S: FnOnce(File, Sockets) + Send + 'static,
    R: FnOnce(&UdpSocket, File) + Send + 'static,
{
    let share = || device.try_clone().map_err(io("sharing a TUN device"));
    for socket in &sockets {
        let (socket, back) = (socket.try_clone().map_err(io("sharing a socket"))?, share()?);
        let (_, receive) = end();
        thread::spawn(move || receive(&socket, back));
    }
    let ((send, _), out) = (end(), share()?);
    thread::spawn(move || send(out, Sockets(sockets)));
    Ok(())
}

fn connected(from: &str, to: &str, port: u16) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((from, port))?;
    socket.connect((to, port))?;
    setsockopt(&socket, UdpGroSegment, &true)?;
    setsockopt(&socket, SndBuf, &(4 << 20))?;
    setsockopt(&socket, RcvBuf, &(4 << 20))?;
    Ok(socket)
}

/// A datagram that is not full ends a super-packet.
fn send(mut device: File, sockets: Sockets) {
    let mut packet = vec![0; MOST + 1];
    while let Ok(mut length) = device.read(&mut packet[..MOST]) {
        let Some(socket) = sockets.towards(&packet[..length]) else { continue };
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
