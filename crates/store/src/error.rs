//! What can go wrong with the state.

use std::path::PathBuf;

/// Why the state could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be made or made private.
    #[error("state file {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no database, or cannot be opened as one.
    #[error("state file {path} cannot be opened: {source}; move it away to start afresh")]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A newer version of the program wrote it.
    #[error(
        "state file {path} was written by a newer version (schema {found}, this one knows {known}): \
         run that version, or move the file away"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: usize,
        /// The newest schema that is known here.
        known: usize,
    },
    /// A statement failed, such as on a full disk.
    #[error("the state could not be read or written: {0}")]
    Sql(#[from] rusqlite::Error),
    /// A row does not say what it should.
    #[error("the state holds a damaged {what} `{id}`: {reason}")]
    Damaged {
        /// What it should be.
        what: String,
        /// Its id.
        id: String,
        /// What is wrong.
        reason: String,
    },
}
