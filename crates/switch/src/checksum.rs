//! The Internet checksum (RFC 1071), for the few packets that the switch makes itself.

use std::net::IpAddr;

/// The checksum of `bytes`; zero over bytes that hold a right one.
pub(crate) fn of(bytes: &[u8]) -> u16 {
    fold(add(0, bytes))
}

/// The checksum of a transport message, pseudo-header included.
pub(crate) fn transport(source: IpAddr, destination: IpAddr, protocol: u8, message: &[u8]) -> u16 {
    let length = message.len() as u32;
    let mut sum = match (source, destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => add(add(0, &a.octets()), &b.octets()),
        (IpAddr::V6(a), IpAddr::V6(b)) => add(add(0, &a.octets()), &b.octets()),
        _ => 0,
    };
    sum += u64::from(length >> 16) + u64::from(length & 0xffff) + u64::from(protocol);
    fold(add(sum, message))
}

fn add(mut sum: u64, bytes: &[u8]) -> u64 {
    let mut pairs = bytes.chunks_exact(2);
    for pair in &mut pairs {
        sum += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    if let [last] = pairs.remainder() {
        sum += u64::from(*last) << 8;
    }
    sum
}

fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
