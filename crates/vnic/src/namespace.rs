//! The handle of a namespace.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::{Interface, TunDevice, TunSpec};

/// Environment variable naming the TUN device node.
const TUN_VARIABLE: &str = "GVPN_TUN";

/// How to start a namespace's agent.
#[derive(Debug, Clone)]
pub struct AgentCommand {
    /// The program; it must hand its `args` to [`agent_main`]. Usually `/proc/self/exe`.
    pub exe: PathBuf,
    /// Leading arguments that lead the program to [`agent_main`]; usually `ns-agent`.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdRange {
    /// Root alone, which is the caller outside.
    Single,
    /// 65,536 ids where the host grants them (root, or `/etc/subuid` with `newuidmap`), else root alone.
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
        "this host does not allow user and network namespaces ({0}); as root, allow them \
             (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns) or run as root"
    )]
    Forbidden(String),
    /// The TUN device node cannot be used.
    #[error(
        "cannot use TUN device {path}: {reason}; make it accessible (chmod 666) or name another with GVPN_TUN"
    )]
    Tun {
        /// The device node.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A request that the kernel refused.
    #[error("{what}: {reason}")]
    Refused {
        /// What was asked.
        what: String,
        /// Why not.
        reason: String,
    },
    /// The agent is gone.
    #[error("the namespace agent has ended: {0}")]
    Gone(String),
}

/// Handle of a user and network namespace and of its agent process. Dropping it ends both.
#[derive(Debug)]
pub struct Namespace {
    pid: u32,
}

impl Namespace {
    /// Starts an agent and waits until its namespace is up, loopback included.
    ///
    /// # Errors
    /// [`NamespaceError::Spawn`], [`NamespaceError::Forbidden`].
    pub async fn spawn(_command: AgentCommand) -> Result<Self, NamespaceError> {
        unimplemented!()
    }

    /// Makes a TUN device inside.
    ///
    /// # Errors
    /// [`NamespaceError::Tun`], [`NamespaceError::Refused`].
    pub async fn create_tun(&self, _spec: TunSpec) -> Result<TunDevice, NamespaceError> {
        unimplemented!()
    }

    /// Makes an interface exactly so: adds and removes addresses and routes, sets the MTU, brings it up.
    ///
    /// # Errors
    /// [`NamespaceError::Refused`].
    pub async fn configure(&self, _interface: Interface) -> Result<(), NamespaceError> {
        unimplemented!()
    }

    /// Removes an interface (its TUN file descriptor, wherever it is, reads EOF-like errors from then on).
    ///
    /// # Errors
    /// [`NamespaceError::Refused`].
    pub async fn remove_interface(&self, _name: &str) -> Result<(), NamespaceError> {
        unimplemented!()
    }

    /// Connects from inside; `from` chooses the source address.
    ///
    /// # Errors
    /// As `connect(2)`: refused, unreachable, timed out.
    pub async fn tcp_connect(
        &self,
        _to: SocketAddr,
        _from: Option<IpAddr>,
    ) -> io::Result<TcpStream> {
        unimplemented!()
    }

    /// Listens inside.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub async fn tcp_listen(&self, _on: SocketAddr) -> io::Result<TcpListener> {
        unimplemented!()
    }

    /// A UDP socket inside.
    ///
    /// # Errors
    /// As `bind(2)`.
    pub async fn udp_bind(&self, _on: SocketAddr) -> io::Result<UdpSocket> {
        unimplemented!()
    }

    /// Makes `command` run inside when it is spawned. `as_caller` shows it the caller's own user id
    /// instead of root (for programs that look up their user, such as `ssh`).
    pub fn enter(&self, _command: &mut std::process::Command, _as_caller: bool) {
        unimplemented!()
    }

    /// Process id of the agent.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// Entry point of an agent process: call it first thing in `main`, before any thread exists.
pub fn agent_main() -> ! {
    unimplemented!()
}
