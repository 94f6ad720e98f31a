//! What a payload may use, and what it has used.

use serde::{Deserialize, Serialize};

/// Processes of a payload without a limit of its own: many, but not enough to choke the host.
pub(crate) const PROCESSES: u64 = 4096;

/// What a payload may use. `None`: as much as the host gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processor cores.
    pub cpu_cores: Option<f64>,
    /// Processes and threads; 4096 without a limit of one's own.
    pub processes: Option<u64>,
    /// Open files of a process.
    pub open_files: Option<u64>,
    /// Bytes of storage.
    pub storage: Option<u64>,
}

/// What an activity has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Seconds since the payload started.
    pub duration_sec: f64,
    /// Processor seconds.
    pub cpu_sec: f64,
    /// Bytes of memory in use now.
    pub memory: u64,
}
