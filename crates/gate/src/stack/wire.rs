//! The stack's end of the Ethernet: a socket that keeps message borders, a frame a message.

use std::{
    io::{self, Read, Write},
    os::fd::OwnedFd,
};

use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
};
use socket2::{Domain, Socket, Type};

/// Frames taken in before the stack turns to its own sending.
const BATCH: usize = 256;
/// Answers that may wait for the socket; more are lost, as on any wire.
const WAITING_MAX: usize = 64;
/// The largest frame.
const FRAME_MAX: usize = 14 + 65_536;
/// Asked for in both directions; the kernel may give less.
const SOCKET_BUFFER: usize = 4 << 20;

/// Both ends of a piece of Ethernet: joined sockets that keep message borders, a frame a message,
/// and notice when the other end is closed. Non-blocking, with large buffers.
///
/// # Errors
/// When the system gives no sockets.
pub fn frame_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
    for socket in [&ours, &theirs] {
        socket.set_nonblocking(true)?;
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    }
    Ok((ours.into(), theirs.into()))
}

#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
    mtu: usize,
    buffer: Vec<u8>,
    waiting: Vec<Vec<u8>>,
    left: usize,
    drained: bool,
    gone: bool,
}

impl Wire {
    pub(super) fn new(socket: Socket, mtu: usize) -> Self {
        let buffer = vec![0; FRAME_MAX];
        Self { socket, mtu, buffer, waiting: Vec::new(), left: 0, drained: false, gone: false }
    }

    /// Begins a round: what waits goes out, and a batch of frames may come in.
    pub(super) fn begin(&mut self) {
        self.left = BATCH;
        self.drained = false;
        let mut waiting = std::mem::take(&mut self.waiting).into_iter();
        while let Some(frame) = waiting.next() {
            if !self.write(&frame) {
                self.waiting.push(frame);
                self.waiting.extend(waiting);
                break;
            }
        }
    }

    /// Whether the last round read until nothing was left.
    pub(super) fn drained(&self) -> bool {
        self.drained
    }

    /// Whether frames wait until the socket takes more.
    pub(super) fn blocked(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether the other end is gone.
    pub(super) fn gone(&self) -> bool {
        self.gone
    }

    fn read(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        loop {
            match (&self.socket).read(&mut self.buffer) {
                Ok(0) => self.gone = true,
                Ok(n) => return Some(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.gone = true,
            }
            self.drained = true;
            return None;
        }
    }

    /// Writes a frame; false when there is no room for it now.
    fn write(&mut self, frame: &[u8]) -> bool {
        loop {
            match (&self.socket).write(frame) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_full(&e) => return false,
                Err(e) if e.raw_os_error() == Some(libc::EMSGSIZE) => return true,
                Err(_) => {
                    self.gone = true;
                    return true;
                }
                Ok(_) => return true,
            }
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

impl Device for Wire {
    type RxToken<'a> = Frame;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Frame, Room<'_>)> {
        let n = self.read()?;
        Some((Frame(self.buffer[..n].to_vec()), Room(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        (!self.blocked() && !self.gone).then_some(Room(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 14 + self.mtu;
        capabilities
    }
}

/// A frame that came in.
pub(super) struct Frame(Vec<u8>);

impl RxToken for Frame {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Leave to send a frame.
pub(super) struct Room<'a>(&'a mut Wire);

impl TxToken for Room<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        let sent = !self.0.blocked() && self.0.write(&frame);
        if !sent && self.0.waiting.len() < WAITING_MAX {
            self.0.waiting.push(frame);
        }
        result
    }
}
