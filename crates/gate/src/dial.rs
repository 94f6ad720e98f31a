//! How a gateway opens connections, and why one may fail.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use crate::GateStream;

/// Opens TCP connections inside a network.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `remote`, from the local address `from` where one is asked for.
    fn dial(
        &self,
        remote: SocketAddr,
        from: Option<IpAddr>,
    ) -> Pin<Box<dyn Future<Output = io::Result<GateStream>> + Send + '_>>;
}

impl<T: Dial + ?Sized> Dial for Arc<T> {
    fn dial(
        &self,
        remote: SocketAddr,
        from: Option<IpAddr>,
    ) -> Pin<Box<dyn Future<Output = io::Result<GateStream>> + Send + '_>> {
        (**self).dial(remote, from)
    }
}

/// Why the gate could not connect. [`status`](Self::status) is the HTTP status to answer with.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The payload answered with a reset.
    #[error(
        "{0} refused the connection: nothing listens on that port of the payload, or the program \
         there listens on 127.0.0.1 only (let it listen on 0.0.0.0)"
    )]
    Refused(SocketAddr),
    /// No answer.
    #[error(
        "{remote} did not answer within {} s: is the activity running, and its network deployed?",
        after.as_secs_f32()
    )]
    Timeout {
        /// Who did not answer.
        remote: SocketAddr,
        /// How long the gate waited.
        after: Duration,
    },
    /// The network said that there is no way.
    #[error("{0} cannot be reached: no member of the network holds the address now")]
    Unreachable(SocketAddr),
    /// Too many connections are open.
    #[error("{0} connections are open through this gateway, the most allowed: close some first")]
    Full(usize),
    /// Anything else.
    #[error("connecting to {remote} failed: {source}")]
    Io {
        /// Whom the gate tried to reach.
        remote: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl ConnectError {
    /// The HTTP status for this failure.
    pub fn status(&self) -> u16 {
        match self {
            Self::Refused(_) => 502,
            Self::Timeout { .. } | Self::Unreachable(_) => 504,
            Self::Full(_) => 503,
            Self::Io { .. } => 500,
        }
    }

    pub(crate) fn from_io(remote: SocketAddr, after: Duration, source: io::Error) -> Self {
        use io::ErrorKind as K;
        match source.kind() {
            K::ConnectionRefused | K::ConnectionReset => Self::Refused(remote),
            K::TimedOut => Self::Timeout { remote, after },
            K::HostUnreachable | K::NetworkUnreachable | K::AddrNotAvailable => {
                Self::Unreachable(remote)
            }
            _ => Self::Io { remote, source },
        }
    }
}
