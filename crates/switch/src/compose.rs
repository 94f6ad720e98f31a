//! Packets that the switch makes itself.

use std::net::IpAddr;

use crate::{
    checksum,
    header::{Addresses, ICMP, ICMPV6, TCP, Transport, UDP},
};

/// How much of an offending packet an ICMP error quotes, so that it fits into 576 bytes (IPv4).
const QUOTE_V4: usize = 548;
/// The same for 1280 bytes (IPv6).
const QUOTE_V6: usize = 1232;

/// An IP packet around a transport message, whose checksum (at `sum_at`) is filled in.
pub(crate) fn packet(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    mut message: Vec<u8>,
    sum_at: usize,
) -> Option<Vec<u8>> {
    let sum = match protocol {
        ICMP => checksum::of(&message),
        _ => checksum::transport(source, destination, protocol, &message),
    };
    // Over UDP a checksum of zero means none.
    let sum = if sum == 0 && protocol == UDP { 0xffff } else { sum };
    message.get_mut(sum_at..sum_at + 2)?.copy_from_slice(&sum.to_be_bytes());
    let length = message.len();
    let mut packet = match (source, destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let total = u16::try_from(20 + length).ok()?.to_be_bytes();
            let mut header = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol, 0, 0];
            header.extend(a.octets());
            header.extend(b.octets());
            let sum = checksum::of(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            header
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let payload = u16::try_from(length).ok()?.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, payload[0], payload[1], protocol, 64];
            header.extend(a.octets());
            header.extend(b.octets());
            header
        }
        _ => return None,
    };
    packet.append(&mut message);
    Some(packet)
}

/// A UDP datagram.
pub(crate) fn udp(
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    payload: &[u8],
) -> Option<Vec<u8>> {
    let mut message = Vec::with_capacity(8 + payload.len());
    message.extend(source.1.to_be_bytes());
    message.extend(destination.1.to_be_bytes());
    message.extend(u16::try_from(8 + payload.len()).ok()?.to_be_bytes());
    message.extend([0, 0]);
    message.extend(payload);
    packet(source.0, destination.0, UDP, message, 6)
}

/// The reply to an ICMP or ICMPv6 echo request; `None` for anything else.
pub(crate) fn echo_reply(ip: &[u8], transport: &Transport) -> Option<Vec<u8>> {
    let addresses = Addresses::of(ip)?;
    let end = total_length(ip)?;
    let mut message = ip.get(transport.offset..end)?.to_vec();
    let reply = match (transport.protocol, message.first()?) {
        (ICMP, 8) => 0,
        (ICMPV6, 128) => 129,
        _ => return None,
    };
    message[0] = reply;
    message.get_mut(2..4)?.fill(0);
    packet(addresses.destination(), addresses.source(), transport.protocol, message, 2)
}

/// Why a packet cannot be delivered, as ICMP tells its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreachable {
    Host,
    Port,
    Prohibited,
}

/// "Destination unreachable" from `gateway` to the sender of `ip`. Never about ICMP errors or
/// fragments other than the first (RFC 1122, section 3.2.2; RFC 4443, section 2.4).
pub(crate) fn unreachable(gateway: IpAddr, ip: &[u8], why: Unreachable) -> Option<Vec<u8>> {
    let source = Addresses::of(ip)?.source();
    let transport = Transport::of(ip).filter(|t| !t.later_fragment)?;
    let kind = ip.get(transport.offset).copied();
    let (protocol, header, quote) = match gateway {
        IpAddr::V4(_) => {
            if transport.protocol == ICMP && !matches!(kind, Some(0 | 8)) {
                return None;
            }
            let code = match why {
                Unreachable::Host => 1,
                Unreachable::Port => 3,
                Unreachable::Prohibited => 13,
            };
            (ICMP, [3, code, 0, 0, 0, 0, 0, 0], QUOTE_V4)
        }
        IpAddr::V6(_) => {
            if transport.protocol == ICMPV6 && kind.is_none_or(|k| k < 128) {
                return None;
            }
            let code = match why {
                Unreachable::Host => 3,
                Unreachable::Port => 4,
                Unreachable::Prohibited => 1,
            };
            (ICMPV6, [1, code, 0, 0, 0, 0, 0, 0], QUOTE_V6)
        }
    };
    let mut message = header.to_vec();
    message.extend(&ip[..ip.len().min(quote)]);
    packet(gateway, source, protocol, message, 2)
}

/// A TCP segment that resets the connection that `ip` tries to open.
pub(crate) fn reset(ip: &[u8], transport: &Transport) -> Option<Vec<u8>> {
    let addresses = Addresses::of(ip)?;
    let (from, to) = transport.ports.filter(|_| transport.protocol == TCP && transport.opens)?;
    let sequence = u32::from_be_bytes(*ip.get(transport.offset + 4..)?.first_chunk()?);
    let mut message = Vec::with_capacity(20);
    message.extend(to.to_be_bytes());
    message.extend(from.to_be_bytes());
    message.extend([0; 4]);
    message.extend(sequence.wrapping_add(1).to_be_bytes());
    message.extend([0x50, 0x14, 0, 0, 0, 0, 0, 0]);
    packet(addresses.destination(), addresses.source(), TCP, message, 16)
}

/// Where an IP packet says that it ends.
pub(crate) fn total_length(ip: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(usize::from(u16::from_be_bytes(*ip.get(at..)?.first_chunk()?)));
    match ip.first()? >> 4 {
        4 => word(2),
        6 => Some(40 + word(4)?),
        _ => None,
    }
}
