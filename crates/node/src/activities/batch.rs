//! A batch as its requestor knows it.

use std::{collections::VecDeque, sync::Arc};

use chrono::Utc;
use gvpn_model::{BatchEvent, BatchEventKind, BatchId, CommandResult, ExeCommand, ResultKind};

use crate::BatchResults;

/// Bytes of streamed output that are kept for clients that come late; the oldest goes first.
const KEPT: usize = 16 << 20;

/// What is known of a batch.
#[derive(Debug)]
pub(crate) struct Batch {
    id: BatchId,
    results: Vec<CommandResult>,
    events: VecDeque<Arc<BatchEvent>>,
    /// Number of the first event that is still kept.
    first: usize,
    bytes: usize,
    running: Option<ExeCommand>,
    finished: bool,
}

impl Batch {
    pub(crate) fn new(id: BatchId) -> Self {
        let (results, events) = Default::default();
        Self { id, results, events, first: 0, bytes: 0, running: None, finished: false }
    }

    pub(crate) fn event(&mut self, event: BatchEvent) {
        match &event.kind {
            BatchEventKind::Started { command } => {
                self.running = serde_json::from_value(command.clone()).ok();
            }
            BatchEventKind::Finished { .. } => self.running = None,
            BatchEventKind::Stdout(_) | BatchEventKind::Stderr(_) => {}
        }
        self.bytes += size(&event);
        self.events.push_back(Arc::new(event));
        while self.bytes > KEPT {
            let Some(gone) = self.events.pop_front() else { break };
            self.bytes -= size(&gone);
            self.first += 1;
        }
    }

    /// Results come in order; what is known already is ignored.
    pub(crate) fn result(&mut self, result: CommandResult) {
        if !self.finished && result.index as usize == self.results.len() {
            self.finished = result.is_batch_finished;
            self.results.push(result);
        }
    }

    /// The activity has ended: if the batch had not, it fails with this message.
    pub(crate) fn abort(&mut self, message: &str) {
        if self.finished {
            return;
        }
        let index = u32::try_from(self.results.len()).unwrap_or(u32::MAX);
        let (timestamp, message) = (Utc::now(), Some(message.to_owned()));
        let kind = BatchEventKind::Finished { return_code: 1, message: message.clone() };
        self.event(BatchEvent { batch_id: self.id, index, timestamp, kind });
        self.result(CommandResult {
            index,
            event_date: timestamp,
            result: ResultKind::Error,
            stdout: None,
            stderr: None,
            message,
            is_batch_finished: true,
        });
    }

    pub(crate) fn results(&self) -> BatchResults {
        BatchResults { results: self.results.clone(), finished: self.finished }
    }

    /// The command that has started and not ended.
    pub(crate) fn running(&self) -> Option<&ExeCommand> {
        self.running.as_ref().filter(|_| !self.finished)
    }

    /// Whether a wait for `index`, or for the end, is over.
    pub(crate) fn has(&self, index: Option<u32>) -> bool {
        self.finished || index.is_some_and(|index| self.results.len() > index as usize)
    }

    /// Events from number `from` on with the number to go on at, and whether they are the last.
    pub(crate) fn events_from(&self, from: usize) -> (Vec<Arc<BatchEvent>>, usize, bool) {
        let skip = from.saturating_sub(self.first);
        let events: Vec<_> = self.events.iter().skip(skip).cloned().collect();
        (events, self.first + self.events.len(), self.finished)
    }
}

fn size(event: &BatchEvent) -> usize {
    match &event.kind {
        BatchEventKind::Stdout(text) | BatchEventKind::Stderr(text) => text.len() + 128,
        BatchEventKind::Started { .. } | BatchEventKind::Finished { .. } => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(index: u32, last: bool) -> CommandResult {
        CommandResult {
            index,
            event_date: Utc::now(),
            result: ResultKind::Ok,
            stdout: None,
            stderr: None,
            message: None,
            is_batch_finished: last,
        }
    }

    #[test]
    fn repeated_results_change_nothing() {
        let mut batch = Batch::new(BatchId::random());
        for index in [0, 0, 1, 0, 1] {
            batch.result(result(index, false));
        }
        assert_eq!(batch.results().results.len(), 2);
        assert!(batch.has(Some(1)) && !batch.has(Some(2)) && !batch.has(None));
    }

    #[test]
    fn the_command_that_runs_is_known_while_it_does() {
        let mut batch = Batch::new(BatchId::random());
        let (batch_id, timestamp) = (batch.id, Utc::now());
        let event = |batch: &mut Batch, kind| {
            batch.event(BatchEvent { batch_id, index: 0, timestamp, kind });
        };
        let command = serde_json::json!({ "run": { "entry_point": "/bin/sh", "args": ["-c"] } });
        event(&mut batch, BatchEventKind::Started { command });
        assert!(matches!(batch.running(), Some(ExeCommand::Run(run)) if run.args == ["-c"]));
        event(&mut batch, BatchEventKind::Stdout("x".to_owned()));
        assert!(batch.running().is_some());
        event(&mut batch, BatchEventKind::Finished { return_code: 0, message: None });
        assert!(batch.running().is_none());
    }

    #[test]
    fn an_unfinished_batch_fails_with_its_activity() {
        let mut batch = Batch::new(BatchId::random());
        batch.result(result(0, false));
        batch.abort("the provider is gone");
        batch.abort("again");
        let results = batch.results();
        assert!(results.finished && results.results.len() == 2);
        assert_eq!(results.results[1].message.as_deref(), Some("the provider is gone"));
        let (events, _, last) = batch.events_from(0);
        assert!(last && events.len() == 1);
    }

    #[test]
    fn late_readers_get_what_is_kept() {
        let mut batch = Batch::new(BatchId::random());
        for n in 0..40 {
            let kind = BatchEventKind::Stdout(format!("{n}").repeat(512 << 10));
            let (batch_id, timestamp) = (batch.id, Utc::now());
            batch.event(BatchEvent { batch_id, index: 0, timestamp, kind });
        }
        let (events, next, last) = batch.events_from(0);
        assert!(!last && events.len() < 40 && next == 40);
        assert!(batch.events_from(next).0.is_empty());
    }
}
