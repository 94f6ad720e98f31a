//! What a member may send, and when.
//!
//! A sender's own node delays what is beyond the limit, so that a payload's TCP finds its rate as on
//! any slow link. Other nodes drop it, with some room, for a node that does not keep to the limit.

use gvpn_roster::Limit;

use crate::{
    Bucket, MemberIx, Table, Verdict, bucket::Rate, header::Addresses, live::MemberLive,
    table::Holder,
};

/// How far ahead of its limit a sender may be: 50 ms, in nanoseconds. It makes up for threads that wake
/// up late and for pauses.
const BURST: u64 = 50_000_000;
/// The same for a sender that was silent, where the limit is so low that single packets take long: 5 ms.
/// With more its first packets would promise a far faster path than it is, and BBR would believe that
/// for seconds.
const START: u64 = 5_000_000;
/// Below this limit packets are as late as on a line of that speed, for the same reason: 24 Mbit/s, at
/// which a full packet takes half a millisecond.
const SLOW: u64 = 24_000_000;
/// How much later packets may come in together than they were sent: 500 ms.
const JITTER: u64 = 500_000_000;
/// The longest that one packet should take: 2 ms.
const COARSE: u64 = 2_000_000;
const SECOND: u64 = 1_000_000_000;
/// Clocks differ, and super-packets are cut anew on the way: a receiver allows a sixteenth more.
const SLACK: u64 = 16;

/// The limits of a member on this node.
#[derive(Debug, Clone, Copy)]
pub struct Pacing<'a> {
    limit: Limit,
    live: &'a MemberLive,
}

impl Pacing<'_> {
    /// When a packet or super-packet of so many bytes may go that came at `since`, in nanoseconds of
    /// the clock that [`charge`](Self::charge) is told. Nothing else may wait before it.
    pub fn ready_at(&self, bytes: usize, since: u64) -> u64 {
        let free = self.live.bits.ready_at(paced(self.limit.bits_per_second));
        let free = free.max(self.live.packets.ready_at(paced(self.limit.packets_per_second)));
        free.max(since) + self.takes(bytes)
    }

    /// How long so many bytes are late because the line is slow, in nanoseconds.
    pub fn takes(&self, bytes: usize) -> u64 {
        match self.limit.bits_per_second {
            slow if slow < SLOW => paced(slow).cost((bytes as u64).saturating_mul(8)),
            _ => 0,
        }
    }

    /// Counts a packet or super-packet that came at `since` and goes `now`: the bytes and packets that
    /// it will be on the wire.
    pub fn charge(&self, bytes: u64, packets: u64, since: u64, now: u64) {
        let slow = (1..SLOW).contains(&self.limit.bits_per_second);
        let start = if slow { START } else { BURST };
        let charge = |bucket: &Bucket, per_second, units| {
            let rate = paced(per_second);
            let from = now.saturating_sub(rate.cost(units)).max(since + BURST - start);
            bucket.charge(rate, units, from);
        };
        charge(&self.live.bits, self.limit.bits_per_second, bytes.saturating_mul(8));
        charge(&self.live.packets, self.limit.packets_per_second, packets);
    }

    /// Whether a super-packet of so many bytes is to be cut first: whole it would hold up what comes
    /// after it, and be lost as a whole.
    pub fn cuts(&self, bytes: usize) -> bool {
        (bytes as u64 * 8).saturating_mul(SECOND / COARSE) > self.limit.bits_per_second
            && self.limit.bits_per_second > 0
    }

    /// How many bytes should be able to wait: a tenth of a second's worth, within reason.
    pub fn room(&self) -> usize {
        match self.limit.bits_per_second {
            0 => 1 << 20,
            bits => (bits / 80).clamp(128 << 10, 4 << 20) as usize,
        }
    }
}

impl Table {
    /// Whether what a local member sends in this packet goes to other nodes; what is for the switch
    /// itself, for nobody, or for members here alone does not.
    pub fn leaves(&self, ip: &[u8]) -> bool {
        let Some(addresses) = Addresses::of(ip) else { return false };
        match self.receiver(&addresses) {
            Some(Holder::Member { ix, .. }) => self.member(ix).is_some_and(|row| !row.local),
            Some(Holder::Gateway) => false,
            Some(Holder::Broadcast) => true,
            None => addresses.is_multicast(),
        }
    }

    /// The limits of the member at `port`, if it has any.
    #[inline]
    pub fn pacing(&self, port: MemberIx) -> Option<Pacing<'_>> {
        if !self.limited {
            return None;
        }
        let row = self.member(port)?;
        (row.limit != Limit::default()).then(|| Pacing { limit: row.limit, live: &row.live })
    }

    /// Whether the sender of `ip` is within the limits that are enforced by dropping: that on
    /// multicast, and on what comes from other nodes its own. `bytes` and `packets` are those of the whole
    /// super-packet, cut; `now` is nanoseconds of a monotonic clock. Costs next to nothing where no
    /// limits are set.
    #[inline]
    pub fn admit(&self, ip: &[u8], verdict: &Verdict, bytes: u64, packets: u64, now: u64) -> bool {
        let replicated = matches!(verdict, Verdict::Replicate(_));
        if !self.limited && !replicated {
            return true;
        }
        let sender = Addresses::of(ip).and_then(|a| self.sender(&a));
        let Some(row) = sender.and_then(|ix| self.member(ix)) else { return true };
        let multicast = u64::from(self.policy().multicast_packets_per_second);
        (!replicated || row.live.multicast.take(paced(multicast), packets, now))
            && (row.local
                || (row.live.packets.take(policed(row.limit.packets_per_second), packets, now)
                    && row.live.bits.take(
                        policed(row.limit.bits_per_second),
                        bytes.saturating_mul(8),
                        now,
                    )))
    }
}

fn paced(per_second: u64) -> Rate {
    Rate { per_second, burst: BURST }
}

fn policed(per_second: u64) -> Rate {
    Rate { per_second: per_second.saturating_add(per_second / SLACK), burst: JITTER }
}
