//! Frames: a length, a count of file descriptors, a JSON body.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    cmsg_space,
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use serde::{Serialize, de::DeserializeOwned};

/// Most file descriptors in one message.
pub const MAX_FDS: usize = 16;
/// Most bytes in one message.
pub const MAX_BODY: usize = 32 << 20;

const HEADER: usize = 5;
const READ: usize = 64 << 10;

/// A message on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    sent: usize,
}

impl Outgoing {
    pub(super) fn new(message: &impl Serialize, fds: Vec<OwnedFd>) -> io::Result<Self> {
        let mut bytes = vec![0; HEADER];
        serde_json::to_writer(&mut bytes, message)?;
        let body = bytes.len() - HEADER;
        if body > MAX_BODY || fds.len() > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too large"));
        }
        bytes[..4].copy_from_slice(&(body as u32).to_be_bytes());
        bytes[4] = fds.len() as u8;
        Ok(Self { bytes, fds, sent: 0 })
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Sends as much as the socket takes; `true` when all of it went.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>) -> io::Result<bool> {
        while self.sent < self.bytes.len() {
            let raw: Vec<RawFd> = self.fds.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&raw)];
            let control = if raw.is_empty() { &[][..] } else { &rights[..] };
            let iov = [IoSlice::new(&self.bytes[self.sent..])];
            match sendmsg::<()>(socket.as_raw_fd(), &iov, control, MsgFlags::MSG_NOSIGNAL, None) {
                Ok(n) => {
                    self.sent += n;
                    self.fds.clear();
                }
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}

/// Bytes and file descriptors received and not yet taken.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    fds: VecDeque<OwnedFd>,
}

impl Incoming {
    /// One `recvmsg`; 0 at the end of the stream.
    pub(super) fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let start = self.bytes.len();
        self.bytes.resize(start + READ, 0);
        let received = self.receive(socket, start);
        self.bytes.truncate(start + received.as_ref().map_or(0, |n| *n));
        received
    }

    fn receive(&mut self, socket: BorrowedFd<'_>, start: usize) -> io::Result<usize> {
        let mut space = cmsg_space!([RawFd; MAX_FDS]);
        let mut iov = [IoSliceMut::new(&mut self.bytes[start..])];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut space), flags)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just made these descriptors for us; nobody else owns them.
                self.fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if message.flags.contains(MsgFlags::MSG_CTRUNC) {
            return Err(invalid("file descriptors were lost: is the limit of open files reached?"));
        }
        Ok(message.bytes)
    }

    /// Takes the next whole message, if it is there.
    pub(super) fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let body = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let fds = usize::from(header[4]);
        if body > MAX_BODY || fds > MAX_FDS {
            return Err(invalid("oversized message"));
        }
        if self.bytes.len() < HEADER + body {
            return Ok(None);
        }
        if self.fds.len() < fds {
            return Err(invalid("a message without its file descriptors"));
        }
        let message = serde_json::from_slice(&self.bytes[HEADER..HEADER + body])?;
        self.bytes.drain(..HEADER + body);
        Ok(Some((message, self.fds.drain(..fds).collect())))
    }

    /// Whether the stream ended in the middle of a message.
    pub(super) fn is_partial(&self) -> bool {
        !self.bytes.is_empty()
    }
}

/// Waits until `socket` is ready for `events`.
pub(super) fn wait(socket: impl AsFd, events: nix::poll::PollFlags) -> io::Result<()> {
    let mut fds = [nix::poll::PollFd::new(socket.as_fd(), events)];
    loop {
        match nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(nix::Error::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}
