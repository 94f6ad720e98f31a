//! The forwarding sessions with peers, by relay.

use std::{collections::BTreeMap, net::SocketAddr};

use gvpn_model::NodeId;

/// Sessions that are remembered, to be resumed after a restart of their relay.
const MAX_SESSIONS: usize = 4096;

#[derive(Debug, Default)]
pub(crate) struct Sessions(BTreeMap<(SocketAddr, u32), NodeId>);

impl Sessions {
    /// The relay forwards to the peer under this number, and under no other.
    pub(crate) fn learn(&mut self, relay: SocketAddr, session: u32, peer: NodeId) {
        if self.0.len() >= MAX_SESSIONS {
            self.0.clear();
        }
        self.0.retain(|(r, _), p| *r != relay || *p != peer);
        self.0.insert((relay, session), peer);
    }

    pub(crate) fn forget(&mut self, relay: SocketAddr, session: u32) {
        self.0.remove(&(relay, session));
    }

    pub(crate) fn peer(&self, relay: SocketAddr, session: u32) -> Option<NodeId> {
        self.0.get(&(relay, session)).copied()
    }

    pub(crate) fn of(&self, relay: SocketAddr) -> Vec<(u32, NodeId)> {
        let own = self.0.range((relay, 0)..=(relay, u32::MAX));
        own.map(|((_, session), peer)| (*session, *peer)).collect()
    }
}
