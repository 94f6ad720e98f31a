//! A channel in a process with tokio.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::unix::AsyncFd,
    sync::{Notify, mpsc},
    task::AbortHandle,
};

use super::frame::{Incoming, Outgoing};

/// Above this many queued bytes, [`Sender::send`] waits.
const HIGH_WATER: usize = 1 << 20;

/// Opens a channel over one end of a [`pair`](super::pair), within a tokio runtime.
///
/// # Errors
/// When the socket cannot be watched.
pub fn open(socket: OwnedFd) -> io::Result<(Sender, Receiver)> {
    let flags = nix::fcntl::OFlag::from_bits_retain(nix::fcntl::fcntl(
        &socket,
        nix::fcntl::FcntlArg::F_GETFL,
    )?);
    nix::fcntl::fcntl(
        &socket,
        nix::fcntl::FcntlArg::F_SETFL(flags | nix::fcntl::OFlag::O_NONBLOCK),
    )?;
    // SAFETY: an `OwnedFd` stays open, and the same, until it is dropped.
    let socket = Arc::new(unsafe { AsyncFd::register(socket) }?);
    let (queue, waiting) = mpsc::unbounded_channel();
    let backlog = Arc::new(Backlog::default());
    let task = tokio::spawn(transmit(socket.clone(), waiting, backlog.clone()));
    let closer = Arc::new(Closer(task.abort_handle()));
    Ok((
        Sender { queue, backlog, _closer: closer },
        Receiver { socket, incoming: Incoming::default() },
    ))
}

/// The sending half; clones share the order in which messages go out.
#[derive(Debug, Clone)]
pub struct Sender {
    queue: mpsc::UnboundedSender<Outgoing>,
    backlog: Arc<Backlog>,
    _closer: Arc<Closer>,
}

impl Sender {
    /// Queues a message without waiting.
    ///
    /// # Errors
    /// When the other end is gone or the message is too large.
    pub fn post(&self, message: &impl Serialize, fds: Vec<OwnedFd>) -> io::Result<()> {
        let outgoing = Outgoing::new(message, fds)?;
        self.backlog.bytes.fetch_add(outgoing.len(), Ordering::AcqRel);
        self.queue.send(outgoing).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Queues a message once the other end keeps up.
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn send(&self, message: &impl Serialize, fds: Vec<OwnedFd>) -> io::Result<()> {
        loop {
            let room = self.backlog.room.notified();
            if self.backlog.bytes.load(Ordering::Acquire) < HIGH_WATER || self.queue.is_closed() {
                return self.post(message, fds);
            }
            tokio::select! {
                () = room => {}
                () = self.queue.closed() => {}
            }
        }
    }

    /// Waits until everything queued has left, or cannot.
    pub async fn flush(&self) {
        loop {
            let room = self.backlog.room.notified();
            if self.backlog.bytes.load(Ordering::Acquire) == 0 || self.queue.is_closed() {
                return;
            }
            tokio::select! {
                () = room => {}
                () = self.queue.closed() => {}
            }
        }
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver {
    socket: Arc<AsyncFd<OwnedFd>>,
    incoming: Incoming,
}

impl Receiver {
    /// The next message; `None` when the other end has closed. Cancel safe.
    ///
    /// # Errors
    /// When the stream breaks or carries nonsense.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        loop {
            if let Some(message) = self.incoming.take()? {
                return Ok(Some(message));
            }
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| self.incoming.fill(socket.get_ref().as_fd())) {
                Ok(Ok(0)) if self.incoming.is_partial() => {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Ok(Ok(0)) => return Ok(None),
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(e)) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Err(e),
            }
        }
    }
}

#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    room: Notify,
}

/// Stops the transmitting task, and so closes the socket, with the last [`Sender`].
#[derive(Debug)]
struct Closer(AbortHandle);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn transmit(
    socket: Arc<AsyncFd<OwnedFd>>,
    mut waiting: mpsc::UnboundedReceiver<Outgoing>,
    backlog: Arc<Backlog>,
) {
    while let Some(mut message) = waiting.recv().await {
        let sent = loop {
            let Ok(mut ready) = socket.writable().await else { break false };
            match ready.try_io(|socket| match message.send(socket.get_ref().as_fd()) {
                Ok(true) => Ok(()),
                Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                Err(e) => Err(e),
            }) {
                Ok(Ok(())) => break true,
                Ok(Err(_)) => break false,
                Err(_) => {}
            }
        };
        backlog.bytes.fetch_sub(message.len(), Ordering::AcqRel);
        if !sent {
            waiting.close();
        }
        backlog.room.notify_waiters();
        if !sent {
            return;
        }
    }
}
