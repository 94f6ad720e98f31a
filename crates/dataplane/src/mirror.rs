//! A mirror: whoever asks a relay is told at which address it is seen.
//!
//! Question and answer are [control messages](crate::control_message) of [`LENGTH`] bytes: the
//! header with a number that the asker made up, then in the answer the address: 16 bytes of IPv6 (of
//! an IPv4 address its mapped form) and the port, big-endian, all inverted, since there are routers
//! that change addresses which they find in what they carry (RFC 8489, section 14.2). The answer is
//! as long as the question, so that a relay amplifies nothing.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use gvpn_path::carrier_id;

use crate::{control_message, message::RELAY_HEADER, read_control_message};

/// Where do you see me?
const CONTROL_WHERE: u8 = 4;
/// I see you here.
const CONTROL_HERE: u8 = 5;
/// Bytes of question and answer.
pub const LENGTH: usize = RELAY_HEADER + 18;

/// The question where a relay sees the socket that sends it.
pub fn question(number: u32) -> [u8; LENGTH] {
    message(CONTROL_WHERE, number)
}

/// Reads an answer: the question's number, and the address.
pub fn read_answer(message: &[u8]) -> Option<(u32, SocketAddr)> {
    let (CONTROL_HERE, number) = read_control_message(message)? else { return None };
    let bytes: &[u8; LENGTH] = message.try_into().ok()?;
    let told = bytes.map(|byte| !byte);
    let (ip, port) = told[RELAY_HEADER..].split_first_chunk::<16>()?;
    let ip = IpAddr::from(Ipv6Addr::from(*ip)).to_canonical();
    Some((number, SocketAddr::new(ip, u16::from_be_bytes(port.try_into().ok()?))))
}

/// The answer to a question that came from there; `None` if it is none.
pub(crate) fn answer(asked: &[u8], from: SocketAddr) -> Option<[u8; LENGTH]> {
    let (CONTROL_WHERE, number) = read_control_message(asked)? else { return None };
    if asked.len() < LENGTH || carrier_id(from).is_some() {
        return None;
    }
    let mut answer = message(CONTROL_HERE, number);
    let ip = match from.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let told = ip.octets().into_iter().chain(from.port().to_be_bytes());
    answer[RELAY_HEADER..].iter_mut().zip(told).for_each(|(byte, told)| *byte = !told);
    Some(answer)
}

fn message(kind: u8, number: u32) -> [u8; LENGTH] {
    let mut message = [0; LENGTH];
    message[..RELAY_HEADER].copy_from_slice(&control_message(kind, number));
    message
}

/// How many messages a relay may send in a second to ends that have not proven who they are.
#[derive(Debug)]
pub(crate) struct Allowance {
    per_second: u64,
    second: AtomicU64,
    used: AtomicU64,
}

impl Allowance {
    pub(crate) fn new(per_second: u64) -> Self {
        Self { per_second, second: AtomicU64::new(0), used: AtomicU64::new(0) }
    }

    /// Takes one, if there is one left.
    pub(crate) fn take(&self, milliseconds: u64) -> bool {
        let second = milliseconds / 1000;
        if self.second.swap(second, Relaxed) != second {
            self.used.store(0, Relaxed);
        }
        self.used.fetch_add(1, Relaxed) < self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_with_where_it_came_from() {
        for from in ["192.0.2.1:7464", "[2001:db8::7]:1"] {
            let from: SocketAddr = from.parse().unwrap();
            let answer = answer(&question(77), from).unwrap();
            assert_eq!(read_answer(&answer), Some((77, from)));
            assert_eq!(read_answer(&answer[..LENGTH - 1]), None);
            assert!(!answer.windows(4).any(|w| w == [192, 0, 2, 1]));
        }
        let from = "192.0.2.1:7464".parse().unwrap();
        assert_eq!(answer(&question(7)[..LENGTH - 1], from), None);
        assert_eq!(answer(&message(CONTROL_HERE, 7), from), None);
    }

    #[test]
    fn an_allowance_is_for_a_second() {
        let allowance = Allowance::new(3);
        let taken = |at| (0..10).filter(|_| allowance.take(at)).count();
        assert_eq!((taken(5000), taken(5999), taken(6000)), (3, 0, 3));
    }
}
