//! What a runtime knows about the payload it runs.

use std::{
    collections::BTreeMap,
    fs, io,
    os::{fd::AsFd, unix::fs::chown},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use gvpn_model::{ActivityId, NetworkId};
use gvpn_vnic::{AgentCommand, IdRange, Namespace, Nic, channel, channel::Channel};
use tokio::sync::OnceCell;

use crate::{Helper, Limits, NetworkConfig, RuntimeError, network::Interfaces};

/// What is known about a payload from the start.
#[derive(Debug, Clone)]
pub struct PayloadConfig {
    /// The activity.
    pub activity: ActivityId,
    /// A directory for this payload alone; it is removed when the activity ends.
    pub directory: PathBuf,
    /// The directory of unpacked images.
    pub images: PathBuf,
    /// The image, as a file or directory of this host.
    pub image: Option<PathBuf>,
    /// What the payload may use.
    pub limits: Limits,
    /// How to start namespace agents.
    pub agent: AgentCommand,
    /// How to start helper processes.
    pub helper: Helper,
}

/// A payload, as its runtime sees it.
#[derive(Debug)]
pub struct Payload {
    config: PayloadConfig,
    namespace: OnceCell<Namespace>,
    interfaces: Interfaces,
    image: Mutex<Option<PathBuf>>,
    env: Mutex<BTreeMap<String, String>>,
}

impl Payload {
    /// A payload that has nothing yet.
    pub fn new(config: PayloadConfig) -> Self {
        let image = Mutex::new(config.image.clone());
        let (namespace, interfaces) = (OnceCell::new(), Interfaces::default());
        Self { config, namespace, interfaces, image, env: Mutex::default() }
    }

    /// What is known about it from the start.
    pub fn config(&self) -> &PayloadConfig {
        &self.config
    }

    /// Its image, as a file or directory of this host.
    pub fn image(&self) -> Option<PathBuf> {
        self.image.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Names its image, which may have been fetched only now.
    pub fn set_image(&self, path: PathBuf) {
        *self.image.lock().unwrap_or_else(PoisonError::into_inner) = Some(path);
    }

    /// The environment that its deployment asks for, which every [`Program`](crate::Program) brings too.
    pub fn env(&self) -> BTreeMap<String, String> {
        self.env.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what environment its deployment asks for.
    pub fn set_env(&self, env: BTreeMap<String, String>) {
        *self.env.lock().unwrap_or_else(PoisonError::into_inner) = env;
    }

    /// Its user and network namespace, made when first asked for.
    ///
    /// # Errors
    /// When the host does not allow namespaces.
    pub async fn namespace(&self) -> Result<&Namespace, RuntimeError> {
        let make =
            || Namespace::spawn(AgentCommand { ids: IdRange::Full, ..self.config.agent.clone() });
        Ok(self.namespace.get_or_try_init(make).await?)
    }

    /// Makes a directory of the payload that belongs to root inside its namespace.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn make_directory(&self, name: &str) -> Result<PathBuf, RuntimeError> {
        let (uid, gid) = self.namespace().await?.root();
        let path = self.config.directory.join(name);
        fs::create_dir_all(&path)
            .and_then(|()| chown(&path, Some(uid), Some(gid)))
            .map_err(RuntimeError::io(format!("make directory {}", path.display())))?;
        Ok(path)
    }

    pub(crate) async fn join(&self, network: &NetworkConfig) -> Result<Nic, RuntimeError> {
        self.interfaces.join(self.namespace().await?, network).await
    }

    pub(crate) async fn update(&self, network: &NetworkConfig) -> Result<(), RuntimeError> {
        self.interfaces.update(self.namespace().await?, network).await
    }

    pub(crate) async fn leave(&self, network: NetworkId) -> Result<(), RuntimeError> {
        self.interfaces.leave(self.namespace().await?, network).await
    }
}

/// Removes directories with all that is in them, whoever of a payload's users owns it.
///
/// # Errors
/// The first one that would not go.
pub async fn remove_trees(
    paths: Vec<PathBuf>,
    agent: &AgentCommand,
    helper: &Helper,
) -> io::Result<()> {
    let mut stubborn = vec![];
    for path in paths {
        let own = path.clone();
        let removed = tokio::task::spawn_blocking(move || remove_tree(&own)).await?;
        if removed.is_err() {
            stubborn.push(path);
        }
    }
    if stubborn.is_empty() {
        return Ok(());
    }
    let agent = AgentCommand { ids: IdRange::Full, ..agent.clone() };
    let namespace = Namespace::spawn(agent).await.map_err(io::Error::other)?;
    for path in stubborn {
        empty_from_inside(&path, &namespace, helper).await?;
        remove_tree(&path)?;
    }
    Ok(())
}

async fn empty_from_inside(path: &Path, namespace: &Namespace, helper: &Helper) -> io::Result<()> {
    let spawned = helper.spawn("remove", |command| {
        command.current_dir(path);
        namespace.enter(command, false)
    });
    let (mut process, socket) = spawned.await?;
    let (_sender, mut receiver) = channel::open(socket)?;
    let outcome = receiver.receive::<Result<(), String>>().await?;
    process.wait().await?;
    match outcome {
        Some((Ok(()), _)) => Ok(()),
        Some((Err(reason), _)) => Err(io::Error::other(reason)),
        None => Err(io::Error::other("the removing process has ended early")),
    }
}

/// Entry point of the removing process: empties its working directory.
pub(crate) fn remove_main() -> io::Result<()> {
    let channel = Channel::new(io::stdin().as_fd().try_clone_to_owned()?);
    let emptied = fs::read_dir(".")
        .and_then(|entries| entries.into_iter().try_for_each(|entry| remove_tree(&entry?.path())));
    channel.send(&emptied.map_err(|e| e.to_string()), vec![])
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
