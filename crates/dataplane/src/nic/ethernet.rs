//! Sockets that carry Ethernet frames.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use gvpn_switch::ethernet::EthernetEdge;
use parking_lot::Mutex;

use super::SendError;

/// The largest frame: an Ethernet header and the largest packet.
pub(crate) const MAX_FRAME: usize = 14 + gvpn_packet::MAX_PACKET;

/// Bytes that may wait for a stream socket's other end.
const MAX_PENDING: usize = 256 * 1024;

/// How frames are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// A length of four big-endian bytes before each.
    Length4,
    /// A length of two bytes of native order before each.
    Length2,
    /// The socket keeps message borders.
    Message,
}

/// A socket with Ethernet frames, and the switch's end of that Ethernet.
#[derive(Debug)]
pub(crate) struct Ethernet {
    fd: OwnedFd,
    framing: Framing,
    pub(crate) edge: Mutex<EthernetEdge>,
    unread: Mutex<Unread>,
    pending: Mutex<Vec<u8>>,
}

/// Bytes of a stream that are not a whole frame yet.
#[derive(Debug)]
struct Unread {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Ethernet {
    pub(crate) fn new(fd: OwnedFd, framing: Framing) -> io::Result<Self> {
        let wanted = match framing {
            Framing::Message => [libc::SOCK_DGRAM, libc::SOCK_SEQPACKET],
            _ => [libc::SOCK_STREAM; 2],
        };
        if !wanted.contains(&socket_type(&fd)?) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a socket of another type"));
        }
        let room = if framing == Framing::Message { 0 } else { 2 * MAX_FRAME };
        Ok(Self {
            fd,
            framing,
            edge: Mutex::default(),
            unread: Mutex::new(Unread { bytes: vec![0; room].into(), start: 0, end: 0 }),
            pending: Mutex::default(),
        })
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Copies the next frame into `buffer` and returns its length.
    pub(crate) fn read_frame(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.framing == Framing::Message {
            return match receive(self.raw(), buffer)? {
                0 if socket_type(&self.fd)? == libc::SOCK_SEQPACKET => {
                    Err(io::ErrorKind::UnexpectedEof.into())
                }
                n => Ok(n),
            };
        }
        let mut unread = self.unread.lock();
        loop {
            if let Some(len) = unread.take_frame(self.framing, buffer)? {
                return Ok(len);
            }
            unread.fill(self.raw())?;
        }
    }

    /// Sends a frame made of two parts; returns whether bytes wait until the socket takes more.
    pub(crate) fn send_frame(&self, head: &[u8], body: &[u8]) -> Result<bool, SendError> {
        let len = head.len() + body.len();
        let length = (len as u32).to_be_bytes();
        let short = (len as u16).to_ne_bytes();
        let prefix: &[u8] = match self.framing {
            Framing::Length4 => &length,
            Framing::Length2 if len > usize::from(u16::MAX) => return Err(SendError::Invalid),
            Framing::Length2 => &short,
            Framing::Message => &[],
        };
        let parts = [prefix, head, body];
        if self.framing == Framing::Message {
            return send(self.raw(), &parts).map(|_| false);
        }
        let mut pending = self.pending.lock();
        flush(self.raw(), &mut pending)?;
        if pending.is_empty() {
            let sent = match send(self.raw(), &parts) {
                Err(SendError::Full) => 0,
                other => other?,
            };
            let mut skip = sent;
            for part in parts {
                let from = skip.min(part.len());
                pending.extend_from_slice(&part[from..]);
                skip -= from;
            }
        } else if pending.len() + prefix.len() + len > MAX_PENDING {
            return Err(SendError::Full);
        } else {
            parts.iter().for_each(|part| pending.extend_from_slice(part));
        }
        Ok(!pending.is_empty())
    }

    /// Sends what waits; returns whether there is still more.
    pub(crate) fn flush(&self) -> Result<bool, SendError> {
        let mut pending = self.pending.lock();
        flush(self.raw(), &mut pending)?;
        Ok(!pending.is_empty())
    }
}

impl Unread {
    /// Takes a whole frame out, if there is one.
    fn take_frame(&mut self, framing: Framing, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let bytes = &self.bytes[self.start..self.end];
        let (prefix, len) = match framing {
            Framing::Length4 => match bytes.first_chunk::<4>() {
                Some(length) => (4, u32::from_be_bytes(*length) as usize),
                None => return Ok(None),
            },
            _ => match bytes.first_chunk::<2>() {
                Some(length) => (2, usize::from(u16::from_ne_bytes(*length))),
                None => return Ok(None),
            },
        };
        if len > MAX_FRAME.min(buffer.len()) {
            let text = format!("a frame of {len} bytes: the stream is out of step");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let Some(frame) = bytes.get(prefix..prefix + len) else { return Ok(None) };
        buffer[..len].copy_from_slice(frame);
        self.start += prefix + len;
        Ok(Some(len))
    }

    fn fill(&mut self, fd: RawFd) -> io::Result<()> {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        match receive(fd, &mut self.bytes[self.end..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.end += n;
                Ok(())
            }
        }
    }
}

fn flush(fd: RawFd, pending: &mut Vec<u8>) -> Result<(), SendError> {
    while !pending.is_empty() {
        match send(fd, &[pending]) {
            Ok(n) => drop(pending.drain(..n)),
            Err(SendError::Full) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn send(fd: RawFd, parts: &[&[u8]]) -> Result<usize, SendError> {
    let mut slices = [IoSlice::new(&[]); 3];
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
    }
    // SAFETY: an all-zero msghdr is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = slices.as_mut_ptr().cast();
    message.msg_iovlen = parts.len() as _;
    loop {
        // SAFETY: IoSlice has the layout of iovec, and the slices are alive.
        let n = unsafe {
            libc::sendmsg(fd, &raw const message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        if n >= 0 {
            return Ok(n as usize);
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => return Err(SendError::Full),
            Some(libc::EMSGSIZE) => return Err(SendError::Invalid),
            _ => return Err(SendError::Gone),
        }
    }
}

fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the pointer and length describe a live buffer.
        let n =
            unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
        if n >= 0 {
            return Ok(n as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn socket_type(fd: &OwnedFd) -> io::Result<libc::c_int> {
    let mut kind: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointers describe one live int and its length.
    let got = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TYPE,
            (&raw mut kind).cast(),
            &raw mut len,
        )
    };
    if got == 0 { Ok(kind) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::{UnixDatagram, UnixStream},
    };

    use super::*;

    #[test]
    fn stream_frames_come_out_whole_however_they_come_in() {
        for framing in [Framing::Length4, Framing::Length2] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let nic = Ethernet::new(ours.into(), framing).unwrap();
            let mut bytes = Vec::new();
            for len in [60usize, 1514, 9014, 14] {
                match framing {
                    Framing::Length4 => bytes.extend((len as u32).to_be_bytes()),
                    _ => bytes.extend((len as u16).to_ne_bytes()),
                }
                bytes.extend(vec![len as u8; len]);
            }
            let mut got = Vec::new();
            let mut buffer = vec![0; MAX_FRAME];
            for piece in bytes.chunks(7) {
                theirs.write_all(piece).unwrap();
                while let Ok(len) = nic.read_frame(&mut buffer) {
                    assert!(buffer[..len].iter().all(|b| *b == len as u8));
                    got.push(len);
                }
            }
            assert_eq!(got, [60, 1514, 9014, 14]);
            drop(theirs);
            let end = nic.read_frame(&mut buffer).unwrap_err();
            assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_slow_reader_gets_whole_frames_and_bounds_what_waits() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let nic = Ethernet::new(ours.into(), Framing::Length4).unwrap();
        let mut accepted = 0;
        for i in 0..2000 {
            match nic.send_frame(&[i as u8; 14], &[i as u8; 1400]) {
                Ok(_) => accepted += 1,
                Err(error) => assert_eq!(error, SendError::Full),
            }
        }
        assert!(accepted < 2000);
        theirs.set_nonblocking(true).unwrap();
        let (mut got, mut chunk) = (Vec::new(), vec![0; 10_000]);
        loop {
            let waits = nic.flush().unwrap();
            match theirs.read(&mut chunk) {
                Ok(n) => got.extend_from_slice(&chunk[..n]),
                Err(_) if !waits => break,
                Err(_) => {}
            }
        }
        assert_eq!(got.len(), accepted * 1418);
        assert!(got.chunks(1418).all(|f| f[..4] == 1414u32.to_be_bytes() && f[4] == f[1417]));
    }

    #[test]
    fn a_stream_out_of_step_is_an_error_and_so_is_the_wrong_socket() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let nic = Ethernet::new(ours.into(), Framing::Length4).unwrap();
        theirs.write_all(&[0xff; 8]).unwrap();
        let error = nic.read_frame(&mut vec![0; MAX_FRAME]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(Ethernet::new(stream.into(), Framing::Message).is_err());
        let (dgram, _other) = UnixDatagram::pair().unwrap();
        assert!(Ethernet::new(dgram.into(), Framing::Length2).is_err());
    }
}
