//! Payloads of nodes on loopback: each has a TUN in a namespace of its own.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use gvpn_dataplane::{Nic, PortSpec};
use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab};
use gvpn_model::{MemberId, NetworkId, NodeId};
use gvpn_net::{Net, NetConfig};
use gvpn_roster::{MemberSpec, NetworkSpec, OwnerBook, Roster};
use gvpn_switch::Table;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn node(identity: Identity) -> Net {
    node_at(identity, ([127, 0, 0, 1], 0).into()).await
}

pub(crate) async fn node_at(identity: Identity, addr: SocketAddr) -> Net {
    let mut config = NetConfig::new(identity);
    config.listen = vec![addr];
    config.workers = 1;
    let end = Instant::now() + LIMIT;
    loop {
        match Net::bind(config.clone()).await {
            Ok(net) => return net,
            Err(error) if Instant::now() > end => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// A network in which node `i` has one member with the addresses [`v4`]`(i)` and [`v6`]`(i)`.
pub(crate) struct Network {
    roster: Roster,
    members: Vec<MemberId>,
}

impl Network {
    pub(crate) fn of(nodes: &[NodeId]) -> Self {
        let mut spec = NetworkSpec::new("10.77.0.0/24".parse().unwrap());
        spec.subnets.push(("fd77::/64".parse().unwrap(), None));
        let mut book = OwnerBook::create(Identity::generate(), [7; 16], spec).unwrap();
        let add = |(i, node): (usize, &NodeId)| {
            book.add_member(MemberSpec::new(*node, vec![v4(i), v6(i)])).unwrap()
        };
        let members = nodes.iter().enumerate().map(add).collect();
        Self { roster: book.roster().clone(), members }
    }

    pub(crate) fn id(&self) -> NetworkId {
        self.roster.network
    }

    /// Node `index` takes part: it knows the roster, and its payload is attached.
    pub(crate) fn join(&self, net: &Net, index: usize, payload: &Payload) {
        let table = Arc::new(Table::build(&self.roster, net.node_id()));
        net.dataplane().set_network(self.id(), table);
        net.share_network(self.id(), self.roster.nodes());
        let nic = Nic::TunVnet(payload.tun.try_clone().unwrap());
        let (network, member) = (self.id(), self.members[index]);
        net.dataplane().attach(PortSpec { network, member, nic }).unwrap();
    }
}

pub(crate) fn v4(index: usize) -> IpAddr {
    format!("10.77.0.{}", index + 2).parse().unwrap()
}

pub(crate) fn v6(index: usize) -> IpAddr {
    format!("fd77::{}", index + 2).parse().unwrap()
}

/// A namespace with a TUN.
pub(crate) struct Payload {
    pub(crate) host: Host,
    tun: OwnedFd,
    index: usize,
}

impl Payload {
    pub(crate) fn new(lab: &Lab, index: usize) -> Self {
        let host = lab.host("payload").unwrap();
        let tun = host.enter(open_tun).unwrap();
        let (four, six) = (format!("{}/24", v4(index)), format!("{}/64", v6(index)));
        host.ip(["addr", "add", &four, "dev", "tun0"]).unwrap();
        host.ip(["addr", "add", &six, "dev", "tun0", "nodad"]).unwrap();
        host.ip(["link", "set", "tun0", "mtu", "1280", "up"]).unwrap();
        host.settle("tun0").unwrap();
        Self { host, tun, index }
    }

    /// A UDP socket in the namespace.
    pub(crate) fn udp(&self) -> UdpSocket {
        let addr = SocketAddr::new(v4(self.index), 7000);
        let end = Instant::now() + LIMIT;
        loop {
            match self.host.enter(|| UdpSocket::bind(addr)).unwrap() {
                // A program that is being started holds what was closed here until it runs.
                Err(e) if e.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                bound => return bound.unwrap(),
            }
        }
    }

    /// Sends `bytes` over TCP to the other payload and returns what arrived there.
    pub(crate) fn send_tcp(&self, to: &Self, bytes: &[u8], six: bool) -> Vec<u8> {
        let ip = if six { v6(to.index) } else { v4(to.index) };
        let listener = to.host.enter(|| TcpListener::bind((ip, 0))).unwrap().unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::scope(|scope| {
            let receiver = scope.spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                stream.write_all(b"!").unwrap();
                got
            });
            let connect = || TcpStream::connect_timeout(&addr, LIMIT);
            let mut stream = self.host.enter(connect).unwrap().unwrap();
            stream.write_all(bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            // Of a socket that nobody holds any more Linux gives up the rest early on a bad line.
            stream.read_exact(&mut [0]).unwrap();
            receiver.join().unwrap()
        })
    }

    /// Sends a datagram to the other payload until it arrives; how long that took.
    pub(crate) fn reaches(&self, to: &Self) -> Duration {
        let (from, at) = (self.udp(), to.udp());
        at.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let start = Instant::now();
        let mut buffer = [0; 64];
        while start.elapsed() < LIMIT {
            // A payload whose peer is gone may be told so.
            let _ = from.send_to(b"there?", (v4(to.index), 7000));
            if at.recv_from(&mut buffer).is_ok() {
                return start.elapsed();
            }
        }
        panic!("nothing arrives");
    }
}

fn open_tun() -> OwnedFd {
    // SAFETY: a path and flags; the result is checked.
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    assert!(fd >= 0, "/dev/net/tun: {}", std::io::Error::last_os_error());
    // SAFETY: a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"tun0") {
        *to = *from as libc::c_char;
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), 0x4004_54ca, &raw mut request) };
    assert!(done == 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    fd
}
