//! The messages by which two agents measure a path. They travel sealed on the peer lane.
//!
//! ```text
//! probe: 0x01 | flags | length u16 | token u64 | zeros up to length
//! reply: 0x02 | flags | length u16 | token u64 | family (0, 4, 6) | port u16 | address
//! ```
//!
//! Numbers are big-endian. `length` is the whole message's in a probe, and in a reply that of the
//! probe that it answers. The address in a reply is where the probe came from, seen from there.

use std::net::{IpAddr, SocketAddr};

/// First byte of a probe.
pub const TYPE_PROBE: u8 = 0x01;
/// First byte of the reply to a probe.
pub const TYPE_REPLY: u8 = 0x02;
/// Length of a probe without padding.
pub const MIN_PROBE: usize = 12;
/// The sender's addresses changed: what comes from elsewhere than this hop is of the past.
const FLAG_MOVED: u8 = 0x01;

/// A probe or its reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Asks for a reply on the same hop.
    Probe {
        /// Comes back in the reply.
        token: u64,
        /// The sender's addresses have just changed.
        moved: bool,
        /// Length of the message, padding included.
        length: u16,
    },
    /// Answers a probe.
    Reply {
        /// The probe's token.
        token: u64,
        /// Length of the probe as it arrived.
        length: u16,
        /// Where the probe came from.
        observed: Option<SocketAddr>,
    },
}

impl Message {
    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Self::Probe { token, moved, length } => {
                let mut out = vec![TYPE_PROBE, if moved { FLAG_MOVED } else { 0 }];
                out.extend(length.to_be_bytes());
                out.extend(token.to_be_bytes());
                out.resize(usize::from(length).max(MIN_PROBE), 0);
                out
            }
            Self::Reply { token, length, observed } => {
                let mut out = vec![TYPE_REPLY, 0];
                out.extend(length.to_be_bytes());
                out.extend(token.to_be_bytes());
                encode_addr(observed, &mut out);
                out
            }
        }
    }

    /// Reads a message; `None` if it is not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<MIN_PROBE>()?;
        let length = u16::from_be_bytes([head[2], head[3]]);
        let token = u64::from_be_bytes(*head.last_chunk()?);
        match head[0] {
            TYPE_PROBE if usize::from(length) == bytes.len() => {
                Some(Self::Probe { token, moved: head[1] & FLAG_MOVED != 0, length })
            }
            TYPE_REPLY => Some(Self::Reply { token, length, observed: decode_addr(rest) }),
            _ => None,
        }
    }
}

fn encode_addr(addr: Option<SocketAddr>, out: &mut Vec<u8>) {
    let Some(addr) = addr else { return out.push(0) };
    out.push(if addr.is_ipv4() { 4 } else { 6 });
    out.extend(addr.port().to_be_bytes());
    match addr.ip() {
        IpAddr::V4(ip) => out.extend(ip.octets()),
        IpAddr::V6(ip) => out.extend(ip.octets()),
    }
}

fn decode_addr(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first()?;
    let (port, ip) = rest.split_first_chunk::<2>()?;
    let ip = match family {
        4 => IpAddr::from(*ip.first_chunk::<4>()?),
        6 => IpAddr::from(*ip.first_chunk::<16>()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(*port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip_and_rubbish_is_not_one() {
        let reply = |observed| Message::Reply { token: 7, length: 1400, observed };
        for message in [
            Message::Probe { token: u64::MAX, moved: true, length: 12 },
            Message::Probe { token: 0, moved: false, length: 1400 },
            reply(None),
            reply(Some("192.0.2.1:7".parse().unwrap())),
            reply(Some("[2001:db8::1]:65535".parse().unwrap())),
        ] {
            let bytes = message.encode();
            assert_eq!(Message::decode(&bytes), Some(message));
        }
        let probe = Message::Probe { token: 1, moved: false, length: 100 }.encode();
        assert_eq!(Message::decode(&probe[..99]), None, "a probe cut short is not answered");
        for length in 0..12 {
            assert_eq!(Message::decode(&probe[..length]), None);
        }
        assert_eq!(Message::decode(&[3; 20]), None);
    }
}
