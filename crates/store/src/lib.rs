//! The daemon's state in SQLite: what must survive a restart.
//!
//! A [`Store`] is one file that only its owner may read, in write-ahead-log mode, so that a daemon
//! killed at any moment finds everything it was told to keep. Calls are short and synchronous.
//!
//! Networks and app keys have tables of their own; agreements, activities, offers and payment
//! documents are [documents](Store::put_document): JSON by kind and id.

mod documents;
mod error;
mod keys;
mod networks;
mod schema;

use std::{
    fs,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::Connection;

pub use error::StoreError;
pub use keys::KeyRow;
pub use networks::{MembershipRow, NetworkRow};

/// An open state file.
#[derive(Debug)]
pub struct Store {
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens the state file, or makes it, and brings it to the present schema.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read or written, is no state file, or a newer version wrote it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path)?;
        let open = |source| StoreError::Open { path: path.to_owned(), source };
        let mut connection = Connection::open(path).map_err(open)?;
        connection.busy_timeout(Duration::from_secs(5)).map_err(open)?;
        connection.pragma_update(None, "journal_mode", "WAL").map_err(open)?;
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(open)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(open)?;
        schema::migrate(&mut connection, path)?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock()
    }
}

/// SQLite gives its log files the mode of the main file, so it is enough that this one is private.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let io = |source| StoreError::File { path: path.to_owned(), source };
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(io)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_and_its_logs_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let store = Store::open(&path).unwrap();
        store.put_key("cli", &[1; 32]).unwrap();
        for entry in fs::read_dir(dir.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.path());
        }
    }

    #[test]
    fn a_file_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        fs::write(&path, "this is certainly not a database, it is a letter to the reader").unwrap();
        let message = Store::open(&path).unwrap_err().to_string();
        assert!(message.contains("state.db"), "{message}");
        assert!(Store::open(&dir.path().join("missing/state.db")).is_err());
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        drop(Store::open(&path).unwrap());
        let raw = Connection::open(&path).unwrap();
        raw.pragma_update(None, "user_version", 9999).unwrap();
        drop(raw);
        assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 9999, .. })));
    }
}
