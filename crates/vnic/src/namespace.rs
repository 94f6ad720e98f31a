//! The handle of a namespace.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::oneshot,
    task::AbortHandle,
};

use crate::{
    Child, Interface, TunDevice, TunSpec,
    channel::{self, Receiver, Sender},
    entry::{self, Bind},
    protocol::{Done, Order, Refusal, Request, Response, Setup, SocketOrder, Started},
};

/// Environment variable naming the TUN device node.
const TUN_VARIABLE: &str = "GVPN_TUN";

/// How to start a namespace's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentCommand {
    /// The program; it must hand its `args` to [`agent_main`](crate::agent_main). Usually
    /// `/proc/self/exe`.
    pub exe: PathBuf,
    /// Leading arguments that lead the program to [`agent_main`](crate::agent_main); usually
    /// `ns-agent`.
    pub args: Vec<String>,
    /// The TUN device node: `GVPN_TUN`, or `/dev/net/tun`.
    pub tun_device: PathBuf,
    /// Which user and group ids exist inside.
    pub ids: IdRange,
}

impl Default for AgentCommand {
    fn default() -> Self {
        Self {
            exe: PathBuf::from("/proc/self/exe"),
            args: vec!["ns-agent".to_owned()],
            tun_device: std::env::var_os(TUN_VARIABLE)
                .map_or_else(|| PathBuf::from("/dev/net/tun"), PathBuf::from),
            ids: IdRange::Single,
        }
    }
}

/// Which user and group ids exist inside a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdRange {
    /// Root alone, which is the caller outside.
    Single,
    /// 65,536 ids where the host grants them (to root always, to others by `/etc/subuid` and
    /// `newuidmap`), else root alone.
    Full,
}

/// Why a namespace could not be made or did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The agent did not start.
    #[error("cannot start the namespace agent {exe}: {source}")]
    Spawn {
        /// The program.
        exe: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host does not let this user make namespaces.
    #[error(
        "this host does not allow user and network namespaces ({0}); allow them (sysctl \
         user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns) or run as root"
    )]
    Forbidden(String),
    /// The TUN device node cannot be used.
    #[error(
        "cannot use TUN device {path}: {reason}; make it accessible (chmod 666) or name another \
         with GVPN_TUN"
    )]
    Tun {
        /// The device node.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A request that the kernel refused.
    #[error("cannot {what}: {source}")]
    Refused {
        /// What was asked.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The agent is gone.
    #[error("the namespace agent has ended")]
    Gone,
}

/// Handle of a user and network namespace and of its agent process. Dropping it ends the agent, and
/// with it the namespace unless a process entered it.
#[derive(Debug)]
pub struct Namespace {
    agent: Child,
    sender: Sender,
    waiting: Arc<Mutex<Waiting>>,
    reader: AbortHandle,
    tun_device: PathBuf,
    ids: u32,
    root: (u32, u32),
    own_user_namespace: bool,
}

impl Namespace {
    /// Starts an agent and waits until its namespace is up, loopback included.
    ///
    /// # Errors
    /// [`NamespaceError::Spawn`], [`NamespaceError::Forbidden`].
    pub async fn spawn(command: AgentCommand) -> Result<Self, NamespaceError> {
        let spawn = |source| NamespaceError::Spawn { exe: command.exe.clone(), source };
        let mut agent = Command::new(&command.exe);
        agent.args(&command.args);
        let (agent, socket) = Child::spawn(agent).await.map_err(spawn)?;
        let (sender, mut receiver) = channel::open(socket).map_err(spawn)?;
        let setup = Setup { tun_device: command.tun_device.clone(), ids: command.ids };
        sender.post(&setup, vec![]).map_err(spawn)?;
        let (ids, root, own_user_namespace) = match receiver.receive().await.map_err(spawn)? {
            Some((Started::Up { ids, root, own_user_namespace }, _)) => {
                (ids, root, own_user_namespace)
            }
            Some((Started::Forbidden(reason), _)) => return Err(NamespaceError::Forbidden(reason)),
            None => return Err(NamespaceError::Gone),
        };
        let waiting = Arc::<Mutex<Waiting>>::default();
        let reader = tokio::spawn(read(receiver, waiting.clone())).abort_handle();
        let tun_device = command.tun_device;
        Ok(Self { agent, sender, waiting, reader, tun_device, ids, root, own_user_namespace })
    }

    /// Whether the agent still answers orders. Without it nothing can be made or changed inside.
    pub fn is_alive(&self) -> bool {
        !self.reader.is_finished()
    }

    /// Makes a TUN device inside.
    ///
    /// # Errors
    /// [`NamespaceError::Tun`], [`NamespaceError::Refused`].
    pub async fn create_tun(&self, spec: TunSpec) -> Result<TunDevice, NamespaceError> {
        let (done, fds) = self.order(Order::CreateTun(spec)).await?;
        let mut fds = fds.into_iter();
        match (done, fds.next()) {
            (Done::Tun { vnet_hdr, uso }, Some(fd)) => {
                Ok(TunDevice { fd, queues: fds.collect(), vnet_hdr, uso })
            }
            _ => Err(NamespaceError::Gone),
        }
    }

    /// Makes an interface exactly so: adds and removes addresses and routes, sets the MTU, brings
    /// it up.
    ///
    /// # Errors
    /// [`NamespaceError::Refused`].
    pub async fn configure(&self, interface: Interface) -> Result<(), NamespaceError> {
        self.order(Order::Configure(interface)).await.map(drop)
    }

    /// Removes an interface; the descriptor of its TUN, wherever it is, gives errors from then on.
    ///
    /// # Errors
    /// [`NamespaceError::Refused`].
    pub async fn remove_interface(&self, name: &str) -> Result<(), NamespaceError> {
        self.order(Order::Remove { name: name.to_owned() }).await.map(drop)
    }

    /// Connects from inside; `from` chooses the source address.
    ///
    /// # Errors
    /// As `connect(2)`: refused, unreachable, timed out.
    pub async fn tcp_connect(&self, to: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
        let socket = self.socket(SocketOrder::Tcp { v6: to.is_ipv6(), from }).await?;
        TcpSocket::from_std_stream(socket.into()).connect(to).await
    }

    /// Listens inside.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub async fn tcp_listen(&self, on: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::from_std(self.socket(SocketOrder::Listen(on)).await?.into())
    }

    /// A UDP socket inside, allowed to broadcast.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub async fn udp_bind(&self, on: SocketAddr) -> io::Result<UdpSocket> {
        UdpSocket::from_std(self.socket(SocketOrder::Udp(on)).await?.into())
    }

    /// Makes `command` run inside when it is spawned. `as_caller` shows it the caller's own user id
    /// instead of root (for programs that look up their user, such as `ssh`).
    ///
    /// # Errors
    /// When this process has no file descriptors left.
    pub fn enter(&self, command: &mut Command, as_caller: bool) -> io::Result<()> {
        let agent = self.agent.pidfd().try_clone()?;
        let identity = if as_caller { entry::Identity::Caller } else { entry::Identity::Root };
        entry::enter(command, agent, self.own_user_namespace, identity, vec![]);
        Ok(())
    }

    /// Makes `command` run inside as root, in a mount namespace of its own where each `from` of
    /// `binds` is also seen at its `to` (directories that exist).
    ///
    /// # Errors
    /// A path with a zero byte; no file descriptors left.
    pub fn enter_with_mounts(&self, command: &mut Command, binds: &[Bind]) -> io::Result<()> {
        let agent = self.agent.pidfd().try_clone()?;
        let binds = binds.iter().map(Bind::as_strings).collect::<io::Result<Vec<_>>>()?;
        let identity = entry::Identity::RootWithMounts;
        entry::enter(command, agent, self.own_user_namespace, identity, binds);
        Ok(())
    }

    /// Process id of the agent.
    pub fn pid(&self) -> u32 {
        self.agent.pid()
    }

    /// How many user and group ids exist inside, counted from 0: 1 or 65,536.
    pub fn ids(&self) -> u32 {
        self.ids
    }

    /// User and group that root inside is outside.
    pub fn root(&self) -> (u32, u32) {
        self.root
    }

    /// Whether root inside is somebody else outside (not so where the host has no user namespaces).
    pub fn has_own_users(&self) -> bool {
        self.own_user_namespace
    }

    async fn socket(&self, order: SocketOrder) -> io::Result<OwnedFd> {
        match self.order(Order::Socket(order)).await {
            Ok((_, fds)) => fds.into_iter().next().ok_or(io::ErrorKind::InvalidData.into()),
            Err(NamespaceError::Refused { source, .. }) => Err(source),
            Err(e) => Err(io::Error::other(e)),
        }
    }

    async fn order(&self, order: Order) -> Result<(Done, Vec<OwnedFd>), NamespaceError> {
        let (answer, answered) = oneshot::channel();
        let id = lock(&self.waiting).add(answer);
        let request = Request { id, order };
        self.sender.post(&request, vec![]).map_err(|_| NamespaceError::Gone)?;
        let (outcome, fds) = answered.await.map_err(|_| NamespaceError::Gone)?;
        outcome.map(|done| (done, fds)).map_err(|refusal| self.error(refusal))
    }

    fn error(&self, refusal: Refusal) -> NamespaceError {
        if refusal.tun_device {
            return NamespaceError::Tun { path: self.tun_device.clone(), reason: refusal.reason };
        }
        let source = match refusal.errno {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(refusal.reason),
        };
        NamespaceError::Refused { what: refusal.what, source }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

type Answer = (Result<Done, Refusal>, Vec<OwnedFd>);

/// Requests sent and not yet answered.
#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    closed: bool,
}

impl Waiting {
    fn add(&mut self, answer: oneshot::Sender<Answer>) -> u64 {
        self.last += 1;
        if !self.closed {
            self.answers.insert(self.last, answer);
        }
        self.last
    }
}

async fn read(mut receiver: Receiver, waiting: Arc<Mutex<Waiting>>) {
    while let Ok(Some((Response { id, outcome }, fds))) = receiver.receive().await {
        let answer = lock(&waiting).answers.remove(&id);
        if let Some(answer) = answer {
            let _ = answer.send((outcome, fds));
        }
    }
    let mut waiting = lock(&waiting);
    waiting.closed = true;
    waiting.answers.clear();
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
