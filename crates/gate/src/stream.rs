//! The byte stream of a gate connection.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::UserStream;

/// A TCP connection into a network.
#[derive(Debug)]
pub enum GateStream {
    /// A socket of the kernel, made inside the network's namespace.
    Kernel(TcpStream),
    /// A connection of a TCP stack in this process.
    User(UserStream),
}

impl GateStream {
    /// Our end.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Kernel(tcp) => tcp.local_addr(),
            Self::User(tcp) => Ok(tcp.local_addr()),
        }
    }
}

impl From<TcpStream> for GateStream {
    fn from(tcp: TcpStream) -> Self {
        // What a client sends in one piece arrives in one piece, and at once.
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        Self::Kernel(tcp)
    }
}

impl AsyncRead for GateStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::User(tcp) => Pin::new(tcp).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for GateStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Kernel(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::User(tcp) => Pin::new(tcp).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::User(tcp) => Pin::new(tcp).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::User(tcp) => Pin::new(tcp).poll_shutdown(cx),
        }
    }
}
