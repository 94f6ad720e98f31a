//! The daemon, as its ExeUnit sees it.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    os::fd::OwnedFd,
};

use gvpn_vnic::channel::Sender;
use tokio::sync::oneshot;

use crate::wire::{Report, Request};

type Outcome = Result<Option<String>, String>;

pub(super) struct Daemon {
    sender: Sender,
    last: Cell<u64>,
    waiting: RefCell<HashMap<u64, oneshot::Sender<Outcome>>>,
}

impl Daemon {
    pub(super) fn new(sender: Sender) -> Self {
        Self { sender, last: Cell::default(), waiting: RefCell::default() }
    }

    /// Reports, waiting for the daemon to keep up. One that is gone is noticed elsewhere.
    pub(super) async fn report(&self, report: Report) {
        let _ = self.sender.send(&report, vec![]).await;
    }

    /// Asks for something and waits for the answer.
    pub(super) async fn ask(&self, request: Request, fds: Vec<OwnedFd>) -> Outcome {
        let id = self.last.get() + 1;
        self.last.set(id);
        let (answer, answered) = oneshot::channel();
        self.waiting.borrow_mut().insert(id, answer);
        let gone = || "the daemon is gone".to_owned();
        let report = Report::Request { id, request };
        self.sender.send(&report, fds).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }

    /// Passes an answer on to who asked.
    pub(super) fn replied(&self, id: u64, outcome: Outcome) {
        if let Some(answer) = self.waiting.borrow_mut().remove(&id) {
            let _ = answer.send(outcome);
        }
    }

    /// Says why it ends and waits until that has left.
    pub(super) async fn last_word(&self, reason: Option<String>) {
        let _ = self.sender.post(&Report::Ended(reason), vec![]);
        self.sender.flush().await;
    }
}
