//! App keys: who may use the API.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{NodeError, core::Core};

/// The app keys of this node. Only their hashes are kept: a key's text is random, so its hash tells
/// nothing about it.
#[derive(Clone)]
pub struct Keys {
    core: Arc<Core>,
}

/// An app key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppKey {
    /// Its name, unique.
    pub name: String,
    /// When it was made.
    pub created: DateTime<Utc>,
}

impl Keys {
    pub(crate) fn new(core: &Arc<Core>) -> Self {
        Self { core: core.clone() }
    }

    /// Makes a key; its text is shown this once.
    ///
    /// # Errors
    /// `Invalid` for an empty name, `Conflict` for one in use.
    pub fn create(&self, name: &str) -> Result<String, NodeError> {
        let name = check_name(name)?;
        if self.core.store.keys()?.iter().any(|key| key.name == name) {
            return Err(NodeError::conflict(format!("there is an app key `{name}` already")));
        }
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|e| NodeError::internal(format!("no randomness from the system: {e}")))?;
        let text = hex::encode(secret);
        self.core.store.put_key(name, &hash(&text))?;
        Ok(text)
    }

    /// Registers a key whose text the caller chose (such as one from a configuration file);
    /// replaces one of the same name.
    ///
    /// # Errors
    /// `Invalid` for an empty name or text.
    pub fn import(&self, name: &str, key: &str) -> Result<(), NodeError> {
        let name = check_name(name)?;
        if key.trim().is_empty() {
            return Err(NodeError::invalid("an app key must not be empty"));
        }
        Ok(self.core.store.put_key(name, &hash(key))?)
    }

    /// Every key, by name.
    ///
    /// # Errors
    /// `Internal` when the state cannot be read.
    pub fn list(&self) -> Result<Vec<AppKey>, NodeError> {
        let rows = self.core.store.keys()?;
        Ok(rows.into_iter().map(|row| AppKey { name: row.name, created: row.created }).collect())
    }

    /// Removes a key.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn remove(&self, name: &str) -> Result<(), NodeError> {
        if self.core.store.remove_key(name)? {
            return Ok(());
        }
        Err(NodeError::not_found(format!("there is no app key `{name}`")))
    }

    /// The key with this text.
    pub fn check(&self, key: &str) -> Option<AppKey> {
        let row = self.core.store.key(&hash(key)).ok().flatten()?;
        Some(AppKey { name: row.name, created: row.created })
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn check_name(name: &str) -> Result<&str, NodeError> {
    let name = name.trim();
    if name.is_empty() || name.len() > 100 {
        return Err(NodeError::invalid("an app key needs a name of 1 to 100 bytes"));
    }
    Ok(name)
}
