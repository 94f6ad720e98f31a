//! What a [`Namespace`](crate::Namespace) and its agent say to each other.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{IdRange, Interface, TunSpec};

/// The first message to an agent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub(crate) tun_device: PathBuf,
    pub(crate) ids: IdRange,
}

/// The agent's answer to [`Setup`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Started {
    /// The namespace is up; `ids` exist inside, counted from 0; `root` is who root is outside.
    Up { ids: u32, root: (u32, u32), own_user_namespace: bool },
    /// The host does not allow it.
    Forbidden(String),
}

/// A numbered request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) order: Order,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Order {
    CreateTun(TunSpec),
    Configure(Interface),
    Remove { name: String },
    Socket(SocketOrder),
}

/// A socket to be opened inside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum SocketOrder {
    /// A stream socket to be connected by the receiver.
    Tcp { v6: bool, from: Option<IpAddr> },
    /// A listening stream socket.
    Listen(SocketAddr),
    /// A bound datagram socket.
    Udp(SocketAddr),
}

/// The answer to the request of the same number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Response {
    pub(crate) id: u64,
    pub(crate) outcome: Result<Done, Refusal>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Done {
    Nothing,
    /// The device's queues travel beside this message.
    Tun {
        vnet_hdr: bool,
        uso: bool,
    },
    /// The socket travels beside this message.
    Socket,
}

/// Why a request failed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// What was being done.
    pub(crate) what: String,
    /// The kernel's error number, when it was the kernel's.
    pub(crate) errno: Option<i32>,
    /// Why, in words.
    pub(crate) reason: String,
    /// Whether the TUN device node is to blame.
    pub(crate) tun_device: bool,
}

impl Refusal {
    pub(crate) fn new(what: impl Into<String>, error: &std::io::Error) -> Self {
        Self {
            what: what.into(),
            errno: error.raw_os_error(),
            reason: error.to_string(),
            tun_device: false,
        }
    }
}

impl From<gvpn_link::Refused> for Refusal {
    fn from(refused: gvpn_link::Refused) -> Self {
        Self::new(refused.what, &refused.source)
    }
}
