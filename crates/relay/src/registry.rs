//! Who is where.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gvpn_model::NodeId;
use gvpn_net::{MAX_RECORD_BYTES, NodeRecord, RecordError, SignedRecord};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::{
    fleet::{Outbox, Shelf, Verdict},
    store::{Kept, REMEMBERED, Store},
};

/// How long changes are collected before they are written.
const COLLECT: Duration = Duration::from_millis(200);
/// Beside the record itself: its signature, and lengths.
const SIGNED: usize = 256;

/// The registry's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the registry's file cannot be used: {0}; check that it is writable and a SQLite database")]
pub struct RegistryError(#[from] rusqlite::Error);

/// Why a record is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("the registry is full")]
    Full,
}

/// Records of nodes.
#[derive(Debug)]
pub(crate) struct Registry {
    records: RwLock<HashMap<NodeId, Entry>>,
    capacity: usize,
    writer: mpsc::UnboundedSender<Kept>,
    outbox: Outbox,
}

#[derive(Debug, Clone)]
struct Entry {
    signed: SignedRecord,
    sequence: u64,
    /// Where the node was when it registered here.
    observed: Option<SocketAddr>,
    /// Whether it registered here, not only elsewhere in the fleet.
    own: bool,
    /// When it was last renewed, in seconds since 1970.
    seen: i64,
}

impl Registry {
    /// Loads what was kept.
    pub(crate) fn open(path: Option<&Path>, capacity: usize) -> Result<Arc<Self>, RegistryError> {
        let store = Store::open(path)?;
        let mut records = HashMap::new();
        for (signed, observed, seen) in store.load(seconds())? {
            if let Ok(record) = signed.open() {
                let (sequence, own) = (record.sequence, observed.is_some());
                records.insert(record.node, Entry { signed, sequence, observed, own, seen });
            }
        }
        let (writer, changes) = mpsc::unbounded_channel();
        tokio::spawn(write(store, changes));
        let records = RwLock::new(records);
        Ok(Arc::new(Self { records, capacity, writer, outbox: Outbox::default() }))
    }

    /// Takes a node's own record. An older one than is known is ignored.
    pub(crate) fn put(
        &self,
        node: NodeId,
        signed: SignedRecord,
        observed: Option<SocketAddr>,
    ) -> Result<NodeRecord, Refusal> {
        let record = signed.open()?;
        if record.node != node {
            return Err(RecordError::Signature.into());
        }
        let mut records = self.records.write();
        if records.len() >= self.capacity && !records.contains_key(&node) {
            return Err(Refusal::Full);
        }
        let sequence = record.sequence;
        let fresh = Entry { signed, sequence, observed, own: true, seen: seconds() };
        let entry = records.entry(node).or_insert_with(|| fresh.clone());
        if entry.sequence < sequence {
            *entry = fresh;
        } else {
            (entry.observed, entry.own, entry.seen) = (observed, true, fresh.seen);
        }
        let kept = entry.kept(node);
        drop(records);
        // The writer is gone only while the relay ends.
        let _ = self.writer.send(kept);
        self.outbox.add(node);
        Ok(record)
    }

    /// A node's record.
    pub(crate) fn get(&self, node: NodeId) -> Option<SignedRecord> {
        self.records.read().get(&node).map(|entry| entry.signed.clone())
    }

    /// Where the nodes were when they registered.
    pub(crate) fn observed(&self) -> Vec<SocketAddr> {
        self.records.read().values().filter_map(|entry| entry.observed).collect()
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.records.read().len()
    }

    /// Forgets nodes that have not been heard of for long, unless they are here.
    pub(crate) fn sweep(&self, here: impl Fn(NodeId) -> bool) {
        let oldest = seconds() - REMEMBERED.as_secs().cast_signed();
        self.records.write().retain(|node, entry| entry.seen >= oldest || here(*node));
    }
}

impl Entry {
    fn kept(&self, node: NodeId) -> Kept {
        Kept { node, record: self.signed.clone(), observed: self.observed }
    }
}

impl Shelf for Registry {
    const NAME: &'static str = "records";
    const KEPT: Duration = REMEMBERED;

    fn get(&self, node: NodeId) -> Option<Vec<u8>> {
        postcard::to_stdvec(&self.get(node)?).ok()
    }

    fn own(&self) -> Vec<NodeId> {
        let records = self.records.read();
        records.iter().filter(|(_, entry)| entry.own).map(|(node, _)| *node).collect()
    }

    fn take(&self, node: NodeId, bytes: &[u8]) -> Verdict {
        if bytes.len() > MAX_RECORD_BYTES + SIGNED {
            return Verdict::Refused;
        }
        let Ok(signed) = postcard::from_bytes::<SignedRecord>(bytes) else {
            return Verdict::Refused;
        };
        let Some(record) = signed.open().ok().filter(|record| record.node == node) else {
            return Verdict::Refused;
        };
        let (sequence, seen) = (record.sequence, seconds());
        let mut records = self.records.write();
        let full = records.len() >= self.capacity;
        match records.get_mut(&node) {
            Some(known) if known.sequence > sequence => return Verdict::Outdated,
            Some(known) if known.sequence == sequence => return Verdict::Known,
            Some(known) => (known.signed, known.sequence, known.seen) = (signed, sequence, seen),
            None if full => return Verdict::Refused,
            None => {
                let entry = Entry { signed, sequence, observed: None, own: false, seen };
                records.insert(node, entry);
            }
        }
        let kept = records.get(&node).map(|entry| entry.kept(node));
        drop(records);
        if let Some(kept) = kept {
            // The writer is gone only while the relay ends.
            let _ = self.writer.send(kept);
        }
        Verdict::Learnt
    }

    fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

/// Writes what changes, many changes at a time.
async fn write(mut store: Store, mut changes: mpsc::UnboundedReceiver<Kept>) {
    while let Some(first) = changes.recv().await {
        tokio::time::sleep(COLLECT).await;
        let mut batch = vec![first];
        while let Ok(next) = changes.try_recv() {
            batch.push(next);
        }
        let written = tokio::task::spawn_blocking(move || {
            let result = store.put(&batch, seconds());
            (store, result)
        });
        match written.await {
            Ok((back, result)) => {
                store = back;
                if let Err(error) = result {
                    tracing::error!(%error, "records are not kept: they are lost at a restart");
                }
            }
            Err(error) => return tracing::error!(%error, "the registry's writer ended"),
        }
    }
}

fn seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use gvpn_identity::Identity;

    use super::*;

    fn record(identity: &Identity, sequence: u64) -> SignedRecord {
        let node = identity.node_id();
        let record = NodeRecord { node, sequence, addrs: vec![], relays: vec![] };
        SignedRecord::sign(identity, &record)
    }

    #[tokio::test]
    async fn what_the_fleet_says_is_checked_and_the_newest_wins() {
        let registry = Registry::open(None, 2).unwrap();
        let (me, other) = (Identity::generate(), Identity::generate());
        let node = me.node_id();
        let bytes = |sequence| postcard::to_stdvec(&record(&me, sequence)).unwrap();
        assert_eq!(registry.take(node, &bytes(5)), Verdict::Learnt);
        assert_eq!(registry.take(node, &bytes(5)), Verdict::Known);
        assert_eq!(registry.take(node, &bytes(4)), Verdict::Outdated);
        assert_eq!(registry.take(other.node_id(), &bytes(6)), Verdict::Refused);
        assert_eq!(registry.take(node, &[7; 4000]), Verdict::Refused);
        assert!(registry.own().is_empty());
        let at = Some("192.0.2.1:1".parse().unwrap());
        registry.put(node, record(&me, 3), at).unwrap();
        assert_eq!((registry.own(), registry.observed().len()), (vec![node], 1));
        assert_eq!(registry.get(node), Some(record(&me, 5)), "the older one is not taken");
        assert_eq!(registry.take(node, &bytes(7)), Verdict::Learnt);
        assert_eq!(registry.observed().len(), 1, "it is still here");
        registry.put(other.node_id(), record(&other, 1), None).unwrap();
        let third = Identity::generate();
        let full = registry.put(third.node_id(), record(&third, 1), None);
        assert!(matches!(full, Err(Refusal::Full)));
    }
}
