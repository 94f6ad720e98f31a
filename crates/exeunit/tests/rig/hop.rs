//! The shortest way from a machine's network card to a kernel's TCP: a loop that moves frames between the
//! card and a TUN device as they are. What a machine does here is the most that it can do.

use std::{
    fs::File,
    io::{IoSlice, Read, Write},
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use gvpn_packet::{VNET_LEN, VnetHdr};
use gvpn_vhost::Card;
use gvpn_vnic::{AgentCommand, Interface, Namespace, Nic, NicKind, Route, TunSpec};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send},
};

/// The MAC address of the kernel's end, which the machine is told.
pub const MAC: &str = "02:00:00:00:00:01";
const ETHERNET: usize = 14;

nix::ioctl_write_int_bad!(set_offload, nix::libc::TUNSETOFFLOAD);

/// A kernel's end in a namespace, and the loop.
pub struct Hop {
    pub namespace: Namespace,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hop {
    /// With this address at the kernel's end.
    pub async fn new(agent: AgentCommand, address: &str, mtu: u16, nic: Nic) -> Self {
        let namespace = Namespace::spawn(agent).await.unwrap();
        let tun = namespace.create_tun(TunSpec::new("eth0", mtu)).await.unwrap();
        let interface = Interface {
            name: "eth0".to_owned(),
            addresses: vec![address.parse().unwrap()],
            routes: Vec::<Route>::new(),
            mtu,
        };
        namespace.configure(interface).await.unwrap();
        if nic.kind != NicKind::VhostUser {
            // SAFETY: the argument is an integer.
            unsafe { set_offload(tun.fd.as_raw_fd(), 0) }.unwrap();
        }
        let (tun, ended) = (File::from(tun.fd), Arc::new(AtomicBool::new(false)));
        let end = ended.clone();
        let thread = thread::spawn(move || Wire::new(nic).join(&tun, &end));
        Self { namespace, ended, thread: Some(thread) }
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.ended.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Wire {
    Card(Box<Card>),
    Messages(File),
    Stream(File, Vec<u8>),
}

impl Wire {
    fn new(nic: Nic) -> Self {
        match nic.kind {
            NicKind::VhostUser => Self::Card(Box::new(Card::new(nic.fd).unwrap())),
            NicKind::Stream => Self::Stream(nic.fd.into(), vec![]),
            _ => Self::Messages(nic.fd.into()),
        }
    }

    fn join(mut self, mut tun: &File, ended: &AtomicBool) {
        let (mut frame, mut packet) = (vec![0; 70_000], vec![0; 70_000]);
        let mut machine = [0xff; 6];
        while !ended.load(Relaxed) {
            self.wait(tun);
            for _ in 0..64 {
                let Some((hdr, len)) = self.receive(&mut frame) else { break };
                machine.copy_from_slice(&frame[6..12]);
                let head = hdr.to_bytes();
                let parts = [IoSlice::new(&head), IoSlice::new(&frame[ETHERNET..len])];
                let _ = tun.write_vectored(&parts);
            }
            for _ in 0..64 {
                let Ok(len) = tun.read(&mut packet) else { break };
                let (head, body) = packet[..len].split_first_chunk::<VNET_LEN>().unwrap();
                let mut ethernet = [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 8, 0];
                ethernet[..6].copy_from_slice(&machine);
                if body[0] >> 4 == 6 {
                    ethernet[12..].copy_from_slice(&[0x86, 0xdd]);
                }
                self.send(&VnetHdr::read(head), &ethernet, body);
            }
        }
    }

    fn wait(&self, tun: &File) {
        let wire = match self {
            Self::Card(card) => card.as_fd(),
            Self::Messages(socket) | Self::Stream(socket, _) => socket.as_fd(),
        };
        let mut fds =
            [PollFd::new(wire, PollFlags::POLLIN), PollFd::new(tun.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::from(50u8));
    }

    fn receive(&mut self, frame: &mut [u8]) -> Option<(VnetHdr, usize)> {
        loop {
            let len = match self {
                Self::Card(card) => match card.receive(frame) {
                    Ok(Some((hdr, len))) if len > ETHERNET => return Some((hdr, len)),
                    Err(_) => return None,
                    _ => continue,
                },
                Self::Messages(socket) => {
                    recv(socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).ok()?
                }
                Self::Stream(socket, unread) => next_of(socket, unread, frame)?,
            };
            if len > ETHERNET {
                return Some((VnetHdr::default(), len));
            }
        }
    }

    fn send(&mut self, hdr: &VnetHdr, head: &[u8], body: &[u8]) {
        match self {
            Self::Card(card) => {
                let _ = card.send(hdr, &[IoSlice::new(head), IoSlice::new(body)]);
            }
            Self::Messages(socket) => {
                let _ = send(socket.as_raw_fd(), &[head, body].concat(), MsgFlags::MSG_DONTWAIT);
            }
            Self::Stream(socket, _) => {
                let len = (head.len() + body.len()) as u32;
                let _ = socket.write_all(&[&len.to_be_bytes(), head, body].concat());
            }
        }
    }
}

fn next_of(socket: &File, unread: &mut Vec<u8>, frame: &mut [u8]) -> Option<usize> {
    loop {
        if let Some(prefix) = unread.first_chunk::<4>() {
            let len = u32::from_be_bytes(*prefix) as usize;
            if let Some(bytes) = unread.get(4..4 + len) {
                frame[..len].copy_from_slice(bytes);
                unread.drain(..4 + len);
                return Some(len);
            }
        }
        let n = recv(socket.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT).ok().filter(|n| *n > 0)?;
        unread.extend_from_slice(&frame[..n]);
    }
}
