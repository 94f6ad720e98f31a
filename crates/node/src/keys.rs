//! App keys: who may use the API.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::NodeError;

/// The app keys of this node. Only their hashes are kept.
pub struct Keys {}

/// An app key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppKey {
    /// Its name, unique.
    pub name: String,
    /// When it was made.
    pub created: DateTime<Utc>,
}

impl Keys {
    /// Makes a key; its text is shown this once.
    ///
    /// # Errors
    /// `Conflict` for a name in use.
    pub fn create(&self, _name: &str) -> Result<String, NodeError> {
        unimplemented!()
    }

    /// Registers a key whose text the caller chose (such as one from a configuration file);
    /// replaces one of the same name.
    ///
    /// # Errors
    /// `Invalid` for an empty text.
    pub fn import(&self, _name: &str, _key: &str) -> Result<(), NodeError> {
        unimplemented!()
    }

    /// Every key.
    pub fn list(&self) -> Vec<AppKey> {
        unimplemented!()
    }

    /// Removes a key.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove(&self, _name: &str) -> Result<(), NodeError> {
        unimplemented!()
    }

    /// The key with this text.
    pub fn check(&self, _key: &str) -> Option<AppKey> {
        unimplemented!()
    }
}
