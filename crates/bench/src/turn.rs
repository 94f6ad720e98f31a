//! As much of TURN (RFC 8656) as it takes to send through a server that asks for no password.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

/// Bytes before the data of a channel.
pub(crate) const HEADER: u16 = 4;
const ALLOCATE: u16 = 0x003;
const CHANNEL_BIND: u16 = 0x009;
const SUCCESS: u16 = 0x100;
const CHANNEL_NUMBER: u16 = 0x00c;
const XOR_PEER_ADDRESS: u16 = 0x012;
const REQUESTED_TRANSPORT: u16 = 0x019;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const CHANNEL: u16 = 0x4000;
const UDP: u8 = 17;

/// A socket with a channel to `peer`, and a datagram for it with so many bytes of data.
pub(crate) fn channel(
    server: SocketAddr,
    peer: SocketAddr,
    data: usize,
) -> io::Result<(UdpSocket, Vec<u8>)> {
    let SocketAddr::V4(peer) = peer else { return Err(io::ErrorKind::Unsupported.into()) };
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    ask(&socket, server, ALLOCATE, &attribute(REQUESTED_TRANSPORT, &[UDP, 0, 0, 0]))?;
    let mut address = vec![0, 1];
    address.extend((peer.port() ^ 0x2112).to_be_bytes());
    address.extend(peer.ip().octets().iter().zip(COOKIE).map(|(a, b)| a ^ b));
    let mut bind = attribute(CHANNEL_NUMBER, &[CHANNEL.to_be_bytes(), [0, 0]].concat());
    bind.extend(attribute(XOR_PEER_ADDRESS, &address));
    ask(&socket, server, CHANNEL_BIND, &bind)?;
    let mut datagram = CHANNEL.to_be_bytes().to_vec();
    datagram.extend(u16::try_from(data).unwrap_or_default().to_be_bytes());
    datagram.resize(usize::from(HEADER) + data, 7);
    Ok((socket, datagram))
}

fn ask(socket: &UdpSocket, server: SocketAddr, kind: u16, attributes: &[u8]) -> io::Result<()> {
    let mut request = kind.to_be_bytes().to_vec();
    request.extend(u16::try_from(attributes.len()).unwrap_or_default().to_be_bytes());
    request.extend(COOKIE);
    request.extend(kind.to_be_bytes().repeat(6));
    request.extend(attributes);
    let mut answer = [0; 1500];
    for _ in 0..20 {
        socket.send_to(&request, server)?;
        if let Ok(size) = socket.recv(&mut answer)
            && size >= 2
        {
            let got = u16::from_be_bytes([answer[0], answer[1]]);
            let refused = || io::Error::other(format!("the TURN server answers {got:#06x}"));
            return if got == kind | SUCCESS { Ok(()) } else { Err(refused()) };
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_be_bytes().to_vec();
    bytes.extend(u16::try_from(value.len()).unwrap_or_default().to_be_bytes());
    bytes.extend(value);
    bytes
}
