//! Networks as the data path sees them: the switch's table, and where each member is.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwapOption;
use gvpn_model::NetworkId;
use gvpn_switch::{MemberIx, Table};

use crate::{
    capture::Captures,
    peer::Slot,
    port::{Owner, Port},
};

/// One network; its state is swapped whole.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) id: NetworkId,
    pub(crate) state: ArcSwapOption<State>,
    pub(crate) captures: Captures,
}

/// A snapshot of a network.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) table: Arc<Table>,
    /// By the table's member numbers.
    pub(crate) targets: Vec<Target>,
    /// By the table's node numbers; none for this node.
    pub(crate) nodes: Vec<Option<Arc<Slot>>>,
    /// Ports that stand for one pair of addresses.
    pub(crate) taps: Vec<Tap>,
}

/// Where a member is.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Here.
    Port(Arc<Port>),
    /// On another node.
    Peer(Arc<Slot>),
    /// Here, but without a vNIC.
    Nothing,
}

/// A port that stands for one pair of addresses.
#[derive(Debug, Clone)]
pub(crate) struct Tap {
    pub(crate) local: IpAddr,
    pub(crate) remote: IpAddr,
    pub(crate) port: Arc<Port>,
}

impl Network {
    pub(crate) fn new(id: NetworkId) -> Self {
        Self { id, state: ArcSwapOption::empty(), captures: Captures::default() }
    }
}

impl State {
    pub(crate) fn target(&self, member: MemberIx) -> &Target {
        self.targets.get(member.0 as usize).unwrap_or(&Target::Nothing)
    }

    /// The member that a port sends as.
    pub(crate) fn member(&self, owner: Owner) -> Option<MemberIx> {
        match owner {
            Owner::Member(id) => self.table.member_ix(id),
            Owner::Pair { local, .. } => {
                let at = self.table.members().iter().position(|row| row.ips.contains(&local))?;
                Some(MemberIx(at as u32))
            }
        }
    }

    /// The tap for a packet, if there is one.
    #[inline]
    pub(crate) fn tap(&self, packet: &[u8]) -> Option<&Arc<Port>> {
        if self.taps.is_empty() {
            return None;
        }
        let (source, destination) = addresses(packet)?;
        let tap = self.taps.iter().find(|t| t.local == destination && t.remote == source)?;
        Some(&tap.port)
    }
}

/// Source and destination of an IP packet.
pub(crate) fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match packet.first()? >> 4 {
        4 => {
            let header = packet.first_chunk::<20>()?;
            let at = |i: usize| <[u8; 4]>::try_from(&header[i..i + 4]).ok().map(IpAddr::from);
            Some((at(12)?, at(16)?))
        }
        6 => {
            let header = packet.first_chunk::<40>()?;
            let at = |i: usize| <[u8; 16]>::try_from(&header[i..i + 16]).ok().map(IpAddr::from);
            Some((at(8)?, at(24)?))
        }
        _ => None,
    }
}
