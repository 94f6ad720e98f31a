//! The market service: the engine of `gvpn-market` with a clock, a store and other nodes.

mod agent;
mod binding;
pub(crate) mod capabilities;
mod config;
mod delivery;
mod offers;
mod presets;
mod scan;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use gvpn_market::{Market, Notice, Record, SignedSheet, Transmit};
use gvpn_model::LongPoll;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{Activities, Agreements, Images, NodeError, Payments, core::Core, courier::Courier};

pub use config::MarketConfig;
pub use scan::{ScanId, ScanRequest};

use agent::Agent;
use offers::Spread;
use presets::Presets;
use scan::Scans;

/// Kind of the documents that keep the market's records.
const KIND: &str = "market";

/// The market service. Clones are handles of the same one.
#[derive(Clone)]
pub struct Markets {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    agreements: Agreements,
    activities: Activities,
    payments: Payments,
    images: Images,
    engine: Mutex<Market>,
    /// Counts changes, for whoever waits for one.
    ticks: watch::Sender<u64>,
    courier: Arc<Courier<Transmit>>,
    spread: Spread,
    scans: Scans,
    presets: Presets,
    agent: Agent,
}

impl Markets {
    /// Takes up what was kept and starts to take part.
    pub(crate) fn start(
        core: &Arc<Core>,
        agreements: &Agreements,
        activities: &Activities,
        payments: &Payments,
        images: &Images,
    ) -> Result<Self, NodeError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|e| NodeError::internal(format!("no randomness from the system: {e}")))?;
        let mut engine = Market::new(core.config.identity.clone(), seed);
        engine.restore(Utc::now(), core.store.documents::<Record>(KIND)?);
        let this = Self {
            inner: Arc::new(Inner {
                core: core.clone(),
                agreements: agreements.clone(),
                activities: activities.clone(),
                payments: payments.clone(),
                images: images.clone(),
                engine: Mutex::new(engine),
                ticks: watch::Sender::new(0),
                courier: Arc::default(),
                spread: Spread::default(),
                scans: Scans::default(),
                presets: Presets::open(core)?,
                agent: Agent::default(),
            }),
        };
        this.know_contracts();
        this.serve();
        this.keep_time();
        this.follow_agreements();
        this.spread_offers();
        this.run_agent();
        this.act(|_, _| ());
        Ok(this)
    }

    /// Does something on the market, and has done what follows from it.
    pub fn act<R>(&self, action: impl FnOnce(&mut Market, DateTime<Utc>) -> R) -> R {
        let mut transmits = Vec::new();
        let mut notices = Vec::new();
        let result = {
            let mut engine = self.inner.engine.lock();
            let result = action(&mut engine, Utc::now());
            self.keep_records(&mut engine);
            transmits.extend(std::iter::from_fn(|| engine.poll_transmit()));
            notices.extend(std::iter::from_fn(|| engine.poll_notice()));
            result
        };
        transmits.into_iter().for_each(|transmit| self.send(transmit));
        notices.into_iter().for_each(|notice| self.notice(notice));
        self.inner.ticks.send_modify(|n| *n += 1);
        result
    }

    /// Looks at the market without changing it.
    pub fn look<R>(&self, view: impl FnOnce(&Market) -> R) -> R {
        view(&self.inner.engine.lock())
    }

    /// A long poll: asks again at every change until there is an answer or the time is up.
    ///
    /// # Errors
    /// Those of `ask`.
    pub async fn poll<T, E>(
        &self,
        patience: Duration,
        mut ask: impl FnMut(&mut Market, DateTime<Utc>, DateTime<Utc>) -> Result<LongPoll<T>, E>,
    ) -> Result<Vec<T>, E> {
        let deadline = Utc::now() + patience;
        let mut ticks = self.inner.ticks.subscribe();
        loop {
            ticks.borrow_and_update();
            let answer = {
                let mut engine = self.inner.engine.lock();
                let answer = ask(&mut engine, Utc::now(), deadline)?;
                self.keep_records(&mut engine);
                answer
            };
            let until = match answer {
                LongPoll::Answer(found) => return Ok(found),
                LongPoll::Wait(until) => until,
            };
            let left = (until - Utc::now()).to_std().unwrap_or_default();
            // The clock that ends the wait may tick a little ahead of the one that decides.
            let left = left + Duration::from_millis(1);
            let _ = tokio::time::timeout(left, ticks.changed()).await;
        }
    }

    fn keep_records(&self, engine: &mut Market) {
        while let Some(record) = engine.poll_record() {
            self.keep(&record);
        }
    }

    fn keep(&self, record: &Record) {
        let (store, key) = (&self.inner.core.store, record.key());
        let kept = if record.is_end() {
            store.remove_document(KIND, &key).map(drop)
        } else {
            store.put_document(KIND, &key, record)
        };
        if let Err(error) = kept {
            tracing::error!(%key, %error, "a record of the market was not kept");
        }
    }

    fn notice(&self, notice: Notice) {
        match notice {
            Notice::Approved { agreement, side } => self.came_into_force(*agreement, side),
            Notice::NobodyMatches { demand, summary } => {
                tracing::warn!(%demand, "a demand finds nobody: {summary}");
            }
            Notice::Terminated { agreement, side, by: _, reason } => {
                self.ended(*agreement, side, reason);
            }
        }
    }

    /// What expires, expires.
    fn keep_time(&self) {
        let this = self.clone();
        self.inner.core.spawn(async move {
            let mut ticks = this.inner.ticks.subscribe();
            loop {
                ticks.borrow_and_update();
                let now = Utc::now();
                let next = this.look(Market::poll_timeout);
                let wait = next.map(|at| (at - now).to_std().unwrap_or_default());
                match wait {
                    Some(Duration::ZERO) => this.act(|market, now| market.handle_timeout(now)),
                    Some(wait) => {
                        let wait = wait + Duration::from_millis(1);
                        let _ = tokio::time::timeout(wait, ticks.changed()).await;
                    }
                    None => {
                        let _ = ticks.changed().await;
                    }
                }
            }
        });
    }

    fn learn(&self, sheet: SignedSheet) {
        let learned = self.act(|market, now| market.learn_offers(now, sheet));
        match learned {
            Ok(()) | Err(gvpn_market::SheetError::Stale) => {}
            Err(error) => tracing::debug!(%error, "offers of a provider were not taken"),
        }
    }
}
