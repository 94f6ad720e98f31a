//! Processes that the ExeUnit starts from its own binary.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Command,
};

use gvpn_vnic::Child;
use serde::{Deserialize, Serialize};

use crate::{container, image, init::inside::init_main, keep, sandbox};

/// How to start a helper process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Helper {
    /// The program; it must hand the arguments that follow `args` to [`helper_main`]. Usually
    /// `/proc/self/exe`.
    pub exe: PathBuf,
    /// Leading arguments that lead the program to [`helper_main`].
    pub args: Vec<String>,
}

impl Helper {
    /// Starts the program of this name with a channel as its standard input; `prepare` sees the
    /// command before it is spawned.
    pub(crate) async fn spawn(
        &self,
        name: &str,
        prepare: impl FnOnce(&mut Command) -> io::Result<()>,
    ) -> io::Result<(Child, OwnedFd)> {
        // By descriptor: the user that the process becomes may not be able to walk the path.
        let exe = File::open(&self.exe)?;
        let mut command = Command::new(format!("/proc/self/fd/{}", exe.as_raw_fd()));
        command.arg0(&self.exe).args(&self.args).arg(name).env_clear();
        prepare(&mut command)?;
        let spawned = Child::spawn(command).await;
        drop(exe);
        spawned
    }
}

/// Entry point of a helper process, when `name` is one: call it before any thread exists.
pub fn helper_main(name: &str) -> Option<io::Result<()>> {
    match name {
        "unpack" => Some(image::unpack_main()),
        "keep" => Some(keep::keep_main()),
        "init" => Some(init_main::<sandbox::InSandbox>()),
        "container" => Some(init_main::<container::InContainer>()),
        "remove" => Some(crate::payload::remove_main()),
        _ => None,
    }
}
