//! The way of a packet.

use crate::{
    DropReason, MemberIx, NodeIx, Table, Verdict,
    header::{Addresses, Transport, UDP},
    table::Holder,
};

const DNS: u16 = 53;

impl Table {
    /// What becomes of a packet that the payload of `port` sends: `ip` starts with an IP header and
    /// goes on at least to the ports; it may be a super-packet.
    pub fn from_port(&self, port: MemberIx, ip: &[u8]) -> Verdict {
        let Some(row) = self.member(port) else { return Verdict::Drop(DropReason::UnknownSender) };
        let Some(addresses) = Addresses::of(ip) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        if self.sender(addresses) != Some(port) {
            return Verdict::Drop(DropReason::SpoofedSource);
        }
        let _ = row;
        match self.receiver(addresses) {
            Some(Holder::Member { ix, gateway }) => {
                if gateway && self.answers_names(ip) {
                    return Verdict::Answer;
                }
                Verdict::Deliver(ix)
            }
            Some(Holder::Gateway) => Verdict::Answer,
            Some(Holder::Broadcast) => Verdict::Drop(DropReason::MulticastOff),
            None => Verdict::Drop(DropReason::NoSuchMember),
        }
    }

    /// What becomes of a packet that arrives from the node at `peer`.
    pub fn from_peer(&self, peer: NodeIx, ip: &[u8]) -> Verdict {
        let Some(addresses) = Addresses::of(ip) else {
            return Verdict::Drop(DropReason::Malformed);
        };
        let sender = self.sender(addresses).and_then(|ix| self.member(ix));
        if sender.is_none_or(|row| row.node_ix != peer) {
            return Verdict::Drop(DropReason::SpoofedSource);
        }
        match self.receiver(addresses) {
            Some(Holder::Member { ix, .. }) if self.rows[ix.0 as usize].local => {
                Verdict::Deliver(ix)
            }
            _ => Verdict::Drop(DropReason::NotHere),
        }
    }

    /// The reply of the switch itself to a packet of a local member, if it has one.
    pub fn answer(&self, _port: MemberIx, _ip: &[u8]) -> Option<Vec<u8>> {
        None
    }

    /// The member that may send from this source.
    #[inline]
    pub(crate) fn sender(&self, addresses: Addresses) -> Option<MemberIx> {
        let holder = match addresses {
            Addresses::V4 { source, .. } => self.holder4(source),
            Addresses::V6 { source, .. } => self.holder6(source),
        };
        match holder {
            Some(Holder::Member { ix, .. }) => Some(ix),
            Some(_) => None,
            None if self.routes.is_empty() => None,
            None => self.route(addresses.source()),
        }
    }

    #[inline]
    pub(crate) fn receiver(&self, addresses: Addresses) -> Option<Holder> {
        let holder = match addresses {
            Addresses::V4 { destination, .. } => self.holder4(destination),
            Addresses::V6 { destination, .. } => self.holder6(destination),
        };
        if holder.is_some() || self.routes.is_empty() {
            return holder;
        }
        let via = self.route(addresses.destination())?;
        Some(Holder::Member { ix: via, gateway: false })
    }

    /// Whether a packet to a gateway address is a question for the switch's name server.
    fn answers_names(&self, ip: &[u8]) -> bool {
        self.policy().dns
            && Transport::of(ip)
                .is_some_and(|t| t.protocol == UDP && t.ports.is_some_and(|(_, to)| to == DNS))
    }
}
