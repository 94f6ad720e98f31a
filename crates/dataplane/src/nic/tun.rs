//! TUN devices.

use std::{
    io::{self, IoSlice},
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

use gvpn_packet::VNET_LEN;

use super::SendError;

/// Checks that a descriptor is a TUN without packet information, with or without
/// `virtio_net_hdr`.
pub(crate) fn check(fd: &OwnedFd, vnet: bool) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // SAFETY: TUNGETIFF fills the ifreq that it is given.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNGETIFF as _, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: TUNGETIFF has set the flags.
    let flags = i32::from(unsafe { request.ifr_ifru.ifru_flags });
    let wrong = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if flags & libc::IFF_TUN == 0 {
        return wrong("the device is not a TUN");
    }
    if flags & libc::IFF_NO_PI == 0 {
        return wrong("the device carries packet information; open it with IFF_NO_PI");
    }
    if (flags & libc::IFF_VNET_HDR != 0) != vnet {
        return wrong("whether it carries virtio_net_hdr is not as said");
    }
    if vnet {
        let size = VNET_LEN as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int.
        if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETVNETHDRSZ as _, &raw const size) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

pub(crate) fn write(fd: RawFd, parts: &[IoSlice<'_>]) -> Result<(), SendError> {
    loop {
        // SAFETY: IoSlice has the layout of iovec, and the slices are alive.
        let n = unsafe { libc::writev(fd, parts.as_ptr().cast(), parts.len() as libc::c_int) };
        if n >= 0 {
            return Ok(());
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => return Err(SendError::Full),
            Some(libc::EBADFD | libc::EBADF | libc::ENODEV) => return Err(SendError::Gone),
            // EIO is an interface that is down.
            _ => return Err(SendError::Invalid),
        }
    }
}

pub(crate) fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the pointer and length describe a live buffer.
        let n = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
        if n >= 0 {
            return Ok(n as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
