//! What happened to a running activity, kept for its requestor.

use std::collections::{BTreeMap, VecDeque};

use gvpn_model::BatchEventKind;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::proto::{ActivityUpdate, Numbered};

/// Bytes of captured output that are kept for a requestor that is away; the oldest goes first.
const KEPT: usize = 32 << 20;

/// The log of one activity. States and results stay, output goes when there is too much of it.
pub(crate) struct Log {
    entries: Mutex<Entries>,
    /// The number of the next entry, for those who wait for it.
    tick: watch::Sender<u64>,
}

#[derive(Default)]
struct Entries {
    next: u64,
    all: BTreeMap<u64, ActivityUpdate>,
    output: VecDeque<(u64, usize)>,
    bytes: usize,
    closed: bool,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self { entries: Mutex::default(), tick: watch::Sender::new(0) }
    }

    /// Adds an entry, unless the log is closed.
    pub(crate) fn push(&self, update: ActivityUpdate) {
        let mut entries = self.entries.lock();
        if entries.closed {
            return;
        }
        let number = entries.next;
        entries.next += 1;
        if let Some(size) = output_size(&update) {
            entries.output.push_back((number, size));
            entries.bytes += size;
        }
        entries.all.insert(number, update);
        while entries.bytes > KEPT {
            let Some((number, size)) = entries.output.pop_front() else { break };
            entries.all.remove(&number);
            entries.bytes -= size;
        }
        self.tick.send_replace(entries.next);
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        let mut entries = self.entries.lock();
        entries.closed = true;
        self.tick.send_replace(entries.next);
    }

    /// Up to `limit` entries from `from` on, and whether the log ended with them.
    pub(crate) fn read(&self, from: u64, limit: usize) -> (Vec<Numbered>, bool) {
        let entries = self.entries.lock();
        let some: Vec<_> = entries
            .all
            .range(from..)
            .take(limit)
            .map(|(number, update)| Numbered { number: Some(*number), update: update.clone() })
            .collect();
        let ended = entries.closed && some.len() < limit;
        (some, ended)
    }

    /// Changes when there is something new.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.tick.subscribe()
    }
}

/// Size of an entry that may be dropped.
fn output_size(update: &ActivityUpdate) -> Option<usize> {
    match update {
        ActivityUpdate::Event(event) => match &event.kind {
            BatchEventKind::Stdout(text) | BatchEventKind::Stderr(text) => Some(text.len() + 64),
            BatchEventKind::Started { .. } | BatchEventKind::Finished { .. } => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use gvpn_model::{ActivityState, BatchEvent, BatchId};

    use super::*;

    fn output(bytes: usize) -> ActivityUpdate {
        ActivityUpdate::Event(BatchEvent {
            batch_id: BatchId::from_bytes([0; 16]),
            index: 0,
            timestamp: Utc::now(),
            kind: BatchEventKind::Stdout("x".repeat(bytes)),
        })
    }

    fn state() -> ActivityUpdate {
        let state = (ActivityState::Ready, None);
        ActivityUpdate::State { state, reason: None, at: Utc::now() }
    }

    #[test]
    fn output_is_dropped_before_anything_else() {
        let log = Log::new();
        log.push(state());
        for _ in 0..40 {
            log.push(output(1 << 20));
        }
        log.push(state());
        let (entries, ended) = log.read(0, 1000);
        assert!(!ended);
        assert_eq!(entries.first().unwrap().number, Some(0));
        assert_eq!(entries.last().unwrap().number, Some(41));
        assert!(entries.len() < 36, "{}", entries.len());
    }

    #[test]
    fn a_closed_log_is_read_to_its_end() {
        let log = Log::new();
        log.push(state());
        log.push(state());
        log.close();
        log.push(state());
        assert!(!log.read(0, 2).1);
        let (rest, ended) = log.read(2, 2);
        assert!(rest.is_empty() && ended);
    }
}
