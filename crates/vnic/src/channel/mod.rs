//! Messages with file descriptors between a process and the ones it starts.
//!
//! A message is JSON; up to [`MAX_FDS`] file descriptors travel beside it (SCM_RIGHTS). The carrier
//! is a Unix stream socket, so that a message may be larger than a datagram. The end of the stream is
//! how each side learns, without fail, that the other has died.

mod frame;
mod tasks;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use serde::{Serialize, de::DeserializeOwned};

use frame::{Incoming, Outgoing};
pub use frame::{MAX_BODY, MAX_FDS};
pub use tasks::{Receiver, Sender, open};

/// A pair of connected sockets, both close-on-exec and blocking: one end for each process.
///
/// # Errors
/// When the process has no file descriptors left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?)
}

/// One end of a channel in a process without an async runtime.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    incoming: Incoming,
}

impl Channel {
    /// A channel over one end of a [`pair`].
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, incoming: Incoming::default() }
    }

    /// Sends a message, waiting for room.
    ///
    /// # Errors
    /// When the other end is gone.
    pub fn send(&self, message: &impl Serialize, fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut outgoing = Outgoing::new(message, fds)?;
        while !outgoing.send(self.socket.as_fd())? {
            frame::wait(&self.socket, PollFlags::POLLOUT)?;
        }
        Ok(())
    }

    /// The next message; `None` when the other end has closed.
    ///
    /// # Errors
    /// When the stream breaks or carries nonsense.
    pub fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(message) = self.incoming.take()? {
                return Ok(Some(message));
            }
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Takes a message that has already been read by [`fill`](Self::fill).
    ///
    /// # Errors
    /// When the stream carries nonsense.
    pub fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        self.incoming.take()
    }

    /// Reads once, waiting if need be; 0 when the other end has closed.
    ///
    /// # Errors
    /// When the stream breaks.
    pub fn fill(&mut self) -> io::Result<usize> {
        loop {
            match self.incoming.fill(self.socket.as_fd()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    frame::wait(&self.socket, PollFlags::POLLIN)?;
                }
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(0),
                other => return other,
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
