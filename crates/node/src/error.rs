//! What can go wrong in a service, in terms that its caller can act on.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

/// What sort of fault it is; the API answers each with one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The request itself makes no sense.
    Invalid,
    /// It is someone else's.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// It contradicts what is there.
    Conflict,
    /// It was there and has ended.
    Gone,
    /// The other node said no, with a reason.
    Refused,
    /// The other node cannot be reached.
    Unreachable,
    /// No answer in time.
    Timeout,
    /// This node cannot do it.
    Unavailable,
    /// A fault of this node.
    Internal,
}

/// A fault: its kind and a message that says what, why and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct NodeError {
    /// What sort of fault.
    pub kind: ErrorKind,
    /// For a person.
    pub message: String,
}

impl NodeError {
    /// A fault of `kind` with this message.
    pub fn new(kind: ErrorKind, message: impl Display) -> Self {
        Self { kind, message: message.to_string() }
    }

    /// The request itself makes no sense.
    pub fn invalid(message: impl Display) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Display) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// It contradicts what is there.
    pub fn conflict(message: impl Display) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }

    /// It is someone else's.
    pub fn forbidden(message: impl Display) -> Self {
        Self::new(ErrorKind::Forbidden, message)
    }

    /// The other node said no.
    pub fn refused(message: impl Display) -> Self {
        Self::new(ErrorKind::Refused, message)
    }

    /// A fault of this node.
    pub fn internal(message: impl Display) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
}
