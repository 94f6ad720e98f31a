//! The payment service: the ledger of `gvpn-payment` with a clock, a store and other nodes.

mod delivery;
mod notes;

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use gvpn_model::LongPoll;
use gvpn_payment::{Contract, Ledger, Record, Transmit, ZeroMoney};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::{Activities, Agreements, NodeError, core::Core, courier::Courier};

/// Kind of the documents that keep the ledger's records.
const KIND: &str = "payment";

/// The payment service. Clones are handles of the same one.
#[derive(Clone)]
pub struct Payments {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    agreements: Agreements,
    activities: Activities,
    ledger: Mutex<Ledger>,
    /// Agreements that documents may be about.
    contracts: RwLock<HashMap<String, Contract>>,
    /// Counts changes, for whoever waits for one.
    ticks: watch::Sender<u64>,
    courier: Arc<Courier<Transmit>>,
}

impl Payments {
    /// Takes up what was kept, sends again what was not acknowledged, and starts to serve.
    pub(crate) fn start(
        core: &Arc<Core>,
        agreements: &Agreements,
        activities: &Activities,
    ) -> Result<Self, NodeError> {
        let mut ledger = Ledger::new(core.me, Box::new(ZeroMoney), || {
            gvpn_model::ActivityId::random().as_bytes().to_owned()
        });
        ledger.restore(core.store.documents::<Record>(KIND)?);
        let this = Self {
            inner: Arc::new(Inner {
                core: core.clone(),
                agreements: agreements.clone(),
                activities: activities.clone(),
                ledger: Mutex::new(ledger),
                contracts: RwLock::default(),
                ticks: watch::Sender::new(0),
                courier: Arc::default(),
            }),
        };
        this.serve();
        this.act(|_, _| ());
        Ok(this)
    }

    /// Does something in the ledger, and has done what follows from it.
    pub fn act<R>(&self, action: impl FnOnce(&mut Ledger, DateTime<Utc>) -> R) -> R {
        let mut transmits = Vec::new();
        let result = {
            let mut ledger = self.inner.ledger.lock();
            let result = action(&mut ledger, Utc::now());
            while let Some(record) = ledger.poll_record() {
                self.keep(&record);
            }
            transmits.extend(std::iter::from_fn(|| ledger.poll_transmit()));
            result
        };
        transmits.into_iter().for_each(|transmit| self.send(transmit));
        self.inner.ticks.send_modify(|n| *n += 1);
        result
    }

    /// Looks into the ledger without changing it.
    pub fn look<R>(&self, view: impl FnOnce(&Ledger) -> R) -> R {
        view(&self.inner.ledger.lock())
    }

    /// A long poll: asks again at every change until there is an answer or the time is up.
    pub async fn poll<T>(
        &self,
        patience: Duration,
        ask: impl Fn(&Ledger, DateTime<Utc>, DateTime<Utc>) -> LongPoll<T>,
    ) -> Vec<T> {
        let deadline = Utc::now() + patience;
        let mut ticks = self.inner.ticks.subscribe();
        loop {
            ticks.borrow_and_update();
            let answer = ask(&self.inner.ledger.lock(), Utc::now(), deadline);
            let until = match answer {
                LongPoll::Answer(found) => return found,
                LongPoll::Wait(until) => until,
            };
            let left = (until - Utc::now()).to_std().unwrap_or_default();
            // The clock that ends the wait may tick a little ahead of the one that decides.
            let left = left + Duration::from_millis(1);
            let _ = tokio::time::timeout(left, ticks.changed()).await;
        }
    }

    /// The agreement that a client names.
    pub fn contract(&self, agreement: &str) -> Option<Contract> {
        self.inner.contracts.read().get(agreement).cloned()
    }

    /// Documents may be about this agreement from now on.
    pub(crate) fn know(&self, contract: Contract) {
        self.inner.contracts.write().insert(contract.agreement_id.clone(), contract);
    }

    fn keep(&self, record: &Record) {
        let (store, key) = (&self.inner.core.store, record.key());
        let kept = if record.is_end() {
            store.remove_document(KIND, &key).map(drop)
        } else {
            store.put_document(KIND, &key, record)
        };
        if let Err(error) = kept {
            tracing::error!(%key, %error, "a record of the ledger was not kept");
        }
    }
}
