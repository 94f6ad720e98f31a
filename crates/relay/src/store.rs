//! Records that survive a restart of the relay.

use std::{net::SocketAddr, path::Path, time::Duration};

use gvpn_model::NodeId;
use gvpn_net::SignedRecord;
use rusqlite::{Connection, params};

/// How long a node that does not renew its record is remembered.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is kept of a node.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) node: NodeId,
    pub(crate) record: SignedRecord,
    /// Where the node's datagrams came from.
    pub(crate) observed: Option<SocketAddr>,
}

/// A SQLite file of records.
#[derive(Debug)]
pub(crate) struct Store {
    db: Connection,
}

impl Store {
    /// Opens the file, made if need be; in memory if there is none.
    pub(crate) fn open(path: Option<&Path>) -> rusqlite::Result<Self> {
        let db = match path {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "NORMAL")?;
        db.busy_timeout(Duration::from_secs(5))?;
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS records (
                 node BLOB PRIMARY KEY, record BLOB NOT NULL, observed TEXT, seen INTEGER NOT NULL
             ) WITHOUT ROWID;",
        )?;
        Ok(Self { db })
    }

    /// Keeps records; `seen` is in seconds since 1970.
    pub(crate) fn put(&mut self, records: &[Kept], seen: i64) -> rusqlite::Result<()> {
        let batch = self.db.transaction()?;
        for kept in records {
            let bytes = postcard::to_stdvec(&kept.record).unwrap_or_default();
            let observed = kept.observed.map(|addr| addr.to_string());
            batch
                .prepare_cached("INSERT OR REPLACE INTO records VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![kept.node.as_bytes(), bytes, observed, seen])?;
        }
        batch.commit()
    }

    /// All records that are not too old; forgets the others.
    pub(crate) fn load(
        &self,
        now: i64,
    ) -> rusqlite::Result<Vec<(SignedRecord, Option<SocketAddr>, i64)>> {
        let oldest = now - i64::try_from(REMEMBERED.as_secs()).unwrap_or(i64::MAX);
        self.db.execute("DELETE FROM records WHERE seen < ?1", [oldest])?;
        let mut all = self.db.prepare("SELECT record, observed, seen FROM records")?;
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
        let mut records = Vec::new();
        for row in all.query_map([], row)? {
            let (bytes, observed, seen): (Vec<u8>, Option<String>, i64) = row?;
            // What is not a record any more, after a change of its form, is renewed by its node.
            if let Ok(record) = postcard::from_bytes(&bytes) {
                records.push((record, observed.and_then(|addr| addr.parse().ok()), seen));
            }
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use gvpn_identity::Identity;
    use gvpn_net::NodeRecord;

    use super::*;

    #[test]
    fn records_are_kept_replaced_and_forgotten_with_age() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registry.db");
        let identity = Identity::generate();
        let node = identity.node_id();
        let record = |sequence| {
            let record = NodeRecord { node, sequence, addrs: vec![], relays: vec![] };
            SignedRecord::sign(&identity, &record)
        };
        let observed = Some("192.0.2.1:7".parse().unwrap());
        let kept = |sequence| Kept { node, record: record(sequence), observed };
        let mut store = Store::open(Some(&path)).unwrap();
        store.put(&[kept(1)], 1000).unwrap();
        store.put(&[kept(2)], 1001).unwrap();
        drop(store);
        let store = Store::open(Some(&path)).unwrap();
        assert_eq!(store.load(1002).unwrap(), [(record(2), observed, 1001)]);
        assert!(store.load(1002 + REMEMBERED.as_secs() as i64).unwrap().is_empty());
        std::fs::write(dir.path().join("rubbish"), "not a database, whatever it says").unwrap();
        assert!(Store::open(Some(&dir.path().join("rubbish"))).is_err());
    }
}
