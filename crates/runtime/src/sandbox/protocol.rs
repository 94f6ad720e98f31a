//! What the ExeUnit and the sandbox's init say to each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Access, Exit, Limits, Names, Program};

/// The first message to init.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) names: Names,
    pub(super) limits: Limits,
    /// Whether a control group bounds the payload's memory.
    pub(super) memory_is_bounded: bool,
    /// Environment of every program.
    pub(super) env: BTreeMap<String, String>,
    /// Whether more user ids than root's exist here.
    pub(super) own_ids: bool,
}

/// Init's answer to [`Setup`].
pub(super) type Started = Result<(), String>;

/// A numbered request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) order: Order,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Run a program; its standard output and error travel beside this message.
    Run(Program),
    /// Open a file.
    Open { path: String, access: Access },
    /// Tell the payload new names.
    Rename(Names),
    /// Tell what was used.
    Usage,
    /// Ask every process to end, then end.
    Stop,
}

/// The answer to the request of the same number.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Response {
    pub(super) id: u64,
    pub(super) outcome: Result<Done, String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Done {
    /// The program has ended.
    Exited(Exit),
    /// The file travels beside this message.
    Opened,
    Renamed,
    Used {
        cpu_sec: f64,
        memory: u64,
    },
}
