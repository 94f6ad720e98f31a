//! Readiness of a thread's descriptors.

use std::{
    io,
    os::fd::{BorrowedFd, RawFd},
};

use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    eventfd::{EfdFlags, EventFd},
};

use crate::MAX_QUEUES;

const WAKE: u64 = 0;
const FIRST_SOCKET: u64 = 1;
const FIRST_PORT: u64 = 1 << 16;
const QUEUES: u64 = MAX_QUEUES as u64;

/// How many events one wait brings.
pub(crate) const EVENTS: usize = 64;

fn port_token(id: u64, queue: usize) -> u64 {
    FIRST_PORT + id * QUEUES + queue as u64
}

/// What is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    Wake,
    Socket(usize),
    /// A port and the queue of it that has something.
    Port(u64, usize),
}

/// A thread's readiness queue, and a way to wake the thread.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: Epoll,
    wake: EventFd,
}

impl Poll {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self { epoll, wake })
    }

    pub(crate) fn add_socket(&self, fd: RawFd, index: usize) -> io::Result<()> {
        self.add(fd, FIRST_SOCKET + index as u64)
    }

    pub(crate) fn add_port(&self, fd: RawFd, id: u64, queue: usize) -> io::Result<()> {
        self.add(fd, port_token(id, queue))
    }

    /// Waits for room to write on a port of one queue too, or no longer.
    pub(crate) fn watch_port(&self, fd: RawFd, id: u64, writable: bool) {
        // SAFETY: the caller holds the descriptor open during the call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let out = if writable { EpollFlags::EPOLLOUT } else { EpollFlags::empty() };
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN | out, port_token(id, 0));
        // A port that was detached meanwhile needs no watching.
        let _ = self.epoll.modify(fd, &mut event);
    }

    pub(crate) fn remove(&self, fd: RawFd) {
        // SAFETY: the caller holds the descriptor open during the call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // A descriptor that was never added, or is gone, needs no removing.
        let _ = self.epoll.delete(fd);
    }

    pub(crate) fn wake(&self) {
        if let Err(error) = self.wake.write(1) {
            tracing::debug!(%error, "a data-plane thread was not woken");
        }
    }

    /// Brings events: sleeps until there are some, or looks only. Returns whether there are any.
    pub(crate) fn wait(&self, sleep: bool, ready: &mut Vec<Ready>) -> io::Result<bool> {
        self.bring(if sleep { EpollTimeout::NONE } else { EpollTimeout::ZERO }, ready)
    }

    /// The same, but sleeps until the time `due` (nanoseconds) at the latest; then it says yes.
    pub(crate) fn wait_until(
        &self,
        sleep: bool,
        due: u64,
        now: impl Fn() -> u64,
        ready: &mut Vec<Ready>,
    ) -> io::Result<bool> {
        let millis = due.saturating_sub(now()).div_ceil(1_000_000).min(60_000);
        let timeout = match u16::try_from(millis) {
            Ok(millis) if sleep => EpollTimeout::from(millis),
            _ => EpollTimeout::ZERO,
        };
        Ok(self.bring(timeout, ready)? || now() >= due)
    }

    fn bring(&self, timeout: EpollTimeout, ready: &mut Vec<Ready>) -> io::Result<bool> {
        ready.clear();
        let mut events = [EpollEvent::empty(); EVENTS];
        let n = match self.epoll.wait(&mut events, timeout) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        ready.extend(events[..n].iter().map(|event| match event.data() {
            WAKE => Ready::Wake,
            port if port >= FIRST_PORT => {
                let port = port - FIRST_PORT;
                Ready::Port(port / QUEUES, (port % QUEUES) as usize)
            }
            socket => Ready::Socket((socket - FIRST_SOCKET) as usize),
        }));
        if ready.contains(&Ready::Wake) {
            // Resets the counter; it is empty if another reader was faster.
            let _ = self.wake.read();
        }
        Ok(n > 0)
    }

    fn add(&self, fd: RawFd, token: u64) -> io::Result<()> {
        // SAFETY: the caller holds the descriptor open during the call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }
}
