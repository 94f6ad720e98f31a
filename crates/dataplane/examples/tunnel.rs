//! One end of a data plane with fixed keys, for profiling where the control plane does not matter:
//! run it in two network namespaces, `--end 0` and `--end 1`, and send something from 10.99.0.2 to
//! 10.99.0.3.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use gvpn_dataplane::{Config, DataPlane, Hop, LaneSpec, Nic, Offloads, PortSpec, Route};
use gvpn_identity::Identity;
use gvpn_roster::{MemberSpec, NetworkSpec, OwnerBook};
use gvpn_session::{LaneKeys, Suite};
use gvpn_switch::Table;

use clap::Parser;

/// How one end is set up.
#[derive(Debug, Parser)]
struct Options {
    /// 0 or 1: which of the two ends.
    #[arg(long)]
    end: u8,
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// The other end.
    #[arg(long)]
    peer: SocketAddr,
    /// Threads.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// The vNIC's MTU.
    #[arg(long, default_value_t = 1400)]
    mtu: u16,
    /// ChaCha20-Poly1305 instead of AES-256-GCM.
    #[arg(long)]
    chacha: bool,
    /// A packet at a time.
    #[arg(long)]
    no_offloads: bool,
    /// Packets that the vNIC queues.
    #[arg(long, default_value_t = 1000)]
    queue: u32,
    /// Queues of the vNIC.
    #[arg(long, default_value_t = gvpn_dataplane::MAX_QUEUES)]
    queues: usize,
    /// Print counters every second.
    #[arg(long)]
    verbose: bool,
}

fn main() -> io::Result<()> {
    let options = Options::parse();
    let ids = [1u8, 2]
        .map(|seed| Identity::from_secret(&[seed; 32]).expect("small numbers are secret keys"));
    let spec = NetworkSpec::new("10.99.0.0/24".parse().expect("a prefix"));
    let mut book = OwnerBook::create(ids[0].clone(), [1; 16], spec).map_err(io::Error::other)?;
    let members: Vec<_> = ids
        .iter()
        .zip(2..)
        .map(|(id, host)| {
            let ip = std::net::Ipv4Addr::new(10, 99, 0, host).into();
            book.add_member(MemberSpec::new(id.node_id(), vec![ip])).map_err(io::Error::other)
        })
        .collect::<Result<_, _>>()?;
    let me = usize::from(options.end.min(1));
    let (my_id, peer) = (ids[me].node_id(), ids[1 - me].node_id());
    let offloads = if options.no_offloads { Offloads::NONE } else { Offloads::ALL };
    let config = Config { listen: vec![options.listen], workers: options.workers, offloads };
    let (plane, mut events, _datagrams) = DataPlane::start(config).map_err(io::Error::other)?;
    let network = book.network();
    plane.set_network(network, Arc::new(Table::build(book.roster(), my_id)));
    let vnet = !options.no_offloads;
    let queues = if vnet { options.queues } else { 1 };
    let mut fds: Vec<_> =
        (0..queues).map(|_| open_tun("tun0", vnet, queues > 1)).collect::<Result<_, _>>()?;
    ip(&format!("addr add 10.99.0.{}/24 dev tun0", me + 2))?;
    let Options { mtu, queue, .. } = options;
    ip(&format!("link set tun0 mtu {mtu} txqueuelen {queue} gso_max_size 60000 up"))?;
    let nic = if vnet { Nic::TunQueues(fds) } else { Nic::Tun(fds.remove(0)) };
    plane.attach(PortSpec { network, member: members[me], nic }).map_err(io::Error::other)?;
    let suite = if options.chacha { Suite::ChaCha20Poly1305 } else { Suite::Aes256Gcm };
    let keys = LaneKeys::from_exporter(suite, &[5; 64], me == 0);
    let (local_index, remote_index) = (me as u32 + 1, 2 - me as u32);
    plane.set_route(peer, Some(Route { hop: Hop::Direct(options.peer), mtu: 1472 }));
    plane.add_lane(LaneSpec { peer, network: Some(network), keys, local_index, remote_index });
    plane.activate_lane(local_index);
    loop {
        std::thread::sleep(Duration::from_secs(1));
        while events.try_recv().is_ok() {}
        if options.verbose {
            let stats = plane.stats();
            eprintln!("{:?} {:?}", stats.ports, stats.drops);
        }
    }
}

/// Opens (and makes) a TUN in the current network namespace, with all offloads if `vnet`, as one of
/// several queues if `more`.
fn open_tun(name: &str, vnet: bool, more: bool) -> io::Result<OwnedFd> {
    // SAFETY: a constant path and flags.
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(room)) {
        *to = from as libc::c_char;
    }
    let vnet_flag = if vnet { libc::IFF_VNET_HDR } else { 0 };
    let queues_flag = if more { libc::IFF_MULTI_QUEUE } else { 0 };
    request.ifr_ifru.ifru_flags =
        (libc::IFF_TUN | libc::IFF_NO_PI | vnet_flag | queues_flag) as i16;
    // SAFETY: TUNSETIFF reads and writes the ifreq that it is given.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if vnet {
        // Checksum, TSO for both families with ECN, and USO for both families where there is.
        let tso = 0x01 | 0x02 | 0x04 | 0x08;
        for offloads in [tso | 0x20 | 0x40, tso] {
            // SAFETY: TUNSETOFFLOAD takes an integer.
            if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETOFFLOAD as _, offloads) } >= 0 {
                break;
            }
        }
    }
    Ok(fd)
}

/// Runs `ip` with these arguments in the current namespace.
fn ip(args: &str) -> io::Result<()> {
    let status = std::process::Command::new("ip").args(args.split_whitespace()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("`ip {args}` failed"))) }
}
