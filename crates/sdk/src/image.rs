//! Images that a daemon serves to providers.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Client, Error,
    files::{absolute, encode},
};

/// An image that a daemon keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// SHA3-224 of the file, as Golem's clients name images.
    pub sha3: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its tags.
    pub tags: Vec<String>,
    /// When it came.
    pub imported: String,
    /// Where providers fetch it.
    pub url: String,
}

impl Client {
    /// Gives an image file to the daemon's registry, under a tag if one is given. The daemon copies
    /// it; the file must be on its machine.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a file that cannot be read, or a tag that is none.
    pub async fn import_image(&self, path: &Path, tag: Option<&str>) -> Result<Image, Error> {
        let new = json!({ "path": absolute(path)?, "tag": tag });
        self.http().post("/gvpn/v1/images", &new).await
    }

    /// The images that the daemon keeps.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn images(&self) -> Result<Vec<Image>, Error> {
        self.http().get("/gvpn/v1/images").await
    }

    /// Removes an image, by its hash or a tag.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove_image(&self, name: &str) -> Result<(), Error> {
        self.http().delete(&format!("/gvpn/v1/images?name={}", encode(name))).await
    }
}
