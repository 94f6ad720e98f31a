//! The daemon's handle of an ExeUnit.

use std::{
    io,
    path::{Path, PathBuf},
};

use gvpn_model::{BatchId, ExeScript, NetworkId};
use tokio::sync::mpsc;

use crate::{ExeUnitConfig, ExeUnitEvent, NetworkConfig};

/// Why an ExeUnit could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ExeUnitError {
    /// Its process did not start.
    #[error("cannot start the ExeUnit {exe}: {source}")]
    Spawn {
        /// The program.
        exe: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its directories cannot be used.
    #[error("cannot use directory {path}: {source}")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It did not come up.
    #[error("the ExeUnit did not start: {0}")]
    Start(String),
}

/// A running ExeUnit. Dropping the handle ends the activity.
#[derive(Debug)]
pub struct ExeUnit {}

impl ExeUnit {
    /// Starts an ExeUnit; it is `Initialized` when this returns. Its events come in order;
    /// [`ExeUnitEvent::Exited`] is the last.
    ///
    /// # Errors
    /// [`ExeUnitError`].
    pub async fn spawn(
        _config: ExeUnitConfig,
    ) -> Result<(Self, mpsc::Receiver<ExeUnitEvent>), ExeUnitError> {
        unimplemented!()
    }

    /// Queues a script. `networks` is the truth about every network its `deploy` names.
    pub fn exec(&self, _batch: BatchId, _script: ExeScript, _networks: Vec<NetworkConfig>) {
        unimplemented!()
    }

    /// Makes a network of the running payload exactly so; joins it if the payload was not in it.
    pub fn reconfigure(&self, _network: NetworkConfig) {
        unimplemented!()
    }

    /// Takes the payload out of a network.
    pub fn remove_network(&self, _network: NetworkId) {
        unimplemented!()
    }

    /// Asks for a fresh [`ExeUnitEvent::Usage`].
    pub fn poll_usage(&self) {
        unimplemented!()
    }

    /// Ends the activity and waits until nothing of it is left: processes, mounts, files.
    pub async fn terminate(&self) {
        unimplemented!()
    }

    /// Process id of the ExeUnit.
    pub fn pid(&self) -> u32 {
        unimplemented!()
    }
}

/// Removes what activities of an earlier daemon left under `workdir` (the parent of all
/// activities' directories), whoever owns the files inside.
///
/// # Errors
/// The first directory that would not go.
pub async fn sweep(_workdir: &Path) -> io::Result<()> {
    unimplemented!()
}

/// Entry point of an ExeUnit process: call it first thing in `main`, before any thread exists.
pub fn exeunit_main() -> ! {
    unimplemented!()
}
