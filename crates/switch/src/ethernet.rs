//! The end of Ethernet: a vNIC that speaks Ethernet meets the switch here, which speaks IP.
//!
//! Every neighbour of the payload has the same MAC address, the switch's. The switch answers ARP
//! (RFC 826) and neighbour solicitations (RFC 4861) for addresses that somebody has, and for no
//! others, so that duplicate address detection (RFC 5227, RFC 4862) tells the truth. Because the
//! MAC address never changes, nobody has to be told when an address moves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    DropReason, MemberIx, Table, compose,
    header::{ICMPV6, Transport},
    igmp::SWITCH_LINK_LOCAL,
    table::Holder,
};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// The switch's MAC address in every network: locally administered, "gvpn" and 1.
pub const SWITCH_MAC: Mac = [0x02, 0x67, 0x76, 0x70, 0x6e, 0x01];

const BROADCAST: Mac = [0xff; 6];
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_ARP: u16 = 0x0806;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// What became of a frame from the payload.
#[derive(Debug, PartialEq, Eq)]
pub enum FrameIn<'a> {
    /// An IP packet, to be forwarded.
    Packet(&'a [u8]),
    /// The switch's reply, to be sent back.
    Reply(Vec<u8>),
    /// Nothing that goes on.
    Drop(DropReason),
}

/// One port where Ethernet ends.
#[derive(Debug, Clone, Default)]
pub struct EthernetEdge {
    /// The payload's MAC address, as its frames say.
    mac: Option<Mac>,
}

impl EthernetEdge {
    /// An edge that learns the payload's MAC address from its first frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// An edge for a payload whose MAC address is known.
    pub fn with_mac(mac: Mac) -> Self {
        Self { mac: Some(mac) }
    }

    /// The payload's MAC address, once known.
    pub fn mac(&self) -> Option<Mac> {
        self.mac
    }

    /// Takes a frame from the payload of the member at `port`.
    pub fn frame_in<'a>(&mut self, table: &Table, port: MemberIx, frame: &'a [u8]) -> FrameIn<'a> {
        let Some((header, payload)) = frame.split_at_checked(14) else {
            return FrameIn::Drop(DropReason::Malformed);
        };
        if let Some(source) = header[6..].first_chunk::<6>().filter(|mac| is_station(mac)) {
            self.mac = Some(*source);
        }
        match u16::from_be_bytes([header[12], header[13]]) {
            ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => self.packet_in(table, port, unpadded(payload)),
            ETHERTYPE_ARP => reply_or_drop(arp_reply(table, port, payload)),
            _ => FrameIn::Drop(DropReason::Malformed),
        }
    }

    /// The header of the frame that takes an IP packet to the payload. `None` while the payload's
    /// MAC address is not known: send [`solicitations`](Self::solicitations), and drop the packet.
    pub fn header_out(&self, ip: &[u8]) -> Option<[u8; 14]> {
        let version = ip.first()? >> 4;
        let kind = if version == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 };
        let destination = match version {
            4 => group_mac_v4(*ip.get(16..)?.first_chunk()?),
            6 => group_mac_v6(*ip.get(24..)?.first_chunk()?),
            _ => return None,
        };
        Some(header(destination.or(self.mac)?, kind))
    }

    /// Frames that make the payload tell its MAC address.
    pub fn solicitations(&self, table: &Table, port: MemberIx) -> Vec<Vec<u8>> {
        let Some(row) = table.member(port) else { return Vec::new() };
        let ask = |ip: &IpAddr| match (*ip, table.gateway_for(*ip)?) {
            (IpAddr::V4(ip), IpAddr::V4(gateway)) => {
                Some(arp_frame(BROADCAST, 1, gateway, [0; 6], ip))
            }
            (IpAddr::V6(ip), _) => solicitation(ip),
            _ => None,
        };
        row.ips.iter().filter_map(ask).collect()
    }

    /// Frames that tell the payload where its gateways are: for a port that is new, or a network
    /// whose gateway changed.
    pub fn announcements(&self, table: &Table, port: MemberIx) -> Vec<Vec<u8>> {
        let mine = table.member(port).map(|row| &*row.ips).unwrap_or_default();
        let announce = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => Some(arp_frame(BROADCAST, 1, ip, [0; 6], ip)),
            IpAddr::V6(ip) => {
                advertisement(ip, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), BROADCAST, 0x20)
            }
        };
        let gateways = table.settings.subnets.iter().map(|s| s.gateway);
        gateways.filter(|ip| !mine.contains(ip)).filter_map(announce).collect()
    }

    fn packet_in<'a>(&self, table: &Table, port: MemberIx, ip: &'a [u8]) -> FrameIn<'a> {
        let Some(solicited) = solicited(ip) else { return FrameIn::Packet(ip) };
        reply_or_drop(neighbour_reply(table, port, ip, solicited, self.mac))
    }
}

fn reply_or_drop<'a>(reply: Option<Vec<u8>>) -> FrameIn<'a> {
    reply.map_or(FrameIn::Drop(DropReason::Consumed), FrameIn::Reply)
}

/// Whether the switch speaks for `address` towards the member at `port`: for everybody but itself.
fn speaks_for(table: &Table, port: MemberIx, address: IpAddr) -> bool {
    match table.holder(address) {
        Some(Holder::Member { ix, .. }) => ix != port,
        Some(Holder::Gateway) => true,
        Some(Holder::Broadcast) => false,
        None => address == IpAddr::V6(SWITCH_LINK_LOCAL),
    }
}

/// The reply to an ARP request.
fn arp_reply(table: &Table, port: MemberIx, arp: &[u8]) -> Option<Vec<u8>> {
    let arp: &[u8; 28] = arp.first_chunk()?;
    let request = [0, 1, 8, 0, 6, 4, 0, 1];
    if arp[..8] != request {
        return None;
    }
    let asker = *arp[8..].first_chunk::<6>().filter(|mac| is_station(mac))?;
    let asker_ip = Ipv4Addr::from(*arp[14..].first_chunk::<4>()?);
    let target = Ipv4Addr::from(*arp[24..].first_chunk::<4>()?);
    if asker_ip == target || !speaks_for(table, port, target.into()) {
        return None;
    }
    Some(arp_frame(asker, 2, target, asker, asker_ip))
}

fn arp_frame(to: Mac, operation: u8, ours: Ipv4Addr, theirs: Mac, their_ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = header(to, ETHERTYPE_ARP).to_vec();
    frame.extend([0, 1, 8, 0, 6, 4, 0, operation]);
    frame.extend(SWITCH_MAC);
    frame.extend(ours.octets());
    frame.extend(theirs);
    frame.extend(their_ip.octets());
    frame
}

/// The target of a neighbour solicitation; `None` for any other packet.
fn solicited(ip: &[u8]) -> Option<Ipv6Addr> {
    // Cheap tests first: this is asked about every packet. Solicitations have no extensions.
    if ip.first()? >> 4 != 6 || *ip.get(6)? != ICMPV6 || *ip.get(40)? != SOLICITATION {
        return None;
    }
    Some(Ipv6Addr::from(*ip.get(48..)?.first_chunk::<16>()?))
}

fn neighbour_reply(
    table: &Table,
    port: MemberIx,
    ip: &[u8],
    target: Ipv6Addr,
    mac: Option<Mac>,
) -> Option<Vec<u8>> {
    let valid = ip.get(7) == Some(&255) && Transport::of(ip).is_some_and(|t| t.offset == 40);
    if !valid || !speaks_for(table, port, target.into()) {
        return None;
    }
    let asker = Ipv6Addr::from(*ip.get(8..)?.first_chunk::<16>()?);
    // An unspecified asker looks for duplicates: everybody is told (RFC 4861, section 7.2.4).
    if asker.is_unspecified() {
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        return advertisement(target, all_nodes, BROADCAST, 0x20);
    }
    advertisement(target, asker, mac?, 0x60)
}

/// A neighbour advertisement: `target` is at the switch. `flags`: solicited 0x40, override 0x20.
fn advertisement(target: Ipv6Addr, to: Ipv6Addr, mac: Mac, flags: u8) -> Option<Vec<u8>> {
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
    message.extend(target.octets());
    message.extend([2, 1]);
    message.extend(SWITCH_MAC);
    let mac = group_mac_v6(to.octets()).unwrap_or(mac);
    discovery_frame(target, to, mac, message)
}

fn solicitation(target: Ipv6Addr) -> Option<Vec<u8>> {
    let t = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(t[13]),
        u16::from_be_bytes([t[14], t[15]]),
    );
    let mut message = vec![SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(t);
    message.extend([1, 1]);
    message.extend(SWITCH_MAC);
    discovery_frame(SWITCH_LINK_LOCAL, group, group_mac_v6(group.octets())?, message)
}

fn discovery_frame(from: Ipv6Addr, to: Ipv6Addr, mac: Mac, message: Vec<u8>) -> Option<Vec<u8>> {
    let mut packet = compose::packet(from.into(), to.into(), ICMPV6, message, 2)?;
    packet[7] = 255;
    let mut frame = header(mac, ETHERTYPE_IPV6).to_vec();
    frame.append(&mut packet);
    Some(frame)
}

fn header(to: Mac, kind: u16) -> [u8; 14] {
    let mut header = [0; 14];
    header[..6].copy_from_slice(&to);
    header[6..12].copy_from_slice(&SWITCH_MAC);
    header[12..].copy_from_slice(&kind.to_be_bytes());
    header
}

/// The MAC address of an IPv4 group or broadcast (RFC 1112); `None` for one host's address. A
/// directed broadcast looks like a host here, and reaches the payload as well.
fn group_mac_v4(ip: [u8; 4]) -> Option<Mac> {
    match ip {
        [255, 255, 255, 255] => Some(BROADCAST),
        [224..=239, b, c, d] => Some([0x01, 0x00, 0x5e, b & 0x7f, c, d]),
        _ => None,
    }
}

/// The MAC address of an IPv6 group (RFC 2464).
fn group_mac_v6(ip: [u8; 16]) -> Option<Mac> {
    (ip[0] == 0xff).then(|| [0x33, 0x33, ip[12], ip[13], ip[14], ip[15]])
}

/// The IP packet without the padding of a short frame.
fn unpadded(payload: &[u8]) -> &[u8] {
    // A length of nothing but the header is a super-packet's that does not fit the field.
    match compose::total_length(payload).filter(|length| *length > 40 || payload[0] >> 4 == 4) {
        Some(length) if length >= 20 => payload.get(..length).unwrap_or(payload),
        _ => payload,
    }
}

fn is_station(mac: &Mac) -> bool {
    mac[0] & 1 == 0 && *mac != [0; 6]
}
