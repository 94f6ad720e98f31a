//! Offers of the market: providers bring theirs, requestors ask what has changed.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use gvpn_market::{MAX_SHEET, MAX_WAIT_MS, OfferDesk, OfferReply, OfferRequest, SignedSheet};
use gvpn_model::NodeId;
use gvpn_net::{Incoming, NetError, Stream};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::{
    fleet::{Outbox, Shelf, Verdict},
    limit::Bucket,
};

/// Providers whose offers are kept.
const MAX_PROVIDERS: usize = 20_000;
/// Requests of one node in a second, in the long run, and at once.
const RATE: (f64, f64) = (5.0, 100.0);
/// Nodes whose requests are counted at a time.
const COUNTED: usize = 100_000;
/// How long a request may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often expired offers are swept.
const SWEEP: Duration = Duration::from_secs(10);

/// The offers that a relay keeps.
#[derive(Debug)]
pub(crate) struct Offers {
    desk: Mutex<OfferDesk>,
    changed: watch::Sender<()>,
    asked: Mutex<HashMap<NodeId, Bucket>>,
    outbox: Outbox,
}

impl Offers {
    pub(crate) fn new() -> Arc<Self> {
        // A book's name only has to differ from the last one's.
        let name = Utc::now().timestamp_nanos_opt().unwrap_or(1).unsigned_abs();
        Arc::new(Self {
            desk: Mutex::new(OfferDesk::new(name, MAX_PROVIDERS)),
            changed: watch::Sender::new(()),
            asked: Mutex::default(),
            outbox: Outbox::default(),
        })
    }

    /// How many providers have offers here.
    pub(crate) fn providers(&self) -> usize {
        self.desk.lock().book().len()
    }

    /// Serves until the relay ends.
    pub(crate) async fn serve(self: Arc<Self>, mut incoming: mpsc::Receiver<Incoming>) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                call = incoming.recv() => {
                    let Some(call) = call else { return };
                    let this = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Err(error) = this.answer(call.peer, call.stream).await {
                            tracing::debug!(client = %call.peer, %error, "no answer about offers");
                        }
                    });
                }
                _ = sweep.tick() => self.desk.lock().expire(Utc::now()),
            }
        }
    }

    async fn answer(&self, node: NodeId, mut stream: Stream) -> Result<(), NetError> {
        let Ok(request) = tokio::time::timeout(PATIENCE, stream.recv_msg()).await else {
            return Ok(());
        };
        let Some(request) = request? else { return Ok(()) };
        let reply = self.reply(node, request).await;
        stream.send_msg(&Ok::<_, ()>(reply)).await?;
        stream.finish()
    }

    async fn reply(&self, node: NodeId, request: OfferRequest) -> OfferReply {
        if !self.may_ask(node) {
            return OfferReply::Refused("too many requests: ask less often".to_owned());
        }
        match request {
            OfferRequest::Publish(sheet) => {
                let kept = self.desk.lock().publish(Utc::now(), node, sheet);
                match kept {
                    Ok(()) => {
                        self.changed.send_replace(());
                        self.outbox.add(node);
                        OfferReply::Published
                    }
                    Err(error) => OfferReply::Refused(error.to_string()),
                }
            }
            OfferRequest::Changes { book, since, wait_ms } => {
                self.changes(book, since, wait_ms).await
            }
        }
    }

    async fn changes(&self, book: u64, since: u64, wait_ms: u32) -> OfferReply {
        let mut changed = self.changed.subscribe();
        let wait = Duration::from_millis(wait_ms.min(MAX_WAIT_MS).into());
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            let reply = self.desk.lock().changes(book, since);
            let woken = tokio::time::timeout_at(deadline, changed.changed());
            if !reply.is_empty() || wait_ms == 0 || woken.await.is_err() {
                return reply;
            }
        }
    }

    fn may_ask(&self, node: NodeId) -> bool {
        let now = Instant::now();
        let mut asked = self.asked.lock();
        if asked.len() >= COUNTED {
            asked.clear();
        }
        asked.entry(node).or_insert_with(|| Bucket::new(now, RATE.0, RATE.1)).take(now)
    }
}

impl Shelf for Offers {
    const NAME: &'static str = "offers";
    const KEPT: Duration = Duration::from_secs(2 * 3600);

    fn get(&self, node: NodeId) -> Option<Vec<u8>> {
        serde_json::to_vec(self.desk.lock().book().sheet(node)?).ok()
    }

    fn own(&self) -> Vec<NodeId> {
        // Whoever brought them here: there are few enough to share all.
        self.desk.lock().book().providers().collect()
    }

    fn take(&self, node: NodeId, bytes: &[u8]) -> Verdict {
        if bytes.len() > 3 * MAX_SHEET {
            return Verdict::Refused;
        }
        let Ok(sheet) = serde_json::from_slice::<SignedSheet>(bytes) else {
            return Verdict::Refused;
        };
        let mut desk = self.desk.lock();
        if desk.book().sheet(node) == Some(&sheet) {
            return Verdict::Known;
        }
        if desk.publish(Utc::now(), node, sheet.clone()).is_err() {
            return Verdict::Refused;
        }
        let learnt = desk.book().sheet(node) == Some(&sheet);
        drop(desk);
        if !learnt {
            return Verdict::Outdated;
        }
        self.changed.send_replace(());
        Verdict::Learnt
    }

    fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}
