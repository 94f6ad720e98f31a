//! What the kernel knows of this machine's interfaces and routes, and that it has changed.
//!
//! Asked by route netlink (rtnetlink(7)), in the network namespace where the node was started,
//! whichever thread asks. Where netlink is forbidden, nothing is reported and the addresses are
//! those that `getifaddrs` or the routing of a datagram to nowhere betray.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use gvpn_link::Questions;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    route::{RouteAddress, RouteAttribute, RouteMessage},
};
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use parking_lot::Mutex;
use tokio::io::{Interest, unix::AsyncFd};

/// Multicast groups of `linux/rtnetlink.h`: links, addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Addresses far away (RFC 5737, RFC 3849): the way to them is the way out.
const FAR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// The way out of this machine in one address family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exit {
    interface: Option<u32>,
    /// The router, if there is one.
    pub(crate) via: Option<IpAddr>,
    /// The address that datagrams leave with.
    pub(crate) from: Option<IpAddr>,
}

/// What the kernel knows of this machine's interfaces and routes.
#[derive(Debug)]
pub(crate) struct Interfaces {
    ask: Option<Mutex<Asker>>,
    news: Option<AsyncFd<News>>,
}

/// A socket that hears of changes.
#[derive(Debug)]
struct News(Socket);

impl AsRawFd for News {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

impl Interfaces {
    /// Asks in the network namespace of the present thread from now on.
    pub(crate) fn here() -> Self {
        let ask =
            Questions::open().map(Asker).map_err(|error| tracing::debug!(%error, "no netlink"));
        let news = subscribe().map_err(|error| {
            tracing::info!(%error, "the kernel does not report address changes: looking often");
        });
        Self { ask: ask.ok().map(Mutex::new), news: news.ok() }
    }

    /// Whether the kernel reports changes.
    pub(crate) fn reported(&self) -> bool {
        self.news.is_some()
    }

    /// Returns when the kernel reports a change of any link, address or route; never if it does
    /// not report.
    pub(crate) async fn changed(&self) {
        let Some(news) = &self.news else { return std::future::pending().await };
        let read = news.async_io(Interest::READABLE, |news| drain(&news.0)).await;
        if let Err(error) = read {
            // Too much news is news; anything else must not become a busy loop.
            tracing::debug!(%error, "reading interface changes");
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// The addresses of all interfaces that other machines may reach.
    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        let asked = self.ask.as_ref().and_then(|ask| ask.lock().addresses().ok());
        let mut found = asked.unwrap_or_else(by_libc);
        if found.is_empty() {
            found = FAR.iter().filter_map(|far| source(*far)).collect();
        }
        found.retain(|ip| reachable(*ip));
        found
    }

    /// The ways out: of IPv4 and of IPv6, where there are any.
    pub(crate) fn exits(&self) -> [Option<Exit>; 2] {
        FAR.map(|far| match &self.ask {
            Some(ask) => ask.lock().exit(far).ok(),
            None => source(far).map(|ip| Exit { interface: None, via: None, from: Some(ip) }),
        })
    }
}

fn subscribe() -> io::Result<AsyncFd<News>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&netlink_sys::SocketAddr::new(0, GROUPS))?;
    socket.set_non_blocking(true)?;
    // SAFETY: `News` owns its socket for as long as it lives, and gives the descriptor of no other.
    unsafe { AsyncFd::register_with_interest(News(socket), Interest::READABLE) }
        .map_err(io::Error::from)
}

/// Reads all that there is.
fn drain(socket: &Socket) -> io::Result<()> {
    let mut read = false;
    let mut buffer = Vec::with_capacity(1 << 14);
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, 0) {
            Ok(_) => read = true,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && read => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// The addresses that the C library tells, in the namespace of the present thread.
fn by_libc() -> Vec<IpAddr> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let ips = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    ips.collect()
}

/// The address that a datagram would leave with; none is sent.
fn source(far: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match far {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(SocketAddr::new(far, 9)).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}

fn reachable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        // Link-local addresses mean nothing without the interface.
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local(),
    }
}

/// What is asked.
#[derive(Debug)]
struct Asker(Questions);

impl Asker {
    fn addresses(&mut self) -> io::Result<Vec<IpAddr>> {
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.0.ask(all, NLM_F_DUMP)?;
        let found = answers.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => address(message),
            _ => None,
        });
        Ok(found.collect())
    }

    fn exit(&mut self, far: IpAddr) -> io::Result<Exit> {
        let mut message = RouteMessage::default();
        (message.header.address_family, message.header.destination_prefix_length) = match far {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        let destination = match far {
            IpAddr::V4(ip) => RouteAddress::Inet(ip),
            IpAddr::V6(ip) => RouteAddress::Inet6(ip),
        };
        message.attributes.push(RouteAttribute::Destination(destination));
        let answers = self.0.ask(RouteNetlinkMessage::GetRoute(message), NLM_F_ACK)?;
        let mut exit = Exit { interface: None, via: None, from: None };
        for answer in &answers {
            let RouteNetlinkMessage::NewRoute(route) = answer else { continue };
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Oif(index) => exit.interface = Some(*index),
                    RouteAttribute::Gateway(address) => exit.via = ip(address),
                    RouteAttribute::PrefSource(address) => exit.from = ip(address),
                    _ => {}
                }
            }
        }
        Ok(exit)
    }
}

/// An interface's own address, if it may be used.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let (mut local, mut remote) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => remote = Some(*ip),
            AddressAttribute::Flags(flags)
                if flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed) =>
            {
                return None;
            }
            _ => {}
        }
    }
    local.or(remote)
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}
