//! Scans: a client looks at offers without demanding anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use gvpn_market::{Constraint, Offer, SubscriptionId};
use gvpn_model::{LongPoll, NodeId};
use parking_lot::Mutex;
use serde::Deserialize;

use super::Markets;
use crate::{ErrorKind, NodeError};

/// Most scans at a time.
const MAX_SCANS: usize = 256;
/// How long a scan lasts that nobody asks any more.
const LIFE: TimeDelta = TimeDelta::hours(1);

/// A scan's name.
pub type ScanId = String;

/// What a client wants to see. Further fields are ignored.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScanRequest {
    /// `offer`; demands of other nodes are not to be seen.
    #[serde(rename = "type")]
    pub kind: String,
    /// Only offers that meet this.
    #[serde(default)]
    pub constraints: Option<String>,
}

#[derive(Default)]
pub(super) struct Scans {
    all: Mutex<BTreeMap<ScanId, Scan>>,
}

struct Scan {
    constraint: Constraint,
    shown: BTreeSet<SubscriptionId>,
    asked: DateTime<Utc>,
}

impl Markets {
    /// Begins a scan.
    ///
    /// # Errors
    /// `Invalid` for constraints that cannot be read, or a scan for demands.
    pub fn begin_scan(&self, request: &ScanRequest) -> Result<ScanId, NodeError> {
        if !request.kind.eq_ignore_ascii_case("offer") {
            return Err(NodeError::invalid("only offers can be scanned: type must be `offer`"));
        }
        let text = request.constraints.as_deref().unwrap_or_default();
        let constraint = Constraint::parse(text).map_err(NodeError::invalid)?;
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|e| NodeError::internal(format!("no randomness from the system: {e}")))?;
        let id = hex::encode(id);
        let now = Utc::now();
        let mut all = self.inner.scans.all.lock();
        all.retain(|_, scan| scan.asked + LIFE > now);
        if all.len() >= MAX_SCANS {
            return Err(NodeError::new(
                ErrorKind::Unavailable,
                format!("there are {MAX_SCANS} scans already: end some"),
            ));
        }
        all.insert(id.clone(), Scan { constraint, shown: BTreeSet::new(), asked: now });
        self.inner.spread.scans.store(all.len(), Ordering::Relaxed);
        drop(all);
        self.act(|_, _| ());
        Ok(id)
    }

    /// Offers that the scan has not shown yet, of one provider if `peer` says which.
    ///
    /// # Errors
    /// `NotFound`, also when the scan ends meanwhile.
    pub async fn scan(
        &self,
        id: &str,
        patience: Duration,
        max: usize,
        peer: Option<NodeId>,
    ) -> Result<Vec<Offer>, NodeError> {
        self.poll(patience, |market, now, deadline| {
            let mut all = self.inner.scans.all.lock();
            let scan = all
                .get_mut(id)
                .ok_or_else(|| NodeError::not_found(format!("there is no scan {id}")))?;
            scan.asked = now;
            let found: Vec<_> = market
                .known_offers()
                .filter(|o| peer.is_none_or(|p| p == o.provider_id))
                .filter(|o| !scan.shown.contains(&o.offer_id))
                .filter(|o| scan.constraint.is_met_by(&o.draft.properties))
                .take(max)
                .cloned()
                .collect();
            scan.shown.extend(found.iter().map(|o| o.offer_id.clone()));
            Ok(LongPoll::decide(found, now, deadline))
        })
        .await
    }

    /// Ends a scan.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn end_scan(&self, id: &str) -> Result<(), NodeError> {
        let mut all = self.inner.scans.all.lock();
        all.remove(id).ok_or_else(|| NodeError::not_found(format!("there is no scan {id}")))?;
        self.inner.spread.scans.store(all.len(), Ordering::Relaxed);
        drop(all);
        self.act(|_, _| ());
        Ok(())
    }
}
