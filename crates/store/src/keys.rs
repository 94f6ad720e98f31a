//! App keys, known by their hashes.

use chrono::{DateTime, Utc};
use rusqlite::{OptionalExtension, Row, params};

use crate::{Store, StoreError};

/// An app key, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRow {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: DateTime<Utc>,
}

impl Store {
    /// Keeps a key by its hash; replaces one of the same name.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn put_key(&self, name: &str, hash: &[u8; 32]) -> Result<(), StoreError> {
        let mut connection = self.lock();
        let step = connection.transaction()?;
        step.execute("DELETE FROM app_key WHERE name = ?1 OR hash = ?2", params![name, hash])?;
        step.execute(
            "INSERT INTO app_key (name, hash, created) VALUES (?1, ?2, ?3)",
            params![name, hash, Utc::now().to_rfc3339()],
        )?;
        Ok(step.commit()?)
    }

    /// Every key, by name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn keys(&self) -> Result<Vec<KeyRow>, StoreError> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT name, created FROM app_key ORDER BY name")?;
        let rows = query.query_map([], key_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The key with this hash.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn key(&self, hash: &[u8; 32]) -> Result<Option<KeyRow>, StoreError> {
        let connection = self.lock();
        let mut query =
            connection.prepare_cached("SELECT name, created FROM app_key WHERE hash = ?1")?;
        Ok(query.query_row(params![hash], key_row).optional()?)
    }

    /// Removes a key; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError::Sql`].
    pub fn remove_key(&self, name: &str) -> Result<bool, StoreError> {
        Ok(self.lock().execute("DELETE FROM app_key WHERE name = ?1", [name])? > 0)
    }
}

fn key_row(row: &Row<'_>) -> rusqlite::Result<KeyRow> {
    let created: String = row.get(1)?;
    let created = DateTime::parse_from_rfc3339(&created).map(|t| t.to_utc()).unwrap_or_default();
    Ok(KeyRow { name: row.get(0)?, created })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_by_its_hash_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state.db")).unwrap();
        store.put_key("a", &[1; 32]).unwrap();
        store.put_key("b", &[2; 32]).unwrap();
        assert_eq!(store.key(&[2; 32]).unwrap().unwrap().name, "b");
        store.put_key("a", &[3; 32]).unwrap();
        assert_eq!(store.key(&[1; 32]).unwrap(), None);
        assert_eq!(store.keys().unwrap().len(), 2);
        assert!(store.remove_key("a").unwrap());
        assert!(!store.remove_key("a").unwrap());
        assert_eq!(store.key(&[3; 32]).unwrap(), None);
    }
}
