//! The forwarding sessions with peers, by relay, and the relays at which peers were at home.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use gvpn_model::NodeId;

/// Sessions that are remembered, to be resumed after a restart of their relay.
const MAX_SESSIONS: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Sessions {
    peers: BTreeMap<(SocketAddr, u32), NodeId>,
    /// The relays that peers' records named once.
    homes: BTreeSet<(NodeId, SocketAddr)>,
}

impl Sessions {
    /// The relay forwards to the peer under this number, and under no other.
    pub(crate) fn learn(&mut self, relay: SocketAddr, session: u32, peer: NodeId) {
        if self.peers.len() >= MAX_SESSIONS {
            self.peers.clear();
        }
        self.peers.retain(|(r, _), p| *r != relay || *p != peer);
        self.peers.insert((relay, session), peer);
    }

    /// A peer's record names these relays now.
    pub(crate) fn at_home(&mut self, peer: NodeId, relays: &[SocketAddr]) {
        if self.homes.len() >= MAX_SESSIONS {
            self.homes.clear();
        }
        self.homes.extend(relays.iter().map(|relay| (peer, *relay)));
    }

    /// Whether a peer was at home at a relay once.
    pub(crate) fn was_at_home(&self, peer: NodeId, relay: SocketAddr) -> bool {
        self.homes.contains(&(peer, relay))
    }

    pub(crate) fn forget(&mut self, relay: SocketAddr, session: u32) {
        self.peers.remove(&(relay, session));
    }

    pub(crate) fn peer(&self, relay: SocketAddr, session: u32) -> Option<NodeId> {
        self.peers.get(&(relay, session)).copied()
    }

    pub(crate) fn of(&self, relay: SocketAddr) -> Vec<(u32, NodeId)> {
        let own = self.peers.range((relay, 0)..=(relay, u32::MAX));
        own.map(|((_, session), peer)| (*session, *peer)).collect()
    }
}
