//! Two or more nodes on loopback, each with vNICs in namespaces of their own.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(unreachable_pub, missing_docs, reason = "seen by one test binary only")]
#![allow(clippy::undocumented_unsafe_blocks, reason = "system calls on live locals")]

use std::{
    io::{Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use gvpn_dataplane::{
    Config, DataPlane, DatagramReceiver, Event, Hop, LaneSpec, Nic, Offloads, PortId, PortSpec,
    Route,
};
use gvpn_identity::Identity;
use gvpn_lab::{Host, Lab};
use gvpn_model::{MemberId, NetworkId, NodeId};
use gvpn_roster::{MemberSpec, NetworkSpec, OwnerBook, Roster};
use gvpn_session::{LaneKeys, Suite};
use gvpn_switch::Table;
use tokio::sync::mpsc;

pub const LIMIT: Duration = Duration::from_secs(20);
pub const LOCAL: &str = "127.0.0.1:0";

/// A node: an identity and a running data plane.
pub struct Node {
    pub id: NodeId,
    pub plane: DataPlane,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub datagrams: DatagramReceiver,
}

impl Node {
    pub fn start(offloads: Offloads) -> Self {
        Self::with_id(Identity::generate().node_id(), offloads)
    }

    pub fn with_id(id: NodeId, offloads: Offloads) -> Self {
        let config = Config { listen: vec![LOCAL.parse().unwrap()], workers: 2, offloads };
        let (plane, events, datagrams) = DataPlane::start(config).unwrap();
        Self { id, plane, events, datagrams }
    }

    pub fn addr(&self) -> SocketAddr {
        self.plane.local_addrs()[0]
    }

    pub fn attach(&self, network: NetworkId, member: MemberId, nic: Nic) -> PortId {
        self.plane.attach(PortSpec { network, member, nic }).unwrap()
    }

    /// Drops by reason that are not in `allowed`.
    pub fn drops_except(&self, allowed: &[&str]) -> Vec<(&'static str, u64)> {
        let mut drops = self.plane.stats().drops;
        drops.retain(|(name, _)| !allowed.contains(name));
        drops
    }

    pub fn dropped(&self, reason: &str) -> u64 {
        let drops = self.plane.stats().drops;
        drops.iter().find(|(name, _)| *name == reason).map_or(0, |(_, n)| *n)
    }

    pub fn wait_event(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            match self.events.try_recv() {
                Ok(event) if wanted(&event) => return event,
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
        panic!("no event: {what}");
    }
}

/// A network whose members are named by node, with addresses 10.77.0.2, .3, ... and fd77::2, ...
pub struct Net {
    pub roster: Roster,
    pub members: Vec<MemberId>,
}

pub fn network(owner: &Identity, nodes: &[NodeId]) -> Net {
    let mut spec = NetworkSpec::new("10.77.0.0/24".parse().unwrap());
    spec.subnets.push(("fd77::/64".parse().unwrap(), None));
    let mut book = OwnerBook::create(owner.clone(), [7; 16], spec).unwrap();
    let members = nodes
        .iter()
        .enumerate()
        .map(|(i, node)| {
            let ips = vec![v4(i), v6(i)];
            book.add_member(MemberSpec::new(*node, ips)).unwrap()
        })
        .collect();
    Net { roster: book.roster().clone(), members }
}

pub fn v4(index: usize) -> IpAddr {
    format!("10.77.0.{}", index + 2).parse().unwrap()
}

pub fn v6(index: usize) -> IpAddr {
    format!("fd77::{}", index + 2).parse().unwrap()
}

impl Net {
    pub fn id(&self) -> NetworkId {
        self.roster.network
    }

    pub fn table(&self, me: NodeId) -> Arc<Table> {
        Arc::new(Table::build(&self.roster, me))
    }
}

/// How a host's vNIC is made: with super-packets and several queues, or with neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Vnet,
    Plain,
}

/// The queues of a host's TUN that has member `index`'s addresses.
pub fn tun_queues(host: &Host, index: usize) -> Vec<OwnedFd> {
    match tun(host, index, Kind::Vnet, 1400) {
        Nic::TunQueues(fds) => fds,
        other => panic!("{other:?}"),
    }
}

/// A host with a TUN that has member `index`'s addresses.
pub fn tun(host: &Host, index: usize, kind: Kind, mtu: u16) -> Nic {
    let mut fds = host.enter(|| open_tun(kind)).unwrap();
    let mtu = mtu.to_string();
    host.ip(["addr", "add", &format!("{}/24", v4(index)), "dev", "tun0"]).unwrap();
    host.ip(["addr", "add", &format!("{}/64", v6(index)), "dev", "tun0", "nodad"]).unwrap();
    host.ip(["link", "set", "tun0", "mtu", &mtu, "gso_max_size", "60000", "up"]).unwrap();
    host.settle("tun0").unwrap();
    match kind {
        Kind::Vnet => Nic::TunQueues(fds),
        Kind::Plain => Nic::Tun(fds.remove(0)),
    }
}

/// Opens a TUN once for each of its queues.
pub fn open_tun(kind: Kind) -> Vec<OwnedFd> {
    if kind == Kind::Plain {
        return vec![open("tun0", libc::IFF_TUN)];
    }
    let flags = libc::IFF_TUN | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
    let fds: Vec<_> = (0..gvpn_dataplane::MAX_QUEUES).map(|_| open("tun0", flags)).collect();
    // Checksum, TSO for both families with ECN, USO for both families.
    let offloads = 0x01 | 0x02 | 0x04 | 0x08 | 0x20 | 0x40;
    let set = unsafe { libc::ioctl(fds[0].as_raw_fd(), libc::TUNSETOFFLOAD as _, offloads) };
    assert!(set >= 0, "TUNSETOFFLOAD: {}", std::io::Error::last_os_error());
    fds
}

fn open(name: &str, flags: libc::c_int) -> OwnedFd {
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    assert!(fd >= 0, "cannot open /dev/net/tun: {}", std::io::Error::last_os_error());
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (flags | libc::IFF_NO_PI) as i16;
    let made = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    assert!(made >= 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
    fd
}

/// Opens a TAP with member `index`'s addresses in a host, and carries its frames over a socket
/// whose other end is returned, in the framing of `kind`.
pub fn ethernet(host: &Host, index: usize, kind: &str) -> Nic {
    let tap = host.enter(open_tap).unwrap();
    host.ip(["addr", "add", &format!("{}/24", v4(index)), "dev", "tap0"]).unwrap();
    host.ip(["addr", "add", &format!("{}/64", v6(index)), "dev", "tap0", "nodad"]).unwrap();
    host.ip(["link", "set", "tap0", "mtu", "1400", "up"]).unwrap();
    host.settle("tap0").unwrap();
    let tap = Arc::new(std::fs::File::from(tap));
    match kind {
        "dgram" => {
            let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
            let (theirs, tap2) = (Arc::new(theirs), Arc::clone(&tap));
            let theirs2 = Arc::clone(&theirs);
            std::thread::spawn(move || carry(|b| (&*tap).read(b), |b| theirs.send(b).map(drop)));
            std::thread::spawn(move || carry(|b| theirs2.recv(b), |b| (&*tap2).write_all(b)));
            Nic::Dgram(ours.into())
        }
        stream => {
            let wide = stream == "stream";
            let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
            let (theirs, tap2) = (Arc::new(theirs), Arc::clone(&tap));
            let theirs2 = Arc::clone(&theirs);
            let prefix = move |len: usize| match wide {
                true => (len as u32).to_be_bytes().to_vec(),
                false => (len as u16).to_ne_bytes().to_vec(),
            };
            std::thread::spawn(move || {
                carry(
                    |b| (&*tap).read(b),
                    |b| (&*theirs).write_all(&[prefix(b.len()), b.to_vec()].concat()),
                );
            });
            std::thread::spawn(move || {
                let read = |b: &mut [u8]| {
                    let mut prefix = [0; 4];
                    (&*theirs2).read_exact(&mut prefix[..if wide { 4 } else { 2 }])?;
                    let len = match wide {
                        true => u32::from_be_bytes(prefix) as usize,
                        false => usize::from(u16::from_ne_bytes([prefix[0], prefix[1]])),
                    };
                    (&*theirs2).read_exact(&mut b[..len]).map(|()| len)
                };
                carry(read, |b| (&*tap2).write_all(b));
            });
            if wide { Nic::Stream(ours.into()) } else { Nic::Stream2(ours.into()) }
        }
    }
}

fn carry(
    mut read: impl FnMut(&mut [u8]) -> std::io::Result<usize>,
    mut write: impl FnMut(&[u8]) -> std::io::Result<()>,
) {
    let mut buffer = vec![0; 70_000];
    while let Ok(len) = read(&mut buffer) {
        if len == 0 || write(&buffer[..len]).is_err() {
            return;
        }
    }
}

fn open_tap() -> OwnedFd {
    open("tap0", libc::IFF_TAP)
}

/// Keys of both ends of a lane that differ with `seed`.
pub fn keys(seed: u8, suite: Suite) -> (LaneKeys, LaneKeys) {
    let mut output = [seed; 64];
    output[32..].fill(!seed);
    (LaneKeys::from_exporter(suite, &output, true), LaneKeys::from_exporter(suite, &output, false))
}

/// Adds and activates a lane between two nodes; indices follow from `seed`.
pub fn lane(a: &Node, b: &Node, network: Option<NetworkId>, seed: u8) {
    lane_of(a, b, network, seed, Suite::Aes256Gcm);
}

pub fn lane_of(a: &Node, b: &Node, network: Option<NetworkId>, seed: u8, suite: Suite) {
    let (ka, kb) = keys(seed, suite);
    let (ia, ib) = (1000 + u32::from(seed), 2000 + u32::from(seed));
    a.plane.add_lane(LaneSpec { peer: b.id, network, keys: ka, local_index: ia, remote_index: ib });
    b.plane.add_lane(LaneSpec { peer: a.id, network, keys: kb, local_index: ib, remote_index: ia });
    a.plane.activate_lane(ia);
    b.plane.activate_lane(ib);
}

pub fn routes(a: &Node, b: &Node, mtu: u16) {
    a.plane.set_route(b.id, Some(Route { hop: Hop::Direct(b.addr()), mtu }));
    b.plane.set_route(a.id, Some(Route { hop: Hop::Direct(a.addr()), mtu }));
}

/// Two nodes with one member each, connected.
pub struct Pair {
    pub lab: Lab,
    pub net: Net,
    pub a: Node,
    pub b: Node,
    pub host_a: Host,
    pub host_b: Host,
}

impl Pair {
    pub fn new(offloads: Offloads, kind: Kind, path_mtu: u16) -> Self {
        let pair = Self::without_lane(offloads, kind, path_mtu);
        lane(&pair.a, &pair.b, Some(pair.net.id()), 1);
        pair
    }

    pub fn without_lane(offloads: Offloads, kind: Kind, path_mtu: u16) -> Self {
        let lab = Lab::new().unwrap();
        let (a, b) = (Node::start(offloads), Node::start(offloads));
        let net = network(&Identity::generate(), &[a.id, b.id]);
        let (host_a, host_b) = (lab.host("a").unwrap(), lab.host("b").unwrap());
        for (index, (node, host)) in [(&a, &host_a), (&b, &host_b)].into_iter().enumerate() {
            node.plane.set_network(net.id(), net.table(node.id));
            node.attach(net.id(), net.members[index], tun(host, index, kind, 1400));
        }
        routes(&a, &b, path_mtu);
        Self { lab, net, a, b, host_a, host_b }
    }
}

/// Pings from a host; panics with ping's output unless every packet came back.
pub fn ping(host: &Host, to: IpAddr, extra: &[&str]) {
    let to = to.to_string();
    let args = [&["-c", "3", "-i", "0.05", "-W", "10"], extra, &[&to]].concat();
    host.run("ping", args).unwrap_or_else(|error| panic!("ping {to}: {error}"));
}

/// Sends `len` bytes over TCP from one host to another, both ways at once, and checks them.
pub fn transfer(from: &Host, to: &Host, to_ip: IpAddr, len: usize) {
    let listener = to.enter(|| TcpListener::bind((to_ip, 0)).unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            exchange(stream, len, 1);
        });
        let stream = from.enter(|| TcpStream::connect_timeout(&addr, LIMIT).unwrap()).unwrap();
        exchange(stream, len, 2);
    })
}

fn exchange(stream: TcpStream, len: usize, seed: u8) {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let byte = |i: usize, seed: u8| (i.wrapping_mul(31) >> 3) as u8 ^ (i >> 11) as u8 ^ seed;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let chunk = 256 * 1024;
            for start in (0..len).step_by(chunk) {
                let end = len.min(start + chunk);
                let bytes: Vec<u8> = (start..end).map(|i| byte(i, seed)).collect();
                writer.write_all(&bytes).unwrap();
            }
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let (mut reader, mut at) = (&stream, 0);
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let n = reader.read(&mut buffer).unwrap();
            if n == 0 {
                break;
            }
            for (i, got) in buffer[..n].iter().enumerate() {
                assert_eq!(*got, byte(at + i, 3 - seed), "byte {}", at + i);
            }
            at += n;
        }
        assert_eq!(at, len);
    });
}
