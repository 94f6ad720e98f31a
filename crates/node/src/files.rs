//! Files between nodes: `gftp://NODE/HASH`, served over the QUIC lane and checked by SHA3-256.

use std::path::{Path, PathBuf};

use crate::NodeError;

/// The file service.
pub struct Files {}

impl Files {
    /// Publishes a local file: whoever has the URL may fetch it from this node.
    ///
    /// # Errors
    /// `NotFound` or `Invalid` for a path that is not a readable file.
    pub async fn publish(&self, _path: &Path) -> Result<String, NodeError> {
        unimplemented!()
    }

    /// Ends a publication or a receive slot; unknown URLs are ignored.
    pub fn close(&self, _url: &str) {
        unimplemented!()
    }

    /// A URL that may be written to once; the bytes arrive in `path`.
    ///
    /// # Errors
    /// `Invalid` for a path that cannot be written.
    pub async fn receive(&self, _path: &Path) -> Result<String, NodeError> {
        unimplemented!()
    }

    /// Fetches a `gftp` URL of any node into a local file, checked against its hash.
    ///
    /// # Errors
    /// `Invalid`, `NotFound`, `Unreachable`.
    pub async fn fetch(&self, _url: &str, _to: PathBuf) -> Result<u64, NodeError> {
        unimplemented!()
    }
}
