//! Removing what activities leave.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use gvpn_runtime::{Helper, remove_trees};
use gvpn_vnic::AgentCommand;

/// Attempts at removing a directory whose last processes may still be on their way out.
const ATTEMPTS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(200);

/// Removes what activities of an earlier daemon left under `workdir` (the parent of all
/// activities' directories), whoever owns the files inside.
///
/// # Errors
/// The first directory that would not go.
pub async fn sweep(workdir: &Path) -> io::Result<()> {
    let agent = AgentCommand::default();
    let helper = Helper { exe: agent.exe.clone(), args: vec!["exeunit".to_owned()] };
    sweep_with(workdir, &agent, &helper).await
}

/// As [`sweep`], for a program whose entry points have other names.
///
/// # Errors
/// The first directory that would not go.
pub async fn sweep_with(workdir: &Path, agent: &AgentCommand, helper: &Helper) -> io::Result<()> {
    let entries = match fs::read_dir(workdir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    gvpn_runtime::remove_groups(None);
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    remove(paths, agent, helper).await
}

pub(crate) async fn remove(
    paths: Vec<PathBuf>,
    agent: &AgentCommand,
    helper: &Helper,
) -> io::Result<()> {
    for _ in 1..ATTEMPTS {
        if remove_trees(paths.clone(), agent, helper).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    remove_trees(paths, agent, helper).await
}
