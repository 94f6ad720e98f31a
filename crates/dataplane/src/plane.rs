//! The handle of a running data plane.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::JoinHandle,
};

use gvpn_model::{MemberId, NetworkId, NodeId};
use gvpn_path::{Hop, carrier_addr, carrier_id, socket_addr};
use gvpn_session::{HEADER_LEN, OVERHEAD, write_header};
use gvpn_switch::Table;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    AttachError, Capture, CaptureSpec, Carrier, Config, Datagram, DatagramReceiver, Event,
    Forwarder, LaneSpec, Nic, Offloads, PeerActivity, PortId, PortSpec, Route, SendError,
    StartError, Stats,
    control::{Control, lane_stats},
    core::{Core, WorkerState},
    counters::Counters,
    message::{RELAY_HEADER, write_relay_header},
    poll::Poll,
    port::Owner,
    udp::{MAX_SEGMENTS, Share, UdpSocket},
    worker::Worker,
};

const MAX_WORKERS: usize = 4;

/// Datagrams for the QUIC lane that may wait.
const DATAGRAM_QUEUE: usize = 512;

/// A running data plane. Clones share it; when the last one is dropped its threads end and its
/// sockets and vNICs are closed. Every call is cheap and may come from any thread.
#[derive(Debug, Clone)]
pub struct DataPlane {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    core: Arc<Core>,
    control: Mutex<Control>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    next_socket: AtomicUsize,
}

impl DataPlane {
    /// Opens the sockets and starts the threads.
    ///
    /// # Errors
    /// [`StartError`] if an address cannot be listened on or a thread cannot be started.
    pub fn start(
        config: Config,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Event>, DatagramReceiver), StartError> {
        if config.listen.is_empty() {
            return Err(StartError::NoAddress);
        }
        let (events, event_queue) = mpsc::unbounded_channel();
        let (datagrams, queue) = mpsc::channel(DATAGRAM_QUEUE);
        let workers = open_workers(&config)?;
        let core = Core::new(workers, config.offloads.coalesce, events, datagrams);
        let shared = Shared {
            core: Arc::new(core),
            control: Mutex::default(),
            threads: Mutex::default(),
            next_socket: AtomicUsize::new(0),
        };
        for index in 0..shared.core.workers.len() {
            let core = Arc::clone(&shared.core);
            let thread = std::thread::Builder::new()
                .name(format!("gvpn-data-{index}"))
                .spawn(move || run_worker(&core, index))
                .map_err(StartError::Thread)?;
            shared.threads.lock().push(thread);
        }
        Ok((Self { shared: Arc::new(shared) }, event_queue, DatagramReceiver { queue }))
    }

    /// The addresses listened on, in the order of [`Config::listen`].
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.shared.core.workers[0].sockets.iter().map(UdpSocket::local_addr).collect()
    }

    /// Adds a lane: what the peer seals with it is opened from now on.
    pub fn add_lane(&self, lane: LaneSpec) {
        self.shared.control.lock().add_lane(&self.shared.core, &lane);
    }

    /// From now on this is the lane that seals for its peer and network. Older lanes go on opening
    /// until they are removed.
    pub fn activate_lane(&self, local_index: u32) {
        self.shared.control.lock().activate_lane(&self.shared.core, local_index);
    }

    /// Forgets a lane and its keys.
    pub fn remove_lane(&self, local_index: u32) {
        self.shared.control.lock().remove_lane(&self.shared.core, local_index);
    }

    /// Sets where a peer's datagrams go; `None` when no way is known.
    pub fn set_route(&self, peer: NodeId, route: Option<Route>) {
        self.shared.control.lock().set_route(&self.shared.core, peer, route);
    }

    /// Sets a network's forwarding table, new or changed.
    pub fn set_network(&self, network: NetworkId, table: Arc<Table>) {
        self.shared.control.lock().set_network(network, table);
    }

    /// Forgets a network. Its ports stay attached and carry nothing.
    pub fn remove_network(&self, network: NetworkId) {
        self.shared.control.lock().remove_network(network);
    }

    /// Attaches a member's vNIC.
    ///
    /// # Errors
    /// [`AttachError`] if the member has one, or the descriptor is not a vNIC of that kind.
    pub fn attach(&self, port: PortSpec) -> Result<PortId, AttachError> {
        let owner = Owner::Member(port.member);
        self.shared.control.lock().attach(&self.shared.core, port.network, owner, port.nic)
    }

    /// Attaches a vNIC that stands for one pair of addresses: packets from `remote` to `local`
    /// go to it instead of the member's own vNIC, and it may send from `local` to `remote`.
    ///
    /// # Errors
    /// [`AttachError`] if the descriptor is not a vNIC of that kind.
    pub fn attach_pair(
        &self,
        network: NetworkId,
        local: IpAddr,
        remote: IpAddr,
        nic: Nic,
    ) -> Result<PortId, AttachError> {
        let owner = Owner::Pair { local, remote };
        self.shared.control.lock().attach(&self.shared.core, network, owner, nic)
    }

    /// Detaches a port and closes its descriptor.
    pub fn detach(&self, port: PortId) {
        self.shared.control.lock().detach(&self.shared.core, port);
    }

    /// Asks every payload which multicast groups it listens to, and forgets those that none has
    /// confirmed for long. To be called every two minutes.
    pub fn refresh_groups(&self) {
        let (_, now) = self.shared.core.now();
        self.shared.control.lock().refresh_groups(now);
    }

    /// Says how fast this node's line is: what members send to other nodes then waits here, and each
    /// gets the same share. Zero where that is not known.
    pub fn set_uplink(&self, bits_per_second: u64) {
        self.shared.core.uplink.set(bits_per_second);
    }

    /// Gives a packet of the switch's own to a member's vNIC; lost if it has none, or that is full.
    pub fn give(&self, network: NetworkId, member: MemberId, packet: &[u8]) {
        self.shared.control.lock().give(network, member, packet);
    }

    /// Captures a network's packets on this node until the returned value is dropped.
    pub fn capture(&self, network: NetworkId, spec: CaptureSpec) -> Capture {
        self.shared.control.lock().capture(network, spec)
    }

    /// Sends a datagram of the QUIC lane.
    ///
    /// # Errors
    /// `WouldBlock` when the socket is full, or what the system said.
    pub fn send_datagram(&self, datagram: &Datagram<'_>) -> io::Result<()> {
        let to = datagram.hop.wire_addr();
        let size = datagram.segment_size.unwrap_or(datagram.contents.len()).max(1);
        if carrier_id(to).is_some() {
            return self.carry_datagram(to, datagram, size);
        }
        let socket = self.shared.socket(to).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let Hop::Relay { session, .. } = datagram.hop else {
            return datagram
                .contents
                .chunks(size.saturating_mul(MAX_SEGMENTS))
                .try_for_each(|chunk| socket.send(to, chunk, size, datagram.ecn));
        };
        datagram.contents.chunks(size).try_for_each(|chunk| {
            let wrapped = wrap(session, chunk);
            socket.send(to, &wrapped, wrapped.len(), datagram.ecn)
        })
    }

    fn carry_datagram(
        &self,
        to: SocketAddr,
        datagram: &Datagram<'_>,
        size: usize,
    ) -> io::Result<()> {
        let core = &self.shared.core;
        let (_, nanos) = core.now();
        let cx = (&core.workers[0].counters, nanos);
        datagram.contents.chunks(size).try_for_each(|chunk| {
            let Hop::Relay { session, .. } = datagram.hop else {
                return core.carriers.send(cx, to, chunk, chunk.len());
            };
            let wrapped = wrap(session, chunk);
            core.carriers.send(cx, to, &wrapped, wrapped.len())
        })
    }

    /// Opens a carrier: a way for datagrams that is not a UDP socket.
    pub fn open_carrier(&self) -> Carrier {
        // The number cannot be guessed, so that nobody can name another's carrier as an address.
        let id = rand::random();
        Carrier::open(&self.shared.core, id, carrier_addr(id))
    }

    /// Opens a carrier that stands for a UDP socket of its holder's, which was opened to reach one peer.
    pub fn open_socket(&self) -> Carrier {
        let id = rand::random();
        Carrier::open(&self.shared.core, id, socket_addr(id))
    }

    /// Seals a control message on the peer lane and sends it on one hop.
    ///
    /// # Errors
    /// [`SendError`] if there is no active peer lane or the system refused.
    pub fn send_probe(&self, peer: NodeId, hop: Hop, plaintext: &[u8]) -> Result<(), SendError> {
        let lane = self.shared.control.lock().probe_lane(peer).ok_or(SendError::NoLane(peer))?;
        let counter = lane.sealer.reserve(1).ok_or(SendError::NoLane(peer))?;
        let mut message = vec![0; plaintext.len() + OVERHEAD];
        if let Some(head) = message.first_chunk_mut() {
            write_header(head, lane.remote_index, counter);
        }
        message[HEADER_LEN..HEADER_LEN + plaintext.len()].copy_from_slice(plaintext);
        lane.sealer.seal_in_place(counter, &mut message);
        lane.bytes_sent.fetch_add(message.len() as u64, Relaxed);
        let contents = &message[..];
        self.send_datagram(&Datagram { hop, contents, segment_size: None, ecn: 0 })?;
        Ok(())
    }

    /// What a relay forwards.
    pub fn forwarder(&self) -> &Forwarder {
        &self.shared.core.forward
    }

    /// When a peer was last sent to and heard from.
    pub fn activity(&self, peer: NodeId) -> PeerActivity {
        let control = self.shared.control.lock();
        let start = self.shared.core.start;
        control.known_peer(peer).map(|peer| peer.activity(start)).unwrap_or_default()
    }

    /// All counters.
    pub fn stats(&self) -> Stats {
        let core = &self.shared.core;
        let mut control = self.shared.control.lock();
        control.forget_closed(core);
        let mut drops = BTreeMap::new();
        core.workers.iter().for_each(|worker| worker.counters.collect(&mut drops));
        match control.refused_groups() {
            0 => {}
            refused => drop(drops.insert("group_refused", refused)),
        }
        Stats {
            workers: core.workers.len(),
            offloads: core.offloads(),
            marked: core.workers.iter().map(|worker| worker.counters.marked.load(Relaxed)).sum(),
            ports: control.port_stats(),
            lanes: lane_stats(core),
            networks: control.network_stats(),
            drops: drops.into_iter().collect(),
        }
    }
}

impl Shared {
    /// A socket of the right family; callers take turns among the threads' sockets.
    fn socket(&self, to: SocketAddr) -> Option<&UdpSocket> {
        let workers = &self.core.workers;
        let worker = &workers[self.next_socket.fetch_add(1, Relaxed) % workers.len()];
        worker.sockets.iter().find(|socket| socket.local_addr().is_ipv4() == to.is_ipv4())
    }
}

impl std::ops::Drop for Shared {
    fn drop(&mut self) {
        self.core.stop.store(true, Relaxed);
        self.core.workers.iter().for_each(|worker| worker.poll.wake());
        let me = std::thread::current().id();
        for thread in self.threads.lock().drain(..) {
            if thread.thread().id() != me && thread.join().is_err() {
                tracing::error!("a data-plane thread panicked");
            }
        }
        self.control.lock().clear(&self.core);
    }
}

impl Core {
    fn offloads(&self) -> Offloads {
        let all = |uses: fn(&UdpSocket) -> bool| {
            self.workers.iter().flat_map(|worker| &worker.sockets).all(uses)
        };
        Offloads {
            udp_gso: all(UdpSocket::uses_gso),
            udp_gro: all(UdpSocket::uses_gro),
            coalesce: self.coalesce,
        }
    }
}

/// A datagram with a relay's header.
fn wrap(session: u32, datagram: &[u8]) -> Vec<u8> {
    let mut wrapped = vec![0; RELAY_HEADER + datagram.len()];
    write_relay_header(&mut wrapped, session);
    wrapped[RELAY_HEADER..].copy_from_slice(datagram);
    wrapped
}

/// Runs a thread until the data plane stops. A panic, which would be a mistake of ours, costs what
/// the thread had in hand and no more.
fn run_worker(core: &Arc<Core>, index: usize) {
    while !core.stop.load(Relaxed) {
        let worker = Worker::new(Arc::clone(core), index);
        match catch_unwind(AssertUnwindSafe(|| worker.run())) {
            Ok(()) => return,
            Err(_) => tracing::error!(index, "a data-plane thread panicked and is started again"),
        }
    }
}

/// Opens the sockets of all threads.
fn open_workers(config: &Config) -> Result<Vec<WorkerState>, StartError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let count = match config.workers {
        0 => cores.min(MAX_WORKERS),
        n => n,
    };
    let first = open_worker(&config.listen, config, Share::Later)?;
    let addrs: Vec<_> = first.sockets.iter().map(UdpSocket::local_addr).collect();
    let mut workers = vec![first];
    for _ in 1..count {
        workers.push(open_worker(&addrs, config, Share::Now)?);
    }
    Ok(workers)
}

fn open_worker(
    addrs: &[SocketAddr],
    config: &Config,
    share: Share,
) -> Result<WorkerState, StartError> {
    let poll = Arc::new(Poll::new().map_err(StartError::Thread)?);
    let mut sockets: Vec<UdpSocket> = Vec::new();
    for &wanted in addrs {
        let Offloads { udp_gso, udp_gro, .. } = config.offloads;
        let bind = |addr| UdpSocket::bind(addr, share, udp_gso, udp_gro);
        let mut addr = wanted;
        if let (0, Some(other)) = (wanted.port(), sockets.first()) {
            addr.set_port(other.local_addr().port());
        }
        let socket = match bind(addr) {
            Err(_) if addr != wanted => bind(wanted),
            other => other,
        };
        let socket = socket.map_err(|source| StartError::Bind { addr: wanted, source })?;
        poll.add_socket(socket.raw(), sockets.len()).map_err(StartError::Thread)?;
        sockets.push(socket);
    }
    Ok(WorkerState {
        poll,
        sockets,
        counters: Counters::default(),
        releases: Mutex::default(),
        arrivals: Mutex::default(),
    })
}
