//! Which queue of a TUN a flow takes. Needs root for the namespace.

mod support;

use std::{
    net::UdpSocket,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use gvpn_lab::Lab;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use support::*;

/// A UDP packet of one byte from 10.77.0.9 to member 0, behind an empty `virtio_net_hdr`.
fn datagram(from: u16, to: u16) -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0, 10, 77, 0, 9, 10, 77, 0, 2];
    let sum: u32 = ip.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    let udp = [from, to, 9, 0].map(u16::to_be_bytes).concat();
    [vec![0; 10], ip, udp, vec![1]].concat()
}

/// The queue that has an IPv4 packet to `port`; others, such as the kernel's own, are read away.
fn queue_with(fds: &[OwnedFd], port: u16) -> usize {
    loop {
        let mut ready: Vec<_> =
            fds.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        assert!(poll(&mut ready, PollTimeout::from(10_000u16)).unwrap() > 0, "nothing came");
        for (index, fd) in fds.iter().enumerate() {
            if ready[index].any() != Some(true) {
                continue;
            }
            let mut packet = [0; 2000];
            let n = nix::unistd::read(fd, &mut packet).unwrap();
            if n >= 34 && packet[10] == 0x45 && packet[32..34] == port.to_be_bytes() {
                return index;
            }
        }
    }
}

#[test]
fn a_flow_takes_the_queue_that_its_packets_are_written_to() {
    let lab = Lab::new().unwrap();
    let host = lab.host("payload").unwrap();
    let fds = tun_queues(&host, 0);
    let socket = host.enter(|| UdpSocket::bind("0.0.0.0:7000").unwrap()).unwrap();
    for (queue, fd) in fds.iter().enumerate() {
        let port = 9000 + queue as u16;
        let packet = datagram(port, 7000);
        // SAFETY: the descriptor is open and the bytes are alive during the call.
        let n = unsafe { libc::write(fd.as_raw_fd(), packet.as_ptr().cast(), packet.len()) };
        assert_eq!(n, packet.len() as isize, "{}", std::io::Error::last_os_error());
        let (_, from) = socket.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(from.port(), port);
        for _ in 0..3 {
            socket.send_to(b"answer", from).unwrap();
            assert_eq!(queue_with(&fds, port), queue);
        }
    }
}
