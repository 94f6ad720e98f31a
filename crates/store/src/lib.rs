//! The daemon's state in SQLite.
