//! Interface and sockets of a stack, behind its lock.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    socket::{
        Socket,
        tcp::{self, CongestionControl, State as Tcp},
    },
    wire::{EthernetAddress, IpCidr},
};

use super::wire::Wire;

/// Bytes of a connection that may wait, in each direction.
const BUFFER: usize = 1 << 20;
/// First port of those that connections come from.
const PORT_MIN: u16 = 49_152;
/// How long a connection without a user may take to end.
const LINGER: Duration = Duration::from_secs(30);
/// How long an ended one answers a repeated FIN.
const TIME_WAIT: Duration = Duration::from_secs(1);

pub(super) struct State {
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    /// Connections without a user, and when they are cut.
    orphans: Vec<(SocketHandle, Instant)>,
    start: Instant,
    next_port: u16,
}

/// What the driver is to wait for.
pub(super) struct Next {
    pub(super) delay: Option<Duration>,
    pub(super) blocked: bool,
    pub(super) drained: bool,
    pub(super) gone: bool,
}

impl State {
    pub(super) fn new(mut wire: Wire) -> Self {
        let seed = RandomState::new().build_hasher().finish();
        let [_, a, b, c, d, e, high, low] = seed.to_be_bytes();
        let mac = EthernetAddress([0x02, a, b, c, d, e]);
        let mut config = Config::new(mac.into());
        config.random_seed = RandomState::new().build_hasher().finish();
        let interface = Interface::new(config, &mut wire, smoltcp::time::Instant::ZERO);
        let next_port = PORT_MIN | u16::from_be_bytes([high, low]);
        let sockets = SocketSet::new(Vec::new());
        let start = Instant::now();
        Self { wire, interface, sockets, orphans: Vec::new(), start, next_port }
    }

    /// Moves frames and bytes, and says when to come again.
    pub(super) fn poll(&mut self) -> Next {
        let now = self.now();
        self.wire.begin();
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        self.bury();
        let gone = self.wire.gone();
        if gone {
            self.cut();
        }
        let mut delay = self.interface.poll_delay(self.now(), &self.sockets).map(Duration::from);
        if !self.orphans.is_empty() {
            delay = Some(delay.unwrap_or(TIME_WAIT).min(TIME_WAIT));
        }
        Next { delay, blocked: self.wire.blocked(), drained: self.wire.drained(), gone }
    }

    /// Replaces the addresses and the routers for what is on no prefix of theirs.
    pub(super) fn configure(&mut self, addresses: &[IpNet], gateways: &[IpAddr]) {
        self.interface.update_ip_addrs(|list| {
            list.clear();
            for net in addresses {
                if list.push(IpCidr::new(net.addr().into(), net.prefix_len())).is_err() {
                    tracing::warn!(address = %net, "one address too many for the gate");
                }
            }
        });
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        routes.remove_default_ipv6_route();
        for gateway in gateways {
            let full = match *gateway {
                IpAddr::V4(ip) => routes.add_default_ipv4_route(ip).is_err(),
                IpAddr::V6(ip) => routes.add_default_ipv6_route(ip).is_err(),
            };
            if full {
                tracing::warn!(%gateway, "one router too many for the gate");
            }
        }
    }

    /// Begins a connection.
    pub(super) fn connect(
        &mut self,
        remote: SocketAddr,
        from: Option<IpAddr>,
    ) -> io::Result<(SocketHandle, SocketAddr)> {
        if self.wire.gone() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let local = SocketAddr::new(self.source(remote.ip(), from)?, self.free_port()?);
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        socket
            .connect(self.interface.context(), remote, local)
            .map_err(|e| io::Error::new(io::ErrorKind::AddrNotAvailable, e.to_string()))?;
        Ok((self.sockets.add(socket), local))
    }

    pub(super) fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// The user of a connection is gone: one that was shut down ends in its own time, any other
    /// is reset.
    pub(super) fn release(&mut self, handle: SocketHandle) {
        let socket = self.socket(handle);
        if socket.state() == Tcp::SynSent {
            // Nobody has answered: there is nobody to reset.
            self.sockets.remove(handle);
            return;
        }
        if socket.may_send() {
            socket.abort();
        }
        self.orphans.push((handle, Instant::now() + LINGER));
    }

    /// How many sockets there are.
    pub(super) fn len(&self) -> usize {
        self.sockets.iter().count()
    }

    /// Whether the other end of the wire is gone.
    pub(super) fn gone(&self) -> bool {
        self.wire.gone()
    }

    /// Ends every connection: there is no way out any more.
    fn cut(&mut self) {
        for (_, socket) in self.sockets.iter_mut() {
            if let Socket::Tcp(tcp) = socket {
                tcp.abort();
            }
        }
    }

    /// Removes connections without a user that have ended, and resets those that take too long.
    fn bury(&mut self) {
        let now = Instant::now();
        let Self { orphans, sockets, .. } = self;
        orphans.retain_mut(|(handle, until)| {
            let socket = sockets.get_mut::<tcp::Socket>(*handle);
            // Nobody reads it any more.
            let _ = socket.recv(|bytes| (bytes.len(), ()));
            // A reset has gone out once the remote end is forgotten.
            if socket.state() == Tcp::Closed && socket.remote_endpoint().is_none() {
                sockets.remove(*handle);
                return false;
            }
            if socket.state() == Tcp::TimeWait {
                *until = (*until).min(now + TIME_WAIT);
            }
            if now >= *until {
                if matches!(socket.state(), Tcp::TimeWait | Tcp::Closed) {
                    sockets.remove(*handle);
                    return false;
                }
                socket.abort();
            }
            true
        });
    }

    fn source(&self, remote: IpAddr, from: Option<IpAddr>) -> io::Result<IpAddr> {
        if let Some(from) = from {
            let ours = self.interface.has_ip_addr(from) && from.is_ipv4() == remote.is_ipv4();
            return if ours { Ok(from) } else { Err(io::ErrorKind::AddrNotAvailable.into()) };
        }
        let mut of_family = self
            .interface
            .ip_addrs()
            .iter()
            .filter(|cidr| IpAddr::from(cidr.address()).is_ipv4() == remote.is_ipv4());
        let near = of_family.clone().find(|cidr| cidr.contains_addr(&remote.into()));
        let source = near.or_else(|| of_family.next()).map(|cidr| cidr.address().into());
        source.ok_or_else(|| io::ErrorKind::NetworkUnreachable.into())
    }

    fn free_port(&mut self) -> io::Result<u16> {
        for _ in PORT_MIN..=u16::MAX {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(PORT_MIN);
            let taken = self.sockets.iter().any(|(_, socket)| {
                matches!(socket, Socket::Tcp(tcp) if tcp.local_endpoint().is_some_and(|e| e.port == port))
            });
            if !taken {
                return Ok(port);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    fn now(&self) -> smoltcp::time::Instant {
        smoltcp::time::Instant::from_micros(self.start.elapsed().as_micros() as i64)
    }
}
