//! One requested activity, as far as its provider has told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use gvpn_model::{BatchId, ExeCommand, StatePair};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::{
    ActivityInfo, BatchResults, EventStream, NodeError, Usage,
    activities::batch::Batch,
    proto::{ActivityUpdate, Numbered},
};

/// A requested activity.
pub(crate) struct Remote {
    known: Arc<Mutex<Known>>,
    /// Changes whenever `known` does.
    tick: watch::Sender<u64>,
    end_asked: AtomicBool,
}

struct Known {
    info: ActivityInfo,
    batches: BTreeMap<BatchId, Batch>,
    usage: Usage,
    /// Number of the next entry of the provider's log.
    next: u64,
    /// Why the requestor wants it ended.
    why: Option<String>,
}

impl Remote {
    pub(crate) fn new(info: ActivityInfo, batches: Vec<BatchId>) -> Self {
        let batches = batches.into_iter().map(|id| (id, Batch::new(id))).collect();
        let known = Known { info, batches, usage: Usage::default(), next: 0, why: None };
        Self {
            known: Arc::new(Mutex::new(known)),
            tick: watch::Sender::new(0),
            end_asked: AtomicBool::new(false),
        }
    }

    pub(crate) fn info(&self) -> ActivityInfo {
        self.known.lock().info.clone()
    }

    /// What the provider said when it was asked for it.
    pub(crate) fn set_state(&self, state: StatePair) {
        self.known.lock().info.state = state;
    }

    pub(crate) fn batches(&self) -> Vec<BatchId> {
        self.known.lock().batches.keys().copied().collect()
    }

    pub(crate) fn add_batch(&self, batch: BatchId) {
        self.known.lock().batches.entry(batch).or_insert_with(|| Batch::new(batch));
    }

    pub(crate) fn remove_batch(&self, batch: BatchId) {
        self.known.lock().batches.remove(&batch);
    }

    pub(crate) fn usage(&self) -> Usage {
        self.known.lock().usage.clone()
    }

    pub(crate) fn set_usage(&self, usage: Usage) {
        self.known.lock().usage = usage;
    }

    /// Number of the next entry that is wanted from the provider's log.
    pub(crate) fn next(&self) -> u64 {
        self.known.lock().next
    }

    /// The requestor wants it ended, and knows better than the provider why.
    pub(crate) fn ask_end_because(&self, why: &str) {
        self.known.lock().why = Some(why.to_owned());
        self.ask_end();
    }

    /// The requestor wants it ended.
    pub(crate) fn ask_end(&self) {
        self.end_asked.store(true, Ordering::Release);
        self.tick.send_modify(|tick| *tick += 1);
    }

    /// The provider knows that it is over.
    pub(crate) fn told_end(&self) {
        self.end_asked.store(false, Ordering::Release);
    }

    /// Whether the provider is to be told that it is over.
    pub(crate) fn end_asked(&self) -> bool {
        self.end_asked.load(Ordering::Acquire)
    }

    /// Takes in an entry of the provider's log. Says whether the state changed.
    pub(crate) fn apply(&self, entry: Numbered) -> bool {
        let mut known = self.known.lock();
        if let Some(number) = entry.number {
            if number < known.next {
                return false;
            }
            known.next = number + 1;
        }
        let changed = known.apply(entry.update);
        drop(known);
        self.tick.send_modify(|tick| *tick += 1);
        changed
    }

    /// It has ended: notes why, and fails what was running.
    pub(crate) fn end(&self, reason: Option<String>) {
        let mut known = self.known.lock();
        known.info.end(reason);
        known.abort_batches();
        drop(known);
        self.tick.send_modify(|tick| *tick += 1);
    }

    pub(crate) fn results(&self, batch: BatchId) -> Result<BatchResults, NodeError> {
        let known = self.known.lock();
        known.batches.get(&batch).map(Batch::results).ok_or_else(|| unknown(batch))
    }

    /// The command that runs; one at a time does.
    pub(crate) fn running(&self) -> Option<ExeCommand> {
        self.known.lock().batches.values().find_map(|batch| batch.running().cloned())
    }

    pub(crate) async fn wait(
        &self,
        batch: BatchId,
        index: Option<u32>,
    ) -> Result<BatchResults, NodeError> {
        let mut ticks = self.tick.subscribe();
        loop {
            ticks.borrow_and_update();
            {
                let known = self.known.lock();
                let found = known.batches.get(&batch).ok_or_else(|| unknown(batch))?;
                if found.has(index) {
                    return Ok(found.results());
                }
            }
            if ticks.changed().await.is_err() {
                return self.results(batch);
            }
        }
    }

    pub(crate) fn events(&self, batch: BatchId) -> Result<EventStream, NodeError> {
        if !self.known.lock().batches.contains_key(&batch) {
            return Err(unknown(batch));
        }
        let (sender, receiver) = mpsc::channel(64);
        let (known, mut ticks) = (self.known.clone(), self.tick.subscribe());
        tokio::spawn(async move {
            let mut from = 0;
            loop {
                ticks.borrow_and_update();
                let read = known.lock().batches.get(&batch).map(|b| b.events_from(from));
                let Some((events, next, last)) = read else { return };
                for event in events {
                    if sender.send(event.as_ref().clone()).await.is_err() {
                        return;
                    }
                }
                from = next;
                if last {
                    return;
                }
                tokio::select! {
                    changed = ticks.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(receiver)
    }
}

impl Known {
    fn apply(&mut self, update: ActivityUpdate) -> bool {
        match update {
            ActivityUpdate::State { state, reason, at: _ } => {
                if self.info.is_over() {
                    return false;
                }
                if state.0 == gvpn_model::ActivityState::Terminated {
                    self.info.end(self.why.clone().or(reason));
                    self.abort_batches();
                } else {
                    self.info.state = state;
                }
                true
            }
            ActivityUpdate::Event(event) => {
                let id = event.batch_id;
                self.batches.entry(id).or_insert_with(|| Batch::new(id)).event(event);
                false
            }
            ActivityUpdate::Result { batch, result } => {
                self.batches.entry(batch).or_insert_with(|| Batch::new(batch)).result(result);
                false
            }
            ActivityUpdate::Alive => false,
        }
    }

    fn abort_batches(&mut self) {
        let reason = self.info.reason.as_deref().unwrap_or("no reason given");
        let message = format!("the activity has ended: {reason}");
        self.batches.values_mut().for_each(|batch| batch.abort(&message));
    }
}

fn unknown(batch: BatchId) -> NodeError {
    NodeError::not_found(format!("the activity has no batch {batch}"))
}
