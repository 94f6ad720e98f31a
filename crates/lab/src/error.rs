use std::{io, process::ExitStatus};

/// Why the lab cannot do something.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The machine gives no network namespaces.
    #[error(
        "this machine gives no network namespace ({0}): run as root, or allow unprivileged user \
         namespaces (sysctl kernel.unprivileged_userns_clone=1)"
    )]
    Forbidden(String),
    /// A program that the lab needs cannot be started.
    #[error("cannot start `{program}`: {source} (is it installed?)")]
    Start {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A command failed.
    #[error("on {host}: `{command}` ended with {status}: {stderr}")]
    Command {
        /// Where.
        host: String,
        /// What.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        stderr: String,
    },
    /// The system refused something else.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl LabError {
    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
