//! App keys.

use serde::{Deserialize, Serialize};

use crate::{Client, Error};

/// An app key, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyInfo {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created: String,
}

impl Client {
    /// The daemon's app keys.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn keys(&self) -> Result<Vec<KeyInfo>, Error> {
        self.http().get("/gvpn/v1/keys").await
    }

    /// Makes an app key; its secret is shown this once.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is taken.
    pub async fn create_key(&self, name: &str) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Made {
            key: String,
        }
        let made: Made =
            self.http().post("/gvpn/v1/keys", &serde_json::json!({ "name": name })).await?;
        Ok(made.key)
    }

    /// Removes an app key.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove_key(&self, name: &str) -> Result<(), Error> {
        self.http().delete(&format!("/gvpn/v1/keys/{}", crate::files::encode(name))).await
    }
}
