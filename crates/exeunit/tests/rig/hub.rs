//! A hub of TUN devices: forwards IP packets by their destination address, super-packets included.

use std::{
    collections::HashMap,
    fs::File,
    io::{Read, Write},
    net::IpAddr,
    os::fd::AsFd,
    sync::{Arc, Mutex},
    thread,
};

use gvpn_model::{MemberId, NetworkId};
use gvpn_vnic::{Nic, NicKind};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};

const HEADER: usize = 10;

/// All networks of a test.
#[derive(Clone, Default)]
pub struct Hub {
    ports: Arc<Mutex<HashMap<(NetworkId, MemberId), Port>>>,
}

struct Port {
    file: Arc<File>,
    /// Learnt from the packets it sends.
    addresses: Vec<IpAddr>,
    stop: Arc<EventFd>,
}

impl Drop for Port {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
    }
}

impl Hub {
    pub fn attach(&self, network: NetworkId, member: MemberId, nic: Nic) {
        assert_eq!(nic.kind, NicKind::TunVnet);
        let file = Arc::new(File::from(nic.fd));
        let stop = Arc::new(EventFd::new().unwrap());
        let port = Port { file: file.clone(), addresses: vec![], stop: stop.clone() };
        self.ports.lock().unwrap().insert((network, member), port);
        let queues = nic.queues.into_iter().map(|fd| Arc::new(File::from(fd)));
        for file in std::iter::once(file).chain(queues) {
            let (hub, stop) = (self.clone(), stop.clone());
            thread::spawn(move || hub.forward(network, member, &file, &stop));
        }
    }

    pub fn detach(&self, network: NetworkId, member: MemberId) {
        self.ports.lock().unwrap().remove(&(network, member));
    }

    pub fn is_attached(&self, network: NetworkId, member: MemberId) -> bool {
        self.ports.lock().unwrap().contains_key(&(network, member))
    }

    fn forward(&self, network: NetworkId, member: MemberId, file: &File, stop: &EventFd) {
        let mut packet = vec![0; 70_000];
        loop {
            let mut fds = [
                PollFd::new(file.as_fd(), PollFlags::POLLIN),
                PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            ];
            poll(&mut fds, PollTimeout::NONE).unwrap();
            let gone =
                fds[0].revents().unwrap().intersects(PollFlags::POLLERR | PollFlags::POLLHUP);
            if gone || fds[1].any() == Some(true) {
                return;
            }
            let Ok(length) = (&mut &*file).read(&mut packet) else { continue };
            self.deliver(network, member, &packet[..length]);
        }
    }

    fn deliver(&self, network: NetworkId, from: MemberId, packet: &[u8]) {
        let Some((source, destination)) = addresses(&packet[HEADER..]) else { return };
        let mut ports = self.ports.lock().unwrap();
        if let Some(port) = ports.get_mut(&(network, from)) {
            port.addresses.retain(|a| *a != source);
            port.addresses.push(source);
        }
        let known = ports
            .iter()
            .any(|((of, _), port)| *of == network && port.addresses.contains(&destination));
        let others = ports.iter().filter(|((of, member), _)| *of == network && *member != from);
        for (_, port) in others {
            // A destination that nobody has sent from yet may be anyone.
            if !known || port.addresses.contains(&destination) {
                let _ = (&mut &*port.file).write(packet);
            }
        }
    }
}

fn addresses(ip: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| -> Option<IpAddr> {
        Some(<[u8; 4]>::try_from(ip.get(at..at + 4)?).ok()?.into())
    };
    let v6 = |at: usize| -> Option<IpAddr> {
        Some(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?.into())
    };
    match ip.first()? >> 4 {
        4 => Some((v4(12)?, v4(16)?)),
        6 => Some((v6(8)?, v6(24)?)),
        _ => None,
    }
}
