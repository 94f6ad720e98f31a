//! Who listens to which multicast group.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use gvpn_model::{MemberId, NodeId};

use crate::{
    bucket::{Bucket, Rate},
    igmp::Membership,
};

/// The most groups that one member may listen to.
pub const MAX_GROUPS: usize = 64;
/// The most groups that one node may report for its members together.
pub const MAX_NODE_GROUPS: usize = 4096;
/// A membership that nobody confirms ends after this time (RFC 2236, section 8.4), in nanoseconds.
pub const MEMBERSHIP_LIFETIME: u64 = 260_000_000_000;

/// Changes of memberships that a member may make: 50 a second, 100 at once.
const CHANGES: Rate = Rate { per_second: 50, burst: 2_000_000_000 };

/// Memberships of local members, as their own reports say, and of other nodes, as they announce.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    local: HashMap<MemberId, Listener>,
    remote: HashMap<NodeId, BTreeSet<IpAddr>>,
    /// Reports that were not followed: too many groups, or too often.
    pub(crate) refused: u64,
}

#[derive(Debug, Default)]
struct Listener {
    /// The groups, each with the time when it was last confirmed.
    groups: BTreeMap<IpAddr, u64>,
    changes: Bucket,
}

impl Groups {
    /// Follows a member's report. Returns whether the memberships differ now.
    pub(crate) fn report(&mut self, member: MemberId, report: Membership, now: u64) -> bool {
        let listener = self.local.entry(member).or_default();
        match report {
            Membership::Join(group) => {
                if let Some(confirmed) = listener.groups.get_mut(&group) {
                    *confirmed = now;
                    return false;
                }
                let room = listener.groups.len() < MAX_GROUPS;
                if !room || !listener.changes.take(CHANGES, 1, now) {
                    self.refused += 1;
                    return false;
                }
                listener.groups.insert(group, now);
                true
            }
            Membership::Leave(group) => listener.groups.remove(&group).is_some(),
        }
    }

    /// Forgets a member whose port is gone.
    pub(crate) fn forget_member(&mut self, member: MemberId) -> bool {
        self.local.remove(&member).is_some_and(|l| !l.groups.is_empty())
    }

    /// Forgets members that are not in the roster any more.
    pub(crate) fn retain_members(&mut self, keep: impl Fn(MemberId) -> bool) {
        self.local.retain(|id, _| keep(*id));
    }

    /// Ends memberships that nobody confirmed for their lifetime.
    pub(crate) fn expire(&mut self, now: u64) -> bool {
        let mut changed = false;
        for listener in self.local.values_mut() {
            let before = listener.groups.len();
            listener.groups.retain(|_, seen| now.saturating_sub(*seen) <= MEMBERSHIP_LIFETIME);
            changed |= listener.groups.len() != before;
        }
        changed
    }

    /// Every group with a local listener.
    pub(crate) fn local_groups(&self) -> BTreeSet<IpAddr> {
        let groups = self.local.values().flat_map(|l| l.groups.keys().copied());
        groups.take(MAX_NODE_GROUPS).collect()
    }

    /// What another node announced replaces what it announced before.
    pub(crate) fn announce(&mut self, node: NodeId, groups: Vec<IpAddr>) -> bool {
        let groups: BTreeSet<_> = groups.into_iter().take(MAX_NODE_GROUPS).collect();
        self.remote.get(&node) != Some(&groups) && {
            self.remote.insert(node, groups);
            true
        }
    }

    /// Forgets what a node announced: it gets everything until it announces again.
    pub(crate) fn forget_node(&mut self, node: NodeId) -> bool {
        self.remote.remove(&node).is_some()
    }

    pub(crate) fn local(&self) -> impl Iterator<Item = (MemberId, IpAddr)> + '_ {
        let pairs = |(id, l): (&MemberId, &Listener)| {
            let id = *id;
            l.groups.keys().map(move |g| (id, *g)).collect::<Vec<_>>()
        };
        self.local.iter().flat_map(pairs)
    }

    pub(crate) fn announced(&self, node: NodeId) -> Option<&BTreeSet<IpAddr>> {
        self.remote.get(&node)
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.remote.keys().copied()
    }
}
