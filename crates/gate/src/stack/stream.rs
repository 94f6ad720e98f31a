//! A connection of a stack as a byte stream.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use smoltcp::{
    iface::SocketHandle,
    socket::tcp::{RecvError, State as Tcp},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Shared;

/// A TCP connection of a [`UserStack`](crate::UserStack). Dropping it after it was shut down lets
/// it end in its own time; dropping it earlier resets it.
pub struct UserStream {
    shared: Arc<Shared>,
    handle: SocketHandle,
    local: SocketAddr,
}

impl UserStream {
    pub(super) fn new(shared: Arc<Shared>, handle: SocketHandle, local: SocketAddr) -> Self {
        Self { shared, handle, local }
    }

    /// Our end.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits until the connection stands.
    pub(super) fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.state.lock();
        let gone = state.gone();
        let socket = state.socket(self.handle);
        match socket.state() {
            Tcp::SynSent | Tcp::SynReceived | Tcp::Listen => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            Tcp::Closed if gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            Tcp::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            _ => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncRead for UserStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.shared.state.lock();
        let socket = state.socket(self.handle);
        match socket.recv_slice(buf.initialize_unfilled()) {
            Ok(0) if buf.remaining() > 0 => {
                socket.register_recv_waker(cx.waker());
                return Poll::Pending;
            }
            Ok(n) => buf.advance(n),
            Err(RecvError::Finished) => return Poll::Ready(Ok(())),
            Err(RecvError::InvalidState) => {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        drop(state);
        // The window has grown.
        self.shared.wake.notify_one();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UserStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = {
            let mut state = self.shared.state.lock();
            let socket = state.socket(self.handle);
            match socket.send_slice(buf) {
                Ok(0) if !buf.is_empty() => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                Ok(n) => Poll::Ready(Ok(n)),
                Err(_) if socket.state() == Tcp::Closed => {
                    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
                }
                Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        };
        let written = ready!(written);
        self.shared.wake.notify_one();
        Poll::Ready(written)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.state.lock().socket(self.handle).close();
        self.shared.wake.notify_one();
        Poll::Ready(Ok(()))
    }
}

impl Drop for UserStream {
    fn drop(&mut self) {
        self.shared.state.lock().release(self.handle);
        self.shared.wake.notify_one();
    }
}

impl fmt::Debug for UserStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserStream").field("local", &self.local).finish_non_exhaustive()
    }
}
