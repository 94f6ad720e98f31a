//! Counters that one thread writes and any may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use gvpn_switch::DropReason;

use crate::{Drop, drops};

/// Drops by reason, of one thread.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Counters {
    own: [AtomicU64; drops::COUNT],
    /// Packets from peers that were marked because a socket's queue stood.
    pub(crate) marked: AtomicU64,
    switch: Box<[AtomicU64]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            own: std::array::from_fn(|_| AtomicU64::new(0)),
            marked: AtomicU64::new(0),
            switch: DropReason::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Counters {
    pub(crate) fn drop(&self, reason: Drop, packets: u64) {
        self.own[reason as usize].fetch_add(packets, Relaxed);
    }

    pub(crate) fn get(&self, reason: Drop) -> u64 {
        self.own[reason as usize].load(Relaxed)
    }

    pub(crate) fn switch_drop(&self, reason: DropReason, packets: u64) {
        if let Some(counter) = self.switch.get(reason as usize) {
            counter.fetch_add(packets, Relaxed);
        }
    }

    /// Adds what was counted to `sums`.
    pub(crate) fn collect(&self, sums: &mut std::collections::BTreeMap<&'static str, u64>) {
        let own = Drop::ALL.iter().map(|reason| reason.name()).zip(&self.own);
        let switch = DropReason::ALL.iter().map(|reason| reason.name()).zip(&self.switch);
        for (name, counter) in own.chain(switch) {
            match counter.load(Relaxed) {
                0 => {}
                n => *sums.entry(name).or_default() += n,
            }
        }
    }
}
