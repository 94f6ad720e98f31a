//! What can go wrong between a program and the daemon.

use std::io;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers at the API's address.
    #[error(
        "no daemon answers at {url}: {reason}. Start one with `gvpn daemon`, or set GVPN_API_URL"
    )]
    Unreachable {
        /// The API's address.
        url: String,
        /// What the system said.
        reason: String,
    },
    /// The API's address makes no sense.
    #[error("`{0}` is not an API address: expected http://HOST:PORT")]
    Url(String),
    /// No app key is known.
    #[error("no app key: set GVPN_APPKEY (or YAGNA_APPKEY); `gvpn keys create NAME` makes one")]
    NoKey,
    /// The daemon knows no such app key (401).
    #[error("the daemon does not know this app key: {0}")]
    Unauthorized(String),
    /// The request makes no sense (400).
    #[error("{0}")]
    Invalid(String),
    /// It belongs to someone else, or a policy says no (403).
    #[error("{0}")]
    Forbidden(String),
    /// It does not exist (404, 410).
    #[error("{0}")]
    NotFound(String),
    /// It clashes with something that exists (409).
    #[error("{0}")]
    Conflict(String),
    /// A payload refused the connection (502).
    #[error("{0}")]
    Refused(String),
    /// A node or payload did not answer in time (504, 408).
    #[error("{0}")]
    Timeout(String),
    /// Any other status.
    #[error("the daemon answered {status}: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// The daemon's answer is not what this library understands.
    #[error("the daemon's answer to {what} is not understood: {reason}")]
    Answer {
        /// What was asked.
        what: String,
        /// What was wrong.
        reason: String,
    },
    /// Nobody took the work.
    #[error(
        "no provider took the work: {summary}{}",
        if refusals.is_empty() { String::new() } else { format!("; asked, they said: {}", refusals.join("; ")) }
    )]
    NoProvider {
        /// How many offers match, and which clause of the demand excludes how many.
        summary: String,
        /// What providers that were asked said.
        refusals: Vec<String>,
    },
    /// A command in a payload failed.
    #[error("command {index} of the script failed: {message}")]
    Command {
        /// Its position in the script.
        index: u32,
        /// What the ExeUnit said.
        message: String,
        /// Its captured standard error.
        stderr: String,
    },
    /// An identifier that is none.
    #[error(transparent)]
    Id(#[from] gvpn_model::IdError),
    /// A connection broke, or a local file or socket cannot be used.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn answer(what: &str, reason: impl std::fmt::Display) -> Self {
        Self::Answer { what: what.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn from_status(status: u16, message: String) -> Self {
        match status {
            400 | 422 => Self::Invalid(message),
            401 => Self::Unauthorized(message),
            403 => Self::Forbidden(message),
            404 | 410 => Self::NotFound(message),
            409 => Self::Conflict(message),
            502 => Self::Refused(message),
            408 | 504 => Self::Timeout(message),
            _ => Self::Status { status, message },
        }
    }
}
