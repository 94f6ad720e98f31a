//! Which parts changed at which epoch, so that one delta can cover any span of epochs.

use std::collections::{BTreeMap, BTreeSet};

use gvpn_model::MemberId;

/// How many changed parts are remembered at least.
const REMEMBERED: usize = 4096;

/// A part of a roster that changes as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Settings,
    Member(MemberId),
}

/// The latest epoch at which each part changed, for epochs after `floor`.
#[derive(Debug, Clone)]
pub(crate) struct ChangeLog {
    floor: u64,
    latest: BTreeMap<Part, u64>,
    order: BTreeSet<(u64, Part)>,
}

impl ChangeLog {
    pub(crate) fn starting_at(epoch: u64) -> Self {
        Self { floor: epoch, latest: BTreeMap::new(), order: BTreeSet::new() }
    }

    pub(crate) fn record(&mut self, part: Part, epoch: u64) {
        if let Some(before) = self.latest.insert(part, epoch) {
            self.order.remove(&(before, part));
        }
        self.order.insert((epoch, part));
        while self.order.len() > REMEMBERED {
            let Some((epoch, part)) = self.order.pop_first() else { break };
            self.latest.remove(&part);
            self.floor = self.floor.max(epoch);
        }
    }

    /// The parts that changed after `epoch`; `None` when that is too long ago to tell.
    pub(crate) fn since(&self, epoch: u64) -> Option<impl Iterator<Item = Part> + '_> {
        let after = (epoch.saturating_add(1), Part::Settings);
        (epoch >= self.floor).then(|| self.order.range(after..).map(|(_, part)| *part))
    }
}
