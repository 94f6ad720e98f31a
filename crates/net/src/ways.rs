//! Which peers may be at the other end of a hop: found without looking at every peer.

use std::collections::HashMap;

use gvpn_dataplane::Hop;
use gvpn_model::NodeId;
use parking_lot::RwLock;

/// Which peers may be at the other end of a hop.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    /// Hardly ever more than one: relays' addresses are hops of relays only.
    by_hop: RwLock<HashMap<Hop, Vec<NodeId>>>,
}

impl Ways {
    /// A peer that may have been at the other end of `old` may be at that of `new` now.
    pub(crate) fn change(&self, node: NodeId, old: &[Hop], new: &[Hop]) {
        let mut by_hop = self.by_hop.write();
        for hop in old.iter().filter(|hop| !new.contains(hop)) {
            if let Some(nodes) = by_hop.get_mut(hop) {
                nodes.retain(|other| *other != node);
                if nodes.is_empty() {
                    by_hop.remove(hop);
                }
            }
        }
        for hop in new.iter().filter(|hop| !old.contains(hop)) {
            by_hop.entry(*hop).or_default().push(node);
        }
    }

    /// Who may be there.
    pub(crate) fn peers(&self, hop: Hop) -> Vec<NodeId> {
        self.by_hop.read().get(&hop).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use gvpn_identity::Identity;

    use super::*;

    #[test]
    fn peers_are_found_by_the_hops_that_they_have_now() {
        let hop = |port| Hop::Direct(SocketAddr::from(([192, 0, 2, 1], port)));
        let [a, b] = [(); 2].map(|()| Identity::generate().node_id());
        let ways = Ways::default();
        ways.change(a, &[], &[hop(1), hop(2)]);
        ways.change(b, &[], &[hop(2)]);
        assert_eq!((ways.peers(hop(1)), ways.peers(hop(2))), (vec![a], vec![a, b]));
        ways.change(a, &[hop(1), hop(2)], &[hop(1), hop(3)]);
        assert_eq!((ways.peers(hop(2)), ways.peers(hop(3))), (vec![b], vec![a]));
        ways.change(a, &[hop(1), hop(3)], &[]);
        ways.change(b, &[hop(2)], &[]);
        assert!(ways.by_hop.read().is_empty());
    }
}
