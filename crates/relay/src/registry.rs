//! Who is where.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gvpn_model::NodeId;
use gvpn_net::{NodeRecord, RecordError, SignedRecord};
use parking_lot::RwLock;
use tokio::sync::mpsc;

use crate::store::{Kept, Store};

/// How long changes are collected before they are written.
const COLLECT: Duration = Duration::from_millis(200);

/// The registry's file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the registry's file cannot be used: {0}; check that it is writable and a SQLite database")]
pub struct RegistryError(#[from] rusqlite::Error);

/// Records of nodes.
#[derive(Debug)]
pub(crate) struct Registry {
    records: RwLock<HashMap<NodeId, Entry>>,
    writer: mpsc::UnboundedSender<Kept>,
}

#[derive(Debug, Clone)]
struct Entry {
    signed: SignedRecord,
    sequence: u64,
    observed: Option<SocketAddr>,
}

impl Registry {
    /// Loads what was kept.
    pub(crate) fn open(path: Option<&Path>) -> Result<Arc<Self>, RegistryError> {
        let store = Store::open(path)?;
        let mut records = HashMap::new();
        for (signed, observed) in store.load(seconds())? {
            if let Ok(record) = signed.open() {
                let sequence = record.sequence;
                records.insert(record.node, Entry { signed, sequence, observed });
            }
        }
        let (writer, changes) = mpsc::unbounded_channel();
        tokio::spawn(write(store, changes));
        Ok(Arc::new(Self { records: RwLock::new(records), writer }))
    }

    /// Takes a node's own record. An older one than is known is ignored.
    pub(crate) fn put(
        &self,
        node: NodeId,
        signed: SignedRecord,
        observed: Option<SocketAddr>,
    ) -> Result<NodeRecord, RecordError> {
        let record = signed.open()?;
        if record.node != node {
            return Err(RecordError::Signature);
        }
        let mut records = self.records.write();
        let known = records.get(&node).map(|entry| entry.sequence);
        if known.is_none_or(|known| known < record.sequence) {
            let sequence = record.sequence;
            let entry = Entry { signed, sequence, observed };
            let kept = Kept { node, record: entry.signed.clone(), observed };
            records.insert(node, entry);
            drop(records);
            // The writer is gone only while the relay ends.
            let _ = self.writer.send(kept);
        }
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
