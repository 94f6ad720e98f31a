//! What the kernel knows of a client's machine.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::net::TcpListener;

/// The socket under a client's HTTP connection, for asking the kernel when the client's machine
/// last acknowledged anything: a program that is busy answers no ping, its kernel still does.
///
/// A server gets one for each connection from
/// `router.into_make_service_with_connect_info::<ClientSocket>()`.
#[derive(Debug, Clone)]
pub struct ClientSocket(Option<Arc<OwnedFd>>);

impl ClientSocket {
    /// The socket of this connection.
    pub fn of(socket: &impl AsFd) -> Self {
        Self(socket.as_fd().try_clone_to_owned().ok().map(Arc::new))
    }

    /// No socket is known: only what the client itself says counts.
    pub fn unknown() -> Self {
        Self(None)
    }

    /// How long the client's kernel has owed an answer; `None` where that is not known.
    pub(crate) fn silent_for(&self) -> Option<Duration> {
        let info = tcp_info(self.0.as_deref()?).ok()?;
        // A client that does not read closes its window; then the kernel asks ever more seldom,
        // and silence between two questions means nothing.
        let owes = info.tcpi_unacked > 0 || info.tcpi_probes > 1;
        let millis = info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv);
        Some(if owes { Duration::from_millis(millis.into()) } else { Duration::ZERO })
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for ClientSocket {
    /// Also lets small answers go at once: a WebSocket's frames must not wait for acknowledgements.
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        if let Err(error) = stream.io().set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        Self::of(stream.io())
    }
}

fn tcp_info(socket: &OwnedFd) -> io::Result<libc::tcp_info> {
    // SAFETY: `tcp_info` is plain numbers: all zeros is a value of it.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the pointers are to `info` and `length`, which live through the call, and `length`
    // is the size of `info`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}
