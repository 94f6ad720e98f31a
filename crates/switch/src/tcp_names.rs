//! The name server over TCP (RFC 7766): for answers that do not fit into a datagram.
//!
//! A TCP stack ([smoltcp](https://crates.io/crates/smoltcp)) for one network on one node, whose clients are
//! the members there: segments and the time come in, segments come out. Connections are few, and
//! short of time: whoever holds many, or says nothing, loses them.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    time::Duration,
};

use gvpn_model::MemberId;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    socket::tcp::{self, CongestionControl, State},
    time::Instant,
    wire::{HardwareAddress, IpCidr},
};

use crate::{
    Table,
    forward::DNS,
    header::{Addresses, Transport},
    names,
};

/// Connections in all, and of one address.
const CONNECTIONS: usize = 64;
const CONNECTIONS_EACH: usize = 4;
/// How long a connection may say nothing, in nanoseconds: 10 s.
const IDLE: u64 = 10_000_000_000;
/// How long an end may owe an answer to a segment.
const UNANSWERED: Duration = Duration::from_secs(5);
/// The largest question: a DNS message with its length before it.
const QUESTION: usize = 2 + 4096;
/// The largest answer, likewise.
const ANSWER: usize = 2 + 65_535;

/// The name server's end of TCP connections. See the module's documentation.
pub struct TcpNames {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    /// Who has an address, as their latest segments say.
    members: HashMap<IpAddr, MemberId>,
    next_question: u64,
    foreign: VecDeque<TcpQuestion>,
}

/// A question about a name of no network, which the owner allows to be asked elsewhere. The
/// connection waits for the [answer](TcpNames::handle_answer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpQuestion {
    /// Names the question.
    pub id: u64,
    /// The DNS message.
    pub message: Vec<u8>,
}

struct Connection {
    handle: SocketHandle,
    /// When it last asked something, or began.
    since: u64,
    /// The question elsewhere that it waits for.
    waits: Option<u64>,
}

impl TcpNames {
    /// A name server that nobody has asked yet. `seed` makes the numbers of its segments hard to
    /// guess.
    pub fn new(seed: u64, mtu: u16) -> Self {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut wire = Wire { mtu: mtu.into(), ..Wire::default() };
        let interface = Interface::new(config, &mut wire, Instant::ZERO);
        Self {
            interface,
            wire,
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            members: HashMap::new(),
            next_question: 0,
            foreign: VecDeque::new(),
        }
    }

    /// Whether nobody is connected: it may be forgotten.
    pub fn is_idle(&self) -> bool {
        self.connections.is_empty()
    }

    /// A packet of a local member that the table called one for the name server.
    pub fn handle_packet(&mut self, now: u64, table: &Table, member: MemberId, packet: &[u8]) {
        let Some(addresses) = Addresses::of(packet) else { return };
        let opens = Transport::of(packet).is_some_and(|transport| transport.opens);
        if opens && !self.admits(addresses.source()) {
            return;
        }
        self.members.insert(addresses.source(), member);
        self.serve_at(addresses.destination());
        if opens {
            self.listen(now);
        }
        self.wire.arrived.push_back(packet.to_vec());
        self.run(now, table);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: u64, table: &Table) {
        self.run(now, table);
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called, in nanoseconds.
    pub fn poll_timeout(&mut self, now: u64) -> Option<u64> {
        let idle = self.connections.iter().map(|c| c.since + IDLE);
        let stack = self.interface.poll_at(instant(now), &self.sockets);
        let stack = stack.map(|at| u64::try_from(at.total_micros()).unwrap_or_default() * 1000);
        idle.chain(stack).min()
    }

    /// The next packet, and the member that it is for.
    pub fn poll_transmit(&mut self) -> Option<(MemberId, Vec<u8>)> {
        loop {
            let Some(packet) = self.wire.leaving.pop_front() else {
                if self.connections.is_empty() {
                    self.members.clear();
                }
                return None;
            };
            let to = Addresses::of(&packet).map(Addresses::destination);
            if let Some(member) = to.and_then(|to| self.members.get(&to)) {
                return Some((*member, packet));
            }
        }
    }

    /// The next question to be asked elsewhere.
    pub fn poll_question(&mut self) -> Option<TcpQuestion> {
        self.foreign.pop_front()
    }

    /// What came of a question elsewhere; without an answer its connection ends.
    pub fn handle_answer(&mut self, now: u64, table: &Table, id: u64, answer: Option<&[u8]>) {
        let waiting = self.connections.iter_mut().find(|c| c.waits == Some(id));
        let Some(connection) = waiting else { return };
        connection.waits = None;
        connection.since = now;
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.handle);
        match answer {
            Some(answer) => reply(socket, answer),
            None => socket.abort(),
        }
        self.run(now, table);
    }

    fn socket(&self, handle: SocketHandle) -> &tcp::Socket<'static> {
        self.sockets.get(handle)
    }

    /// Whether an address may have one more connection.
    fn admits(&self, source: IpAddr) -> bool {
        let of_source = |c: &&Connection| {
            let remote = self.socket(c.handle).remote_endpoint();
            remote.is_some_and(|remote| IpAddr::from(remote.addr) == source)
        };
        self.connections.len() < CONNECTIONS
            && self.connections.iter().filter(of_source).count() < CONNECTIONS_EACH
    }

    /// The stack answers at this address, and everybody is its neighbour.
    fn serve_at(&mut self, address: IpAddr) {
        if self.interface.has_ip_addr(address) {
            return;
        }
        self.interface.update_ip_addrs(|list| {
            if list.is_full() {
                list.remove(0);
            }
            let _ = list.push(IpCidr::new(address.into(), 0));
        });
    }

    fn listen(&mut self, now: u64) {
        let buffer = |size: usize| tcp::SocketBuffer::new(vec![0; size]);
        let mut socket = tcp::Socket::new(buffer(QUESTION), buffer(ANSWER));
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(UNANSWERED.into()));
        if socket.listen(DNS).is_ok() {
            let handle = self.sockets.add(socket);
            self.connections.push(Connection { handle, since: now, waits: None });
        }
    }

    fn run(&mut self, now: u64, table: &Table) {
        self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
        for at in 0..self.connections.len() {
            self.read(now, table, at);
        }
        // Answers, and the ends of connections.
        self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
        let sockets = &mut self.sockets;
        self.connections.retain(|connection| {
            let socket = sockets.get_mut::<tcp::Socket>(connection.handle);
            if now >= connection.since + IDLE && socket.state() != State::Closed {
                socket.abort();
                return true;
            }
            // A reset has gone out once the other end is forgotten.
            let ended = match socket.state() {
                State::Closed => socket.remote_endpoint().is_none(),
                State::Listen | State::TimeWait => true,
                _ => false,
            };
            if ended {
                sockets.remove(connection.handle);
            }
            !ended
        });
    }

    /// Answers a connection's questions, one after the other.
    fn read(&mut self, now: u64, table: &Table, at: usize) {
        let connection = &mut self.connections[at];
        let socket = self.sockets.get_mut::<tcp::Socket>(connection.handle);
        while connection.waits.is_none()
            && socket.send_capacity() - socket.send_queue() >= ANSWER.min(socket.send_capacity())
        {
            let Some(question) = question(socket) else { break };
            connection.since = now;
            let Some(answer) = names::answer_whole(table, &question) else {
                socket.abort();
                return;
            };
            let elsewhere = answer.foreign && table.policy().dns_forward;
            if !elsewhere {
                reply(socket, &answer.bytes);
                continue;
            }
            let id = self.next_question;
            self.next_question += 1;
            connection.waits = Some(id);
            self.foreign.push_back(TcpQuestion { id, message: question });
        }
        if !socket.may_recv() && connection.waits.is_none() && socket.state() == State::CloseWait {
            socket.close();
        }
    }
}

impl std::fmt::Debug for TcpNames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let connections = self.connections.len();
        f.debug_struct("TcpNames").field("connections", &connections).finish_non_exhaustive()
    }
}

/// Takes the next whole question; one that is too large ends the connection.
fn question(socket: &mut tcp::Socket<'_>) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    if socket.peek_slice(&mut length).ok()? < length.len() {
        return None;
    }
    let length = usize::from(u16::from_be_bytes(length));
    if length > QUESTION - 2 {
        socket.abort();
        return None;
    }
    if socket.recv_queue() < 2 + length {
        return None;
    }
    let mut message = vec![0; 2 + length];
    let taken = socket.recv_slice(&mut message).ok()?;
    message.drain(..2);
    (taken == 2 + length).then_some(message)
}

fn reply(socket: &mut tcp::Socket<'_>, answer: &[u8]) {
    let Ok(length) = u16::try_from(answer.len()) else { return socket.abort() };
    let sent = socket.send_slice(&length.to_be_bytes()).is_ok_and(|n| n == 2)
        && socket.send_slice(answer).is_ok_and(|n| n == answer.len());
    if !sent {
        socket.abort();
    }
}

fn instant(now: u64) -> Instant {
    Instant::from_micros(i64::try_from(now / 1000).unwrap_or(i64::MAX))
}

/// The wire of the stack: packets without frames.
#[derive(Debug, Default)]
struct Wire {
    mtu: usize,
    arrived: VecDeque<Vec<u8>>,
    leaving: VecDeque<Vec<u8>>,
}

struct Arrived(Vec<u8>);

struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let packet = self.arrived.pop_front()?;
        Some((Arrived(packet), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // A vNIC may leave checksums open, and nothing is damaged on this way.
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities
    }
}
