//! Route netlink, as much of it as interfaces need.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage},
    link::{AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage},
    route::{
        RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
        RouteType,
    },
    tc::{TcAttribute, TcHandle, TcMessage},
};
use nix::net::if_::if_nametoindex;

use crate::{Interface, Questions, Route};

/// The metric that the kernel gives an IPv6 route without one.
const IPV6_METRIC: u32 = 1024;

/// Bounds of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Largest packet.
    pub mtu: u16,
    /// Packets that the kernel queues for the reader.
    pub queue: u32,
    /// Most segments in one super-packet.
    pub gso_max_segs: u32,
    /// Most bytes in one super-packet.
    pub gso_max_size: u32,
}

/// What the kernel refused.
#[derive(Debug)]
pub struct Refused {
    /// What was being done.
    pub what: String,
    /// Why not.
    pub source: io::Error,
}

impl Refused {
    fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self { what: what.into(), source }
    }
}

/// No router advertisements, no duplicate address detection, no addresses of the kernel's own, for the
/// interface of this name, or `all` or `default`. Where the host forbids it, its default stays.
pub fn quiet_ipv6(interface: &str) {
    for (key, value) in [
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_dad", "0"),
        ("dad_transmits", "0"),
        ("use_tempaddr", "0"),
    ] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{interface}/{key}"), value);
    }
}

/// A route netlink socket in the present namespace.
#[derive(Debug)]
pub struct Netlink {
    questions: Questions,
}

impl Netlink {
    /// Opens one.
    ///
    /// # Errors
    /// When the kernel has no route netlink.
    pub fn open() -> io::Result<Self> {
        Ok(Self { questions: Questions::open()? })
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn set_up(&mut self, name: &str) -> io::Result<()> {
        let mut link = link(name)?;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.questions.ask(RouteNetlinkMessage::SetLink(link), 0).map(drop)
    }

    /// Gives a link that is down another name.
    ///
    /// # Errors
    /// When there is none of this name, or one of the other.
    pub fn rename(&mut self, name: &str, new: &str) -> io::Result<()> {
        let mut link = link(name)?;
        link.attributes.push(LinkAttribute::IfName(new.to_owned()));
        self.questions.ask(RouteNetlinkMessage::SetLink(link), 0).map(drop)
    }

    /// Removes a link, if it is there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        match link(name) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            link => match self.questions.ask(RouteNetlinkMessage::DelLink(link?), 0) {
                // Gone with its last descriptor, just now.
                Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
                removed => removed.map(drop),
            },
        }
    }

    /// Bounds a new link: packet size, super-packet size, queue; no address of its own.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn limit(&mut self, name: &str, bounds: &Bounds) -> Result<(), Refused> {
        let mut set = |attribute: LinkAttribute| {
            let mut link = link(name)?;
            link.attributes.push(attribute);
            self.questions.ask(RouteNetlinkMessage::SetLink(link), 0).map(drop)
        };
        set(LinkAttribute::Mtu(bounds.mtu.into()))
            .map_err(|e| Refused::new(format!("set MTU {} of {name}", bounds.mtu), e))?;
        set(LinkAttribute::TxQueueLen(bounds.queue))
            .map_err(|e| Refused::new(format!("set the queue of {name}"), e))?;
        let no_address = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let optional = [
            LinkAttribute::GsoMaxSegs(bounds.gso_max_segs),
            LinkAttribute::GsoMaxSize(bounds.gso_max_size),
            LinkAttribute::GsoIpv4MaxSize(bounds.gso_max_size),
            LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![no_address])]),
        ];
        for attribute in optional {
            // Older kernels know fewer of them; super-packets are then segmented by the reader.
            let _ = set(attribute);
        }
        Ok(())
    }

    /// Takes the queueing discipline off a link: what the link queues itself is all there is.
    ///
    /// # Errors
    /// When there is no such link, or the kernel refuses.
    pub fn without_discipline(&mut self, name: &str) -> io::Result<()> {
        let mut message = TcMessage::with_index(link(name)?.header.index as i32);
        message.header.parent = TcHandle::ROOT;
        message.attributes.push(TcAttribute::Kind("noqueue".to_owned()));
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.questions.ask(RouteNetlinkMessage::NewQueueDiscipline(message), flags).map(drop)
    }

    /// Makes an interface exactly so: adds and removes addresses and routes, sets the MTU, brings it up.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn configure(&mut self, wanted: &Interface) -> Result<(), Refused> {
        let name = &wanted.name;
        let refuse = |what: &str| {
            let what = format!("{what} of interface {name}");
            move |e: io::Error| Refused::new(what, e)
        };
        let mut device = link(name).map_err(refuse("find the index"))?;
        let index = device.header.index;
        device.header.flags = LinkFlags::Up;
        device.header.change_mask = LinkFlags::Up;
        device.attributes.push(LinkAttribute::Mtu(wanted.mtu.into()));
        self.questions
            .ask(RouteNetlinkMessage::SetLink(device), 0)
            .map_err(refuse("set the MTU"))?;
        self.set_addresses(index, wanted).map_err(refuse("set the addresses"))?;
        self.set_routes(index, wanted).map_err(refuse("set the routes"))
    }

    fn set_addresses(&mut self, index: u32, wanted: &Interface) -> io::Result<()> {
        let wanted = &wanted.addresses;
        let present = self.addresses(index)?;
        let kept = kept(&present, wanted);
        let (misplaced, stale): (Vec<IpNet>, Vec<IpNet>) =
            present.into_iter().filter(|a| !kept.contains(a)).partition(|a| wanted.contains(a));
        for address in misplaced {
            self.remove_address(index, address)?;
        }
        // New ones come before old ones leave, so that the prefix's route never goes.
        for address in wanted.iter().filter(|a| !kept.contains(a)) {
            self.add_address(index, *address)?;
        }
        for address in stale {
            self.remove_address(index, address)?;
        }
        Ok(())
    }

    fn remove_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        self.questions
            .ask(RouteNetlinkMessage::DelAddress(address_message(index, address)), 0)
            .map(drop)
    }

    fn add_address(&mut self, index: u32, address: IpNet) -> io::Result<()> {
        let message = address_message(index, address);
        self.questions
            .ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map(drop)
    }

    fn set_routes(&mut self, index: u32, wanted: &Interface) -> io::Result<()> {
        let wanted: Vec<Route> = wanted.routes.iter().map(with_metric).collect();
        let present = self.routes(index)?;
        for route in present.iter().filter(|r| !wanted.contains(r)) {
            let message = route_message(index, route);
            match self.questions.ask(RouteNetlinkMessage::DelRoute(message), 0) {
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
                other => drop(other?),
            }
        }
        for route in wanted.iter().filter(|r| !present.contains(r)) {
            let message = route_message(index, route);
            self.questions
                .ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)?;
        }
        Ok(())
    }

    /// The interface's addresses, in the kernel's order: the primary of a prefix first.
    fn addresses(&mut self, index: u32) -> io::Result<Vec<IpNet>> {
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let mut found = vec![];
        for message in self.questions.ask(all, NLM_F_DUMP)? {
            let RouteNetlinkMessage::NewAddress(message) = message else { continue };
            if message.header.index != index {
                continue;
            }
            let pick = |local: bool| {
                message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(ip) if local => Some(*ip),
                    AddressAttribute::Address(ip) if !local => Some(*ip),
                    _ => None,
                })
            };
            let address = pick(true).or_else(|| pick(false));
            if let Some(Ok(net)) = address.map(|ip| IpNet::new(ip, message.header.prefix_len)) {
                found.push(net);
            }
        }
        Ok(found)
    }

    /// The routes through the interface that [`configure`](Self::configure) has made.
    fn routes(&mut self, index: u32) -> io::Result<Vec<Route>> {
        let mut found = vec![];
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut all = RouteMessage::default();
            all.header.address_family = family;
            let answers = self.questions.ask(RouteNetlinkMessage::GetRoute(all), NLM_F_DUMP)?;
            found.extend(answers.iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) => read_route(route, index),
                _ => None,
            }));
        }
        Ok(found)
    }
}

fn link(name: &str) -> io::Result<LinkMessage> {
    let mut link = LinkMessage::default();
    link.header.index = if_nametoindex(name)?;
    Ok(link)
}

/// The present addresses that may stay as they are. The first address of an IPv4 prefix is its
/// primary, the source of new connections, so those that stay must be the first wanted ones, in order.
fn kept(present: &[IpNet], wanted: &[IpNet]) -> Vec<IpNet> {
    let in_place = |address: &&IpNet| {
        let of_prefix = |a: &&IpNet| a.trunc() == address.trunc();
        let now = present.iter().filter(of_prefix).filter(|a| wanted.contains(a));
        let then = wanted.iter().filter(of_prefix);
        now.zip(then).take_while(|(a, b)| a == b).any(|(a, _)| a == *address)
    };
    let stays = |a: &&IpNet| if a.addr().is_ipv4() { in_place(a) } else { wanted.contains(a) };
    present.iter().filter(stays).copied().collect()
}

fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    match address {
        IpNet::V4(v4) if v4.prefix_len() < 31 => {
            message.attributes.push(AddressAttribute::Broadcast(v4.broadcast()));
        }
        IpNet::V4(_) => {}
        IpNet::V6(_) => message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad)),
    }
    message
}

fn with_metric(route: &Route) -> Route {
    let standard = if route.to.addr().is_ipv4() { 0 } else { IPV6_METRIC };
    Route { to: route.to.trunc(), metric: Some(route.metric.unwrap_or(standard)), ..*route }
}

fn route_message(index: u32, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(route.to.addr());
    message.header.destination_prefix_length = route.to.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope =
        if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let attributes = &mut message.attributes;
    attributes.push(RouteAttribute::Destination(route_address(route.to.addr())));
    attributes.push(RouteAttribute::Oif(index));
    attributes.extend(route.via.map(|ip| RouteAttribute::Gateway(route_address(ip))));
    attributes.extend(route.from.map(|ip| RouteAttribute::PrefSource(route_address(ip))));
    attributes.extend(route.metric.filter(|m| *m > 0).map(RouteAttribute::Priority));
    message
}

fn read_route(message: &RouteMessage, index: u32) -> Option<Route> {
    if message.header.protocol != RouteProtocol::Static
        || message.header.table != RouteHeader::RT_TABLE_MAIN
    {
        return None;
    }
    let unspecified = match message.header.address_family {
        AddressFamily::Inet => IpAddr::from([0; 4]),
        _ => IpAddr::from([0; 16]),
    };
    let (mut to, mut via, mut from, mut metric, mut out) = (unspecified, None, None, 0, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(a) => to = ip(a)?,
            RouteAttribute::Gateway(a) => via = ip(a),
            RouteAttribute::PrefSource(a) => from = ip(a),
            RouteAttribute::Priority(m) => metric = *m,
            RouteAttribute::Oif(oif) => out = Some(*oif),
            _ => {}
        }
    }
    let to = IpNet::new(to, message.header.destination_prefix_length).ok()?;
    (out == Some(index)).then_some(Route { to, via, from, metric: Some(metric) })
}

fn route_address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}
