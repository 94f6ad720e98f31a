//! Files that payloads fetch from this node, or send to it.

use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use crate::{Client, Error};

#[derive(Deserialize)]
struct Slot {
    url: String,
}

impl Client {
    /// Publishes a file of this machine: the answer is a `gftp://` URL that a payload's `transfer`
    /// reads from, or that an agreement names as its image.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the daemon cannot read the file.
    pub async fn publish(&self, path: &Path) -> Result<String, Error> {
        let body = json!({ "path": absolute(path)? });
        self.http().post("/gvpn/v1/files", &body).await.map(|slot: Slot| slot.url)
    }

    /// Opens a place for one incoming file: a payload's `transfer` writes to the URL, the file
    /// appears at `path`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the daemon cannot write there.
    pub async fn receive(&self, path: &Path) -> Result<String, Error> {
        let body = json!({ "path": absolute(path)? });
        self.http().post("/gvpn/v1/files/receive", &body).await.map(|slot: Slot| slot.url)
    }

    /// Withdraws a published file or a place for one.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn unpublish(&self, url: &str) -> Result<(), Error> {
        self.http().post("/gvpn/v1/files/close", &json!({ "url": url })).await
    }
}

pub(crate) fn absolute(path: &Path) -> Result<std::path::PathBuf, Error> {
    std::path::absolute(path).map_err(Error::io(format!("the path {}", path.display())))
}

/// Percent-encodes a path segment.
pub(crate) fn encode(segment: &str) -> String {
    use std::fmt::Write;
    segment.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}
