//! The card: its monitor's messages, and its two rings.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use gvpn_packet::VnetHdr;
use nix::{
    cmsg_space,
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl, readlink},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
        socket::{
            ControlMessageOwned, MsgFlags, SockFlag, accept4, getsockopt, recv, recvmsg, send,
            sockopt,
        },
    },
};
use parking_lot::Mutex;

use crate::{
    header::{FEATURES, Features, PROTOCOL},
    memory::Memory,
    message::{HEADER, MAX_BODY, Message, REPLY_ACK, Request, wrong},
    ring::{Ring, Taken},
};

/// The most buffers of a ring.
const MAX_RING: u16 = 1024;
/// The ring of frames for the machine.
const TO_MACHINE: usize = 0;
/// The ring of frames from it.
const FROM_MACHINE: usize = 1;
/// Frames from the machine after which it is told that their buffers are free.
const TELL_AFTER: u16 = 32;
/// Frames from the machine after which its monitor is heard, however many there are.
const HEAR_EVERY: u32 = 256;
/// Most messages that are followed, and looks at a ring that are taken, before others get their turn.
const TURN: usize = 16;

/// Most descriptors that the kernel passes at once (`SCM_MAX_FD`).
const MAX_DESCRIPTORS: usize = 253;

const MONITOR: u64 = 0;
const MACHINE: u64 = 1;

/// Why a frame did not go to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It has no free buffers for now.
    #[error("the machine has no free buffers")]
    Full,
    /// It has not agreed to such frames.
    #[error("the machine takes no such frames")]
    Invalid,
    /// It broke the rules of the ring.
    #[error("the machine's ring is broken")]
    Gone,
}

/// A network card of a machine.
#[derive(Debug)]
pub struct Card {
    /// The connection to the monitor, once there is one.
    socket: OnceLock<OwnedFd>,
    epoll: Epoll,
    /// Written to when there is more that nobody will tell of again.
    again: EventFd,
    control: Mutex<Control>,
    rings: [Mutex<Ring>; 2],
    takes_super_packets: AtomicBool,
    /// Frames from the machine since its monitor was heard.
    unheard: AtomicU32,
}

#[derive(Debug, Default)]
struct Control {
    /// Where the monitor connects, until it has.
    listener: Option<OwnedFd>,
    memory: Option<Arc<Memory>>,
    /// Says that the machine has sent something.
    kick: Option<OwnedFd>,
}

impl Card {
    /// A card whose monitor is at the other end of a Unix stream socket, or will connect to this one, which
    /// listens. (QEMU speaks vhost-user only over a connection that it has made itself.)
    ///
    /// # Errors
    /// When it is no such socket, or the kernel gives no descriptors.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let again = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, MONITOR))?;
        epoll.add(&again, EpollEvent::new(EDGE, MACHINE))?;
        let (connection, mut control) = (OnceLock::new(), Control::default());
        if getsockopt(&socket, sockopt::AcceptConn)? {
            fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            control.listener = Some(socket);
        } else {
            let _ = connection.set(socket);
        }
        Ok(Self {
            socket: connection,
            epoll,
            again,
            control: Mutex::new(control),
            rings: [Mutex::new(Ring::new(MAX_RING)?), Mutex::new(Ring::new(MAX_RING)?)],
            takes_super_packets: AtomicBool::new(false),
            unheard: AtomicU32::new(0),
        })
    }

    /// Whether the machine takes super-packets and packets whose checksum is open.
    pub fn takes_super_packets(&self) -> bool {
        self.takes_super_packets.load(Relaxed)
    }

    /// Copies the machine's next frame into `buffer`: its header, with offsets as they are in the packet
    /// behind the frame's Ethernet header, and its length. `Ok(None)` for one that is none. Call it until
    /// it would block: then the descriptor is ready again when there is more.
    ///
    /// # Errors
    /// `WouldBlock`, or what the machine or its monitor did wrong: the card is then of no more use.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<(VnetHdr, usize)>> {
        if self.unheard.fetch_add(1, Relaxed) >= HEAR_EVERY {
            self.hear()?;
            self.again.write(1)?;
        }
        for _ in 0..TURN {
            match self.next_frame(buffer)? {
                Taken::Frame(hdr, len) => return Ok(Some((hdr, len))),
                Taken::Bad => return Ok(None),
                Taken::Nothing => {}
            }
            let heard = self.hear()?;
            if self.rings[FROM_MACHINE].lock().listen()? {
                self.again.write(1)?;
            } else if !heard {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        self.again.write(1)?;
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// Gives the machine a frame: `parts` together begin with an Ethernet header, the offsets of `hdr`
    /// count from behind it.
    ///
    /// # Errors
    /// [`SendError`]; the frame is dropped.
    pub fn send(&self, hdr: &VnetHdr, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
        self.rings[TO_MACHINE].lock().put(hdr, parts)
    }

    fn next_frame(&self, buffer: &mut [u8]) -> io::Result<Taken> {
        let mut ring = self.rings[FROM_MACHINE].lock();
        let taken = ring.take(buffer)?;
        if matches!(taken, Taken::Nothing) || ring.untold() >= TELL_AFTER {
            ring.tell()?;
        }
        Ok(taken)
    }

    /// Follows a message of the monitor, if there is one; takes note of what else has been told. Whoever
    /// calls this has to look at the ring afterwards.
    fn hear(&self) -> io::Result<bool> {
        self.unheard.store(0, Relaxed);
        let mut events = [EpollEvent::empty(); 3];
        let n = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        if !events[..n].iter().any(|event| event.data() == MONITOR) {
            return Ok(false);
        }
        let Some(socket) = self.socket.get() else { return self.accept().map(|()| true) };
        let (message, files) = next_message(socket)?;
        let answer = self.follow(&message, files)?;
        let answer = answer.or_else(|| message.acknowledge.then(|| message.answer(0)));
        if let Some(bytes) = answer {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            if send(socket.as_raw_fd(), &bytes, flags)? != bytes.len() {
                return Err(wrong("its answer was not taken"));
            }
        }
        Ok(true)
    }

    /// Takes the one connection that there will be.
    fn accept(&self) -> io::Result<()> {
        let mut control = self.control.lock();
        let Some(listener) = control.listener.take() else { return Ok(()) };
        let accepted = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
        let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
        self.epoll.delete(&listener)?;
        self.epoll.add(&accepted, EpollEvent::new(EpollFlags::EPOLLIN, MONITOR))?;
        let _ = self.socket.set(accepted);
        Ok(())
    }

    fn follow(&self, message: &Message, files: Vec<OwnedFd>) -> io::Result<Option<Vec<u8>>> {
        let mut control = self.control.lock();
        match message.request.clone() {
            Request::GetFeatures => return Ok(Some(message.answer(FEATURES))),
            Request::GetProtocolFeatures => return Ok(Some(message.answer(REPLY_ACK))),
            Request::SetFeatures(features) => self.set_features(features)?,
            Request::SetProtocolFeatures(features) if features & !REPLY_ACK != 0 => {
                return Err(wrong("protocol features that were not offered"));
            }
            Request::SetProtocolFeatures(_) | Request::SetOwner | Request::SetError => {}
            Request::ResetOwner => {
                for ring in &self.rings {
                    ring.lock().stop();
                }
            }
            Request::SetMemory(regions) => {
                let memory = Some(Arc::new(Memory::new(regions, files)?));
                control.memory.clone_from(&memory);
                self.rings.iter().for_each(|ring| ring.lock().set_memory(memory.clone()));
            }
            Request::SetSize(index, size) => self.ring(index)?.lock().set_size(size)?,
            Request::SetPlace(index, place) => self.ring(index)?.lock().set_place(place),
            Request::SetBase(index, base) => self.ring(index)?.lock().set_base(base),
            Request::GetBase(index) => {
                let base = self.ring(index)?.lock().stop();
                return Ok(Some(message.answer_ring(index, base.into())));
            }
            Request::SetKick(index, there) => {
                let kick = eventfd(there, files)?;
                let kick = kick.ok_or_else(|| wrong("a ring that would have to be looked at"))?;
                if index as usize == FROM_MACHINE {
                    self.listen_to(&mut control, kick)?;
                }
                self.ring(index)?.lock().start()?;
            }
            Request::SetCall(index, there) => {
                let call = eventfd(there, files)?;
                self.ring(index)?.lock().set_call(call);
            }
            Request::SetEnabled(index, on) => self.ring(index)?.lock().set_enabled(on),
        }
        Ok(None)
    }

    fn set_features(&self, features: u64) -> io::Result<()> {
        if features & !FEATURES != 0 {
            return Err(wrong("features that were not offered"));
        }
        let taken = Features(features);
        for ring in &self.rings {
            let mut ring = ring.lock();
            ring.set_features(taken);
            if features & PROTOCOL == 0 {
                ring.set_enabled(true);
            }
        }
        self.takes_super_packets.store(taken.takes_super_packets(), Relaxed);
        Ok(())
    }

    /// Waits for this kick from now on. It is never read: each one is an edge.
    fn listen_to(&self, control: &mut Control, kick: OwnedFd) -> io::Result<()> {
        if let Some(former) = control.kick.take() {
            self.epoll.delete(&former)?;
        }
        self.epoll.add(&kick, EpollEvent::new(EDGE, MACHINE))?;
        control.kick = Some(kick);
        Ok(())
    }

    fn ring(&self, index: u32) -> io::Result<&Mutex<Ring>> {
        self.rings.get(index as usize).ok_or_else(|| wrong("there is no such ring"))
    }
}

const EDGE: EpollFlags = EpollFlags::EPOLLIN.union(EpollFlags::EPOLLET);

impl AsFd for Card {
    /// Ready to be read when there may be something to [receive](Self::receive).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

/// Reads a message, which the monitor has sent whole.
fn next_message(socket: &OwnedFd) -> io::Result<(Message, Vec<OwnedFd>)> {
    let mut bytes = [0; HEADER + MAX_BODY];
    let (head, body) = bytes.split_at_mut(HEADER);
    // Those that are too many must be closed too.
    let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut into = [IoSliceMut::new(head)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let socket = socket.as_raw_fd();
    let received = recvmsg::<()>(socket, &mut into, Some(&mut space), flags)?;
    let mut files = vec![];
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = message {
            // SAFETY: the kernel has just made these descriptors for us, and nobody else knows them.
            files.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let len = received.bytes;
    if len == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rest = head[8..].first_chunk().map_or(0, |len| u32::from_ne_bytes(*len) as usize);
    if len != HEADER || rest > MAX_BODY {
        return Err(wrong("its length makes no sense"));
    }
    if rest > 0 && recv(socket, &mut body[..rest], MsgFlags::MSG_DONTWAIT)? != rest {
        return Err(wrong("it is cut short"));
    }
    Ok((Message::read(&bytes[..HEADER + rest])?, files))
}

/// The event counter that came with a message. Another kind of file could block whoever uses it.
fn eventfd(there: bool, files: Vec<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    if !there {
        return Ok(None);
    }
    let file = files.into_iter().next().ok_or_else(|| wrong("its descriptor is missing"))?;
    let kind = readlink(format!("/proc/self/fd/{}", file.as_raw_fd()).as_str())?;
    if kind != "anon_inode:[eventfd]" {
        return Err(wrong("its descriptor is no event counter"));
    }
    let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
    fcntl(&file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(Some(file))
}
