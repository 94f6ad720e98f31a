//! The tables, and how older files get them.

use std::path::Path;

use rusqlite::Connection;

use crate::StoreError;

/// One script a version; never change one that was released, add another.
const MIGRATIONS: &[&str] = &["
    -- Networks that this node owns: the owner's book.
    CREATE TABLE network (
        id TEXT PRIMARY KEY,
        book BLOB NOT NULL,
        created TEXT NOT NULL
    ) WITHOUT ROWID;

    -- Networks of others: the last roster their owner signed.
    CREATE TABLE membership (
        network TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        snapshot BLOB NOT NULL
    ) WITHOUT ROWID;

    -- Nodes that have yet to hear that they left a network, or that it is gone.
    CREATE TABLE farewell (
        network TEXT NOT NULL,
        node TEXT NOT NULL,
        PRIMARY KEY (network, node)
    ) WITHOUT ROWID;

    -- App keys, by the SHA-256 of their text.
    CREATE TABLE app_key (
        name TEXT PRIMARY KEY,
        hash BLOB NOT NULL UNIQUE,
        created TEXT NOT NULL
    ) WITHOUT ROWID;

    -- Everything else, as JSON by kind and id, in order of arrival.
    CREATE TABLE document (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (kind, id)
    );
"];

pub(crate) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let open = |source| StoreError::Open { path: path.to_owned(), source };
    let found: usize =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(open)?;
    let known = MIGRATIONS.len();
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    for (version, script) in MIGRATIONS.iter().enumerate().skip(found) {
        let step = connection.transaction().map_err(open)?;
        step.execute_batch(script).map_err(open)?;
        step.pragma_update(None, "user_version", version + 1).map_err(open)?;
        step.commit().map_err(open)?;
    }
    Ok(())
}
