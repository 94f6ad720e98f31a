//! The queues of one TUN.
//!
//! The kernel puts what the payload sends into the queue that packets of the same flow were last
//! written to from outside, and a new flow's into any (`drivers/net/tun.c`, the flow table). So which
//! queue a flow takes is decided here: bulk never waits in the queue of ICMP, seldom in that of
//! another flow, and a flow keeps its queue, which keeps its order.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use super::tun;
use crate::MAX_QUEUES;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Descriptors of a TUN that carries super-packets, one for each queue.
#[derive(Debug)]
pub(crate) struct TunQueues(Box<[OwnedFd]>);

impl TunQueues {
    /// Checks the descriptors: one to [`MAX_QUEUES`].
    pub(crate) fn open(fds: Vec<OwnedFd>) -> io::Result<Self> {
        if !(1..=MAX_QUEUES).contains(&fds.len()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a TUN has 1 to {MAX_QUEUES} queues"),
            ));
        }
        fds.iter().try_for_each(|fd| tun::check(fd, true))?;
        Ok(Self(fds.into()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn raw(&self, queue: usize) -> RawFd {
        self.0[queue].as_raw_fd()
    }

    /// The queue for a packet's flow, in both directions the same: flows of TCP and UDP share all
    /// queues but the first, which everything else has.
    pub(crate) fn queue_of(&self, packet: &[u8]) -> usize {
        match self.0.len() {
            1 => 0,
            len => flow(packet).map_or(0, |hash| 1 + hash as usize % (len - 1)),
        }
    }
}

/// A hash of a TCP or UDP flow that does not depend on the direction. `packet` may be the first
/// part of one, as long as its headers are there.
fn flow(packet: &[u8]) -> Option<u32> {
    let (addresses, protocol, transport) = match packet.first()? >> 4 {
        4 => {
            let header = packet.first_chunk::<20>()?;
            if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
                return None;
            }
            (&packet[12..20], header[9], usize::from(header[0] & 0x0f) * 4)
        }
        // Extension headers are rare enough to go with everything else.
        _ => (packet.get(8..40)?, packet[6], 40),
    };
    if !matches!(protocol, TCP | UDP) {
        return None;
    }
    let ports = packet.get(transport..transport + 4)?;
    let sum = |bytes: &[u8]| {
        let words =
            bytes.chunks_exact(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]])));
        words.fold(0u32, |sum, word| sum.wrapping_mul(31).wrapping_add(word))
    };
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    // Sums do not tell the ends apart; the multiplier spreads neighbours.
    let addresses = sum(source).wrapping_add(sum(destination));
    let ports = sum(&ports[..2]).wrapping_add(sum(&ports[2..]));
    Some((addresses ^ ports.rotate_left(7)).wrapping_mul(0x9e37_79b1) >> 16)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The first bytes of an IPv4 packet of a protocol from port `from` to port `to`.
    fn packet(protocol: u8, ends: [u8; 2], from: u16, to: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, ends[0]];
        packet.extend([10, 0, 0, ends[1]]);
        packet.extend([from.to_be_bytes(), to.to_be_bytes()].concat());
        packet
    }

    #[test]
    fn both_directions_of_a_flow_share_a_queue_and_flows_spread() {
        let mut seen = HashSet::new();
        for port in 40_000..40_064 {
            let there = flow(&packet(6, [2, 3], port, 5201)).unwrap();
            assert_eq!(Some(there), flow(&packet(6, [3, 2], 5201, port)));
            seen.insert(there % 7);
        }
        assert_eq!(seen.len(), 7);
        assert_eq!(flow(&packet(1, [2, 3], 1, 2)), None);
    }
}
