//! vNICs: unprivileged network namespaces with TUN devices in them, configured by netlink.
//!
//! A [`Namespace`] is a user and network namespace held by an *agent*, a small single-threaded
//! process (a re-exec of the program's own binary, entered through [`agent_main`]). The agent makes
//! TUN devices and sockets inside and passes their file descriptors out over a Unix socket, so that
//! the daemon needs no privilege and never enters the namespace itself.

pub mod channel;

mod agent;
mod child;
mod entry;
mod namespace;
mod nic;
mod protocol;

pub use agent::agent_main;
pub use child::Child;
pub use entry::{Bind, enter_process};
pub use gvpn_link::{Interface, Route};
pub use namespace::{AgentCommand, IdRange, Namespace, NamespaceError};
pub use nic::{Nic, NicKind, TunDevice, TunSpec};
