//! Documents: JSON by kind and id.

use rusqlite::{OptionalExtension, params};
use serde::{Serialize, de::DeserializeOwned};

use crate::{Store, StoreError};

impl Store {
    /// Keeps a document, new or changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_document<T: Serialize>(
        &self,
        kind: &str,
        id: &str,
        document: &T,
    ) -> Result<(), StoreError> {
        let body = serde_json::to_string(document).map_err(|e| damaged(kind, id, &e))?;
        self.lock()
            .prepare_cached(
                "INSERT INTO document (kind, id, body) VALUES (?1, ?2, ?3)
                 ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body",
            )?
            .execute(params![kind, id, body])?;
        Ok(())
    }

    /// One document.
    ///
    /// # Errors
    /// [`StoreError`]; `Damaged` when it is not a `T`.
    pub fn document<T: DeserializeOwned>(
        &self,
        kind: &str,
        id: &str,
    ) -> Result<Option<T>, StoreError> {
        let body: Option<String> = self
            .lock()
            .prepare_cached("SELECT body FROM document WHERE kind = ?1 AND id = ?2")?
            .query_row(params![kind, id], |row| row.get(0))
            .optional()?;
        body.map(|body| serde_json::from_str(&body).map_err(|e| damaged(kind, id, &e))).transpose()
    }

    /// Every document of a kind, in order of first arrival.
    ///
    /// # Errors
    /// [`StoreError`]; `Damaged` when one is not a `T`.
    pub fn documents<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<T>, StoreError> {
        let connection = self.lock();
        let mut query = connection
            .prepare_cached("SELECT id, body FROM document WHERE kind = ?1 ORDER BY seq")?;
        let rows = query.query_map([kind], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.map(|row| {
            let (id, body): (String, String) = row?;
            serde_json::from_str(&body).map_err(|e| damaged(kind, &id, &e))
        })
        .collect()
    }

    /// Forgets a document; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn remove_document(&self, kind: &str, id: &str) -> Result<bool, StoreError> {
        let removed = self
            .lock()
            .execute("DELETE FROM document WHERE kind = ?1 AND id = ?2", params![kind, id])?;
        Ok(removed > 0)
    }
}

fn damaged(kind: &str, id: &str, reason: &serde_json::Error) -> StoreError {
    StoreError::Damaged { what: kind.to_owned(), id: id.to_owned(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_keep_their_kind_and_order() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        store.put_document("note", "z", &"first").unwrap();
        store.put_document("note", "a", &"second").unwrap();
        store.put_document("other", "z", &1).unwrap();
        store.put_document("note", "z", &"changed").unwrap();
        assert_eq!(store.documents::<String>("note").unwrap(), ["changed", "second"]);
        assert_eq!(store.document::<i32>("other", "z").unwrap(), Some(1));
        assert_eq!(store.document::<i32>("other", "y").unwrap(), None);
        assert!(matches!(store.document::<i32>("note", "z"), Err(StoreError::Damaged { .. })));
        assert!(store.remove_document("note", "z").unwrap());
        assert_eq!(store.documents::<String>("note").unwrap(), ["second"]);
    }
}
