//! What the ExeUnit and the init process of a payload say to each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Access, Exit, Limits, Names, Program};

/// The first message to init.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup<More> {
    pub(crate) names: Names,
    pub(crate) limits: Limits,
    /// Whether a control group bounds the payload's memory.
    pub(crate) memory_is_bounded: bool,
    /// Environment of every program.
    pub(crate) env: BTreeMap<String, String>,
    /// Whether more user ids than root's exist here.
    pub(crate) own_ids: bool,
    /// How many directories below `lower` make up the root, `0` at the bottom.
    pub(crate) layers: usize,
    /// What only one runtime has to say.
    pub(crate) more: More,
}

/// Init's answer to [`Setup`].
pub(crate) type Started = Result<(), String>;

/// A numbered request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) order: Order,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
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
pub(crate) struct Response {
    pub(crate) id: u64,
    pub(crate) outcome: Result<Done, String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Done {
    /// The program has ended, or could not be run at last.
    Exited(Exit),
    /// The file travels beside this message.
    Opened,
    Renamed,
    Used {
        cpu_sec: f64,
        memory: u64,
    },
}
