//! UDP sockets with segmentation and receive offload.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::{AsRawFd, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use socket2::{Domain, Protocol, Socket, Type};

/// The largest datagram that one receive may bring, a batch of small ones included.
pub(crate) const MAX_DATAGRAM: usize = 65_535;
/// At most this many datagrams in one send.
pub(crate) const MAX_SEGMENTS: usize = 64;
/// At most this many bytes in one send.
pub(crate) const MAX_SEND: usize = 65_507;
/// At most this many messages are received before what they brought is handed on.
pub(crate) const RECEIVE_BATCH: usize = 64;
/// From one message's place in a receive buffer to the next. Were it a power of two, the beginnings of
/// all would compete for a few lines of the processor's caches.
pub(crate) const SLOT: usize = MAX_DATAGRAM + 1 + 24 * 64;

/// Memory that a socket may fill with what waits to be received, and as much again with what waits to
/// be sent, where the system permits.
const SOCKET_BUFFER: usize = 16 << 20;
/// A socket in which more memory is filled is flooded: before long, datagrams are lost.
const FLOODED: u32 = (SOCKET_BUFFER / 2) as u32;
const UDP_SEGMENT: libc::c_int = 103;
const UDP_GRO: libc::c_int = 104;
const SO_MEMINFO: libc::c_int = 55;
const CONTROL: usize = 96;

/// One socket of one thread. Every thread has its own on the same address.
#[derive(Debug)]
pub(crate) struct UdpSocket {
    fd: OwnedFd,
    local: SocketAddr,
    gso: AtomicBool,
    gro: bool,
}

/// What one message of a receive brought.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Message {
    pub(crate) from: SocketAddr,
    pub(crate) len: usize,
    pub(crate) stride: usize,
    pub(crate) ecn: u8,
}

/// When a socket begins to share its address with those of other threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// Others have it already.
    Now,
    /// Nobody else has it yet: a program that shares what it listens on would go unnoticed, and where
    /// any port will do, the system would choose one that sockets that share have.
    Later,
}

impl UdpSocket {
    /// Opens a socket that shares its address with those of other threads, once it has it.
    pub(crate) fn bind(addr: SocketAddr, share: Share, gso: bool, gro: bool) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_cloexec(true)?;
        socket.set_reuse_port(share == Share::Now)?;
        if addr.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        set_buffers(&socket);
        set_flags(&socket, addr.is_ipv6());
        let gso = gso && get(&socket, libc::SOL_UDP, UDP_SEGMENT).is_ok();
        let gro = gro && set(&socket, libc::SOL_UDP, UDP_GRO, 1).is_ok();
        socket.bind(&addr.into())?;
        socket.set_reuse_port(true)?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
        Ok(Self { fd: socket.into(), local, gso: AtomicBool::new(gso), gro })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(crate) fn uses_gso(&self) -> bool {
        self.gso.load(Relaxed)
    }

    pub(crate) fn uses_gro(&self) -> bool {
        self.gro
    }

    /// Sends `bytes` as datagrams of `segment` bytes, the last one maybe shorter. Falls back to one
    /// at a time, for good, where the device cannot segment.
    pub(crate) fn send(
        &self,
        to: SocketAddr,
        bytes: &[u8],
        segment: usize,
        ecn: u8,
    ) -> io::Result<()> {
        if bytes.len() <= segment {
            return self.send_once(to, bytes, None, ecn);
        }
        if !self.uses_gso() {
            return self.send_singly(to, bytes, segment, ecn);
        }
        match self.send_once(to, bytes, Some(segment as u16), ecn) {
            Err(e)
                if matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)) =>
            {
                self.send_singly(to, bytes, segment, ecn)?;
                // The same datagrams pass one by one: it is the offload that does not work here.
                if e.raw_os_error() != Some(libc::EMSGSIZE) {
                    self.gso.store(false, Relaxed);
                    tracing::warn!(error = %e, "UDP segmentation offload does not work on this path; sending one datagram at a time");
                }
                Ok(())
            }
            other => other,
        }
    }

    fn send_singly(&self, to: SocketAddr, bytes: &[u8], segment: usize, ecn: u8) -> io::Result<()> {
        bytes.chunks(segment).try_for_each(|datagram| self.send_once(to, datagram, None, ecn))
    }

    fn send_once(
        &self,
        to: SocketAddr,
        bytes: &[u8],
        segment: Option<u16>,
        ecn: u8,
    ) -> io::Result<()> {
        let name = socket2::SockAddr::from(to);
        let mut iov =
            libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut control = Control([0; CONTROL]);
        // SAFETY: an all-zero msghdr is valid: null pointers with zero lengths.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_name = name.as_ptr().cast_mut().cast();
        message.msg_namelen = name.len();
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        let mut used = 0;
        if let Some(size) = segment {
            used += control.put(used, libc::SOL_UDP, UDP_SEGMENT, &size.to_ne_bytes());
        }
        if ecn != 0 {
            let (level, kind) = match to {
                SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS),
                SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
            };
            used += control.put(used, level, kind, &i32::from(ecn).to_ne_bytes());
        }
        if used > 0 {
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = used as _;
        }
        loop {
            // SAFETY: every pointer in `message` refers to a live local of the length given.
            let sent = unsafe { libc::sendmsg(self.raw(), &message, libc::MSG_NOSIGNAL) };
            if sent >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // An earlier datagram's ICMP error, reported now and cleared by this.
                Some(libc::ECONNREFUSED) => {}
                _ => return Err(error),
            }
        }
    }

    /// Receives up to `batch` messages, each into its own [`SLOT`] of `buffer`, and appends them to
    /// `out`. Returns how many.
    pub(crate) fn receive(
        &self,
        buffer: &mut [u8],
        batch: usize,
        out: &mut Vec<Message>,
    ) -> io::Result<usize> {
        let batch = batch.clamp(1, RECEIVE_BATCH).min(buffer.len() / SLOT);
        // Only what is used is cleared: most receives bring one message.
        let mut names = [const { MaybeUninit::<libc::sockaddr_storage>::uninit() }; RECEIVE_BATCH];
        let mut iovs = [const { MaybeUninit::<libc::iovec>::uninit() }; RECEIVE_BATCH];
        let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; RECEIVE_BATCH];
        let mut controls = [const { MaybeUninit::<Control>::uninit() }; RECEIVE_BATCH];
        for (i, slot) in buffer.chunks_exact_mut(SLOT).take(batch).enumerate() {
            let slot = &mut slot[..MAX_DATAGRAM];
            let iov = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: slot.len() };
            // SAFETY: an all-zero sockaddr_storage is valid.
            names[i].write(unsafe { std::mem::zeroed() });
            controls[i].write(Control([0; CONTROL]));
            // SAFETY: an all-zero mmsghdr is valid.
            let message = messages[i].write(unsafe { std::mem::zeroed() });
            let header = &mut message.msg_hdr;
            header.msg_name = names[i].as_mut_ptr().cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = iovs[i].write(iov);
            header.msg_iovlen = 1;
            header.msg_control = controls[i].as_mut_ptr().cast();
            header.msg_controllen = CONTROL as _;
        }
        // SAFETY: the first `batch` headers point to live locals and to disjoint parts of `buffer`.
        let n = unsafe {
            libc::recvmmsg(
                self.raw(),
                messages.as_mut_ptr().cast(),
                batch as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        for (message, name) in messages.iter().zip(&names).take(n as usize) {
            // SAFETY: there are no more results than headers written above, each with its name.
            let (message, name) = unsafe { (message.assume_init_ref(), name.assume_init_ref()) };
            let len = message.msg_len as usize;
            let (segment, ecn) = read_control(&message.msg_hdr);
            out.push(Message {
                from: address(name),
                len,
                stride: segment.filter(|size| *size > 0).unwrap_or(len).max(1),
                ecn,
            });
        }
        Ok(n as usize)
    }

    /// Whether so much waits to be received that its senders must slow down at once.
    pub(crate) fn is_flooded(&self) -> bool {
        // The first of the numbers that the kernel fills in: memory of what waits to be received.
        let mut waiting: u32 = 0;
        let mut len = size_of::<u32>() as libc::socklen_t;
        // SAFETY: the pointers describe one live number and its length; the kernel writes no more.
        let result = unsafe {
            libc::getsockopt(
                self.raw(),
                libc::SOL_SOCKET,
                SO_MEMINFO,
                (&raw mut waiting).cast(),
                &raw mut len,
            )
        };
        result == 0 && waiting > FLOODED
    }

    /// Waits a little until the socket takes more.
    pub(crate) fn wait_writable(&self, milliseconds: i32) {
        let mut poll = libc::pollfd { fd: self.raw(), events: libc::POLLOUT, revents: 0 };
        // SAFETY: one live pollfd.
        unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
    }
}

#[repr(align(8))]
struct Control([u8; CONTROL]);

impl Control {
    /// Appends a control message at `at` and returns the space it takes.
    fn put(&mut self, at: usize, level: libc::c_int, kind: libc::c_int, data: &[u8]) -> usize {
        // SAFETY: CMSG_LEN and CMSG_SPACE only compute.
        let (len, space) = unsafe {
            (
                libc::CMSG_LEN(data.len() as u32) as usize,
                libc::CMSG_SPACE(data.len() as u32) as usize,
            )
        };
        let header = size_of::<libc::cmsghdr>();
        // SAFETY: an all-zero cmsghdr is valid.
        let mut cmsg: libc::cmsghdr = unsafe { std::mem::zeroed() };
        cmsg.cmsg_len = len as _;
        cmsg.cmsg_level = level;
        cmsg.cmsg_type = kind;
        // SAFETY: cmsghdr is plain data without padding that matters; read as bytes.
        let bytes = unsafe { std::slice::from_raw_parts((&raw const cmsg).cast::<u8>(), header) };
        self.0[at..at + header].copy_from_slice(bytes);
        self.0[at + header..at + header + data.len()].copy_from_slice(data);
        space
    }
}

/// Segment size and congestion bits from a received message's control data.
fn read_control(header: &libc::msghdr) -> (Option<usize>, u8) {
    let (mut segment, mut ecn) = (None, 0);
    // SAFETY: the kernel filled the control buffer that `header` points to, which is still alive.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: non-null results of CMSG_FIRSTHDR and CMSG_NXTHDR point to whole headers.
        let cmsg = unsafe { std::ptr::read_unaligned(next) };
        // SAFETY: as above; the data follows the header.
        let data = unsafe { libc::CMSG_DATA(next) };
        match (cmsg.cmsg_level, cmsg.cmsg_type) {
            (libc::SOL_UDP, UDP_GRO) => {
                // SAFETY: UDP_GRO carries an int.
                let size = unsafe { std::ptr::read_unaligned(data.cast::<libc::c_int>()) };
                segment = usize::try_from(size).ok();
            }
            // SAFETY: IP_TOS carries a byte.
            (libc::IPPROTO_IP, libc::IP_TOS) => ecn = unsafe { *data } & 3,
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                // SAFETY: IPV6_TCLASS carries an int.
                ecn = (unsafe { std::ptr::read_unaligned(data.cast::<libc::c_int>()) } & 3) as u8;
            }
            _ => {}
        }
        // SAFETY: `next` came from the same header.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    (segment, ecn)
}

fn address(name: &libc::sockaddr_storage) -> SocketAddr {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is a sockaddr_in, which is smaller than the storage.
            let v4 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into()
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that it is a sockaddr_in6, which is smaller than the storage.
            let v6 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into()
        }
        _ => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    }
}

/// Makes the buffers as large as the system permits.
fn set_buffers(socket: &Socket) {
    for (force, size) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        if set(socket, libc::SOL_SOCKET, force, SOCKET_BUFFER as libc::c_int).is_err() {
            let _ = set(socket, libc::SOL_SOCKET, size, SOCKET_BUFFER as libc::c_int);
        }
    }
}

/// Congestion bits with every datagram; no fragmentation, whatever the kernel believes of the path.
fn set_flags(socket: &Socket, v6: bool) {
    let flags = if v6 {
        [
            (libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS, 1),
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
        ]
    } else {
        [
            (libc::IPPROTO_IP, libc::IP_RECVTOS, 1),
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
        ]
    };
    for (level, name, value) in flags {
        if let Err(error) = set(socket, level, name, value) {
            tracing::debug!(%error, level, name, "a socket option is not available");
        }
    }
}

fn set(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and length describe one live int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn get(socket: &Socket, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointers describe one live int and its length.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len)
    };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(gso: bool, gro: bool) -> (UdpSocket, UdpSocket) {
        let any = "127.0.0.1:0".parse().unwrap();
        let bind = || UdpSocket::bind(any, Share::Later, gso, gro).unwrap();
        (bind(), bind())
    }

    fn receive_all(socket: &UdpSocket, bytes: usize) -> Vec<(usize, Vec<u8>)> {
        let mut buffer = vec![0; SLOT * RECEIVE_BATCH];
        let (mut messages, mut got, mut sum) = (Vec::new(), Vec::new(), 0);
        while sum < bytes {
            match socket.receive(&mut buffer, RECEIVE_BATCH, &mut messages) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    std::thread::yield_now();
                    continue;
                }
                Err(e) => panic!("{e}"),
            }
            for (message, slot) in messages.drain(..).zip(buffer.chunks(SLOT)) {
                sum += message.len;
                assert_eq!(message.ecn, 2);
                got.push((message.stride, slot[..message.len].to_vec()));
            }
        }
        got
    }

    #[test]
    fn a_batch_crosses_with_offloads_and_without() {
        let bytes: Vec<u8> = (0..40 * 1000 + 500u32).map(|i| (i / 1000) as u8).collect();
        for (gso, gro) in [(true, true), (false, true), (true, false), (false, false)] {
            let (a, b) = pair(gso, gro);
            a.send(b.local_addr(), &bytes, 1000, 2).unwrap();
            let got = receive_all(&b, bytes.len());
            let whole: Vec<u8> = got.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            assert_eq!(whole, bytes);
            if !gro {
                assert_eq!(got.len(), 41);
            } else if gso {
                assert_eq!((got.len(), got[0].0), (1, 1000));
            }
        }
    }

    #[test]
    fn a_socket_that_nobody_reads_is_flooded() {
        let (a, b) = pair(true, true);
        let bytes = vec![0; 60_000];
        let mut sent = 0;
        while !b.is_flooded() && sent < 2 * SOCKET_BUFFER {
            match a.send(b.local_addr(), &bytes, 1000, 0) {
                Ok(()) => sent += bytes.len(),
                // The kernel has not yet handed over what went before.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(e) => panic!("{e}"),
            }
        }
        let socket = Socket::from(b.fd.try_clone().unwrap());
        let room = get(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF).unwrap() as u32;
        // A buffer takes one message more than it has room for.
        if room > FLOODED + (1 << 20) {
            assert!(b.is_flooded(), "room for {room}, {sent} bytes sent");
        }
        if room < FLOODED - (1 << 20) {
            assert!(!b.is_flooded(), "room for {room}, {sent} bytes sent");
        }
        let (mut buffer, mut messages) = (vec![0; SLOT * RECEIVE_BATCH], Vec::new());
        while b.receive(&mut buffer, RECEIVE_BATCH, &mut messages).is_ok() {}
        assert!(!b.is_flooded());
    }

    #[test]
    fn threads_share_an_address_that_nobody_else_has() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = UdpSocket::bind(any, Share::Later, true, true).unwrap();
        let second = UdpSocket::bind(first.local_addr(), Share::Now, true, true).unwrap();
        let error = UdpSocket::bind(first.local_addr(), Share::Later, true, true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // What many send is spread over both.
        let mut room = vec![0; SLOT * RECEIVE_BATCH];
        let mut got = |socket: &UdpSocket| {
            let mut messages = Vec::new();
            socket.receive(&mut room, RECEIVE_BATCH, &mut messages).unwrap_or(0)
        };
        let (mut one, mut other) = (0, 0);
        for _ in 0..64 {
            let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            sender.send_to(b"x", first.local_addr()).unwrap();
            one += got(&first);
            other += got(&second);
        }
        assert!(one + other == 64 && one > 0 && other > 0, "{one} and {other}");
    }

    #[test]
    fn a_datagram_too_large_for_the_device_is_an_error_that_says_so() {
        let (a, b) = pair(true, true);
        let error = a.send(b.local_addr(), &vec![0; 65_600], 65_600, 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
        assert!(a.uses_gso());
    }
}
