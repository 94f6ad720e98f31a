//! Offers spread: this node's to the relays, other nodes' from there.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use gvpn_market::{MAX_WAIT_MS, OFFERS, OfferDesk, OfferReply, OfferRequest, SignedSheet};
use gvpn_model::NodeId;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Markets;
use crate::{NodeError, peers::Call};

/// How long a published sheet is valid.
const VALIDITY: TimeDelta = TimeDelta::minutes(5);
/// How often it is published anew.
const RENEWAL: Duration = Duration::from_secs(120);
/// Changes of this span are published together.
const GATHER: Duration = Duration::from_millis(50);
/// The pause after a relay did not answer, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

/// What is known about the spreading.
pub(super) struct Spread {
    /// This node's own offers, for who asks it directly.
    desk: Mutex<OfferDesk>,
    /// The newest sheet of this node.
    sheet: watch::Sender<Option<SignedSheet>>,
    /// Nodes that have a task already.
    asked: Mutex<HashSet<NodeId>>,
    /// How many scans are under way.
    pub(super) scans: AtomicUsize,
}

impl Default for Spread {
    fn default() -> Self {
        let id = Utc::now().timestamp_nanos_opt().unwrap_or(1).unsigned_abs();
        Self {
            desk: Mutex::new(OfferDesk::new(id, 1)),
            sheet: watch::Sender::new(None),
            asked: Mutex::default(),
            scans: AtomicUsize::new(0),
        }
    }
}

impl Markets {
    pub(super) fn spread_offers(&self) {
        self.publish_changes();
        self.serve_offers();
        self.find_keepers();
    }

    /// Signs a sheet whenever the offers change, and again before it expires.
    fn publish_changes(&self) {
        let this = self.clone();
        self.inner.core.spawn(async move {
            let mut ticks = this.inner.ticks.subscribe();
            let mut told = Vec::new();
            let mut renew_at = tokio::time::Instant::now() + RENEWAL;
            loop {
                ticks.borrow_and_update();
                let sheet = this.look(|market| market.offer_sheet(Utc::now(), VALIDITY));
                let ids: Vec<_> = sheet.offers.iter().map(|o| o.offer_id.clone()).collect();
                let due = tokio::time::Instant::now() >= renew_at;
                if due {
                    renew_at = tokio::time::Instant::now() + RENEWAL;
                }
                if ids != told || (due && !ids.is_empty()) {
                    match sheet.sign(&this.inner.core.config.identity) {
                        Ok(signed) => this.publish(signed),
                        Err(error) => tracing::error!(%error, "the offers cannot be published"),
                    }
                    told = ids;
                }
                tokio::select! {
                    _ = ticks.changed() => tokio::time::sleep(GATHER).await,
                    () = tokio::time::sleep_until(renew_at) => {}
                }
            }
        });
    }

    fn publish(&self, signed: SignedSheet) {
        let mut desk = self.inner.spread.desk.lock();
        if let Err(error) = desk.publish(Utc::now(), self.inner.core.me, signed.clone()) {
            tracing::error!(%error, "the offers are not as they should be");
        }
        self.inner.spread.sheet.send_replace(Some(signed));
    }

    /// A task for each relay, and each provider that is asked directly.
    fn find_keepers(&self) {
        for node in &self.inner.core.config.market.providers {
            self.ask_keeper(*node, false);
        }
        let this = self.clone();
        self.inner.core.spawn(async move {
            loop {
                for (_, relay) in this.inner.core.net.relays() {
                    this.ask_keeper(relay, true);
                }
                tokio::time::sleep(PAUSE.0).await;
            }
        });
    }

    fn ask_keeper(&self, node: NodeId, relay: bool) {
        if !self.inner.spread.asked.lock().insert(node) {
            return;
        }
        let this = self.clone();
        self.inner.core.spawn(async move { this.ask_for_changes(node).await });
        if relay {
            let this = self.clone();
            self.inner.core.spawn(async move { this.bring_sheets(node).await });
        }
    }

    /// Brings every new sheet of this node to a relay.
    async fn bring_sheets(&self, relay: NodeId) {
        let mut sheets = self.inner.spread.sheet.subscribe();
        let mut pause = PAUSE.0;
        loop {
            let sheet = sheets.borrow_and_update().clone();
            if let Some(sheet) = sheet {
                match self.ask(relay, &OfferRequest::Publish(sheet)).await {
                    Ok(OfferReply::Refused(reason)) => {
                        tracing::warn!(%relay, %reason, "the relay does not take the offers");
                    }
                    Ok(_) => pause = PAUSE.0,
                    Err(error) => {
                        tracing::debug!(%relay, %error, "the offers did not reach the relay");
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(PAUSE.1);
                        continue;
                    }
                }
            }
            if sheets.changed().await.is_err() {
                return;
            }
        }
    }

    /// Follows the offers that a node keeps, while anybody here wants any.
    async fn ask_for_changes(&self, node: NodeId) {
        let (mut book, mut since) = (0, 0);
        let mut pause = PAUSE.0;
        let mut first = true;
        loop {
            self.until_wanted().await;
            let wait_ms = if first { 0 } else { MAX_WAIT_MS };
            let request = OfferRequest::Changes { book, since, wait_ms };
            match self.ask(node, &request).await {
                Ok(OfferReply::Changes { book: b, cursor, sheets }) => {
                    first = false;
                    (book, since) = (b, cursor);
                    sheets.into_iter().for_each(|sheet| self.learn(sheet));
                    pause = PAUSE.0;
                }
                Ok(_) | Err(_) => {
                    tracing::debug!(%node, "no news of offers");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
        }
    }

    async fn until_wanted(&self) {
        let mut ticks = self.inner.ticks.subscribe();
        while self.inner.spread.scans.load(Ordering::Relaxed) == 0
            && self.look(|market| market.demands().is_empty())
        {
            let _ = ticks.changed().await;
        }
    }

    async fn ask(&self, node: NodeId, request: &OfferRequest) -> Result<OfferReply, NodeError> {
        self.inner.core.peers.poll(node, OFFERS, request).await
    }

    /// Answers who asks this node for its own offers.
    fn serve_offers(&self) {
        let mut calls = self.inner.core.peers.serve(OFFERS);
        let this = self.clone();
        self.inner.core.spawn(async move {
            while let Some(call) = calls.recv().await {
                let handler = this.clone();
                this.inner.core.spawn(async move { handler.answer_offers(call).await });
            }
        });
    }

    async fn answer_offers(&self, mut call: Call) {
        let reply = match call.request::<OfferRequest>().await {
            None => return,
            Some(OfferRequest::Publish(_)) => OfferReply::Refused(
                "this node is no relay: it keeps its own offers only".to_owned(),
            ),
            Some(OfferRequest::Changes { book, since, wait_ms }) => {
                self.own_changes(book, since, wait_ms).await
            }
        };
        call.answer(Ok(reply)).await;
    }

    async fn own_changes(&self, book: u64, since: u64, wait_ms: u32) -> OfferReply {
        let mut sheets = self.inner.spread.sheet.subscribe();
        sheets.borrow_and_update();
        let reply = self.inner.spread.desk.lock().changes(book, since);
        if !reply.is_empty() || wait_ms == 0 {
            return reply;
        }
        let wait = Duration::from_millis(wait_ms.min(MAX_WAIT_MS).into());
        let _ = tokio::time::timeout(wait, sheets.changed()).await;
        self.inner.spread.desk.lock().changes(book, since)
    }
}
