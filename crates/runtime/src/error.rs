//! Why a runtime could not do as asked.

use std::io;

use gvpn_vnic::NamespaceError;

use crate::ImageError;

/// Why a runtime could not do as asked; the text reaches the requestor.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The namespace could not be made, or refused something.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A program of the payload could not be run.
    #[error("cannot run {program}: {reason}")]
    Program {
        /// The program.
        program: String,
        /// Why.
        reason: String,
    },
    /// The operating system refused.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// This runtime does not do that.
    #[error("this runtime cannot {0}")]
    Unsupported(&'static str),
    /// The payload has ended, or was never started.
    #[error("the payload is not running{0}")]
    NotRunning(String),
    /// Anything else.
    #[error("{0}")]
    Failed(String),
}

impl RuntimeError {
    /// For `map_err`: wraps an error of the operating system with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
