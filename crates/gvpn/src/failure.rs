//! What a command says when it fails: what, why, and what to do about it.

use std::{fmt, io};

/// A command's failure.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    /// The process's exit code.
    pub(crate) code: u8,
}

/// What commands return.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), hint: None, code: 1 }
    }

    /// Ends the process with this code and says nothing: the program that was run has spoken.
    pub(crate) fn silent(code: u8) -> Self {
        Self { message: String::new(), hint: None, code }
    }

    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// For `map_err`: `what` could not be done.
    pub(crate) fn io(what: impl fmt::Display) -> impl FnOnce(io::Error) -> Self {
        let what = what.to_string();
        move |error| Self::new(format!("{what}: {error}"))
    }

    pub(crate) fn report(&self) {
        if !self.message.is_empty() {
            eprintln!("gvpn: {}", self.message);
        }
        if let Some(hint) = &self.hint {
            eprintln!("      {hint}");
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

impl From<gvpn_sdk::Error> for Failure {
    fn from(error: gvpn_sdk::Error) -> Self {
        use gvpn_sdk::Error;
        let hint = match &error {
            Error::Unauthorized(_) => Some(
                "set GVPN_APPKEY to a key of this daemon, or point --data-dir at its directory",
            ),
            Error::Command { stderr, .. } if !stderr.is_empty() => {
                let text = format!("{error}\n{}", stderr.trim_end());
                return Self::new(text);
            }
            _ => None,
        };
        Self { message: error.to_string(), hint: hint.map(str::to_owned), code: 1 }
    }
}

impl From<gvpn_model::IdError> for Failure {
    fn from(error: gvpn_model::IdError) -> Self {
        Self::new(error)
    }
}

impl From<gvpn_node::NodeError> for Failure {
    fn from(error: gvpn_node::NodeError) -> Self {
        Self::new(error.message)
    }
}
