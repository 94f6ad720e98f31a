//! TUN devices.

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsRawFd, OwnedFd},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{TunDevice, TunSpec, protocol::Refusal};

const TUN_F_CSUM: u32 = 0x01;
const TUN_F_TSO4: u32 = 0x02;
const TUN_F_TSO6: u32 = 0x04;
const TUN_F_TSO_ECN: u32 = 0x08;
const TUN_F_USO4: u32 = 0x20;
const TUN_F_USO6: u32 = 0x40;

/// Length of `struct virtio_net_hdr`.
const VNET_HDR_SIZE: libc::c_int = 10;

nix::ioctl_write_ptr_bad!(tun_set_iff, libc::TUNSETIFF, libc::ifreq);
nix::ioctl_write_ptr_bad!(tun_set_vnet_hdr_size, libc::TUNSETVNETHDRSZ, libc::c_int);
nix::ioctl_write_int_bad!(tun_set_offload, libc::TUNSETOFFLOAD);

/// Makes a TUN device in the present network namespace, with as many offloads as the kernel has.
pub(super) fn create(device: &Path, spec: &TunSpec) -> Result<TunDevice, Refusal> {
    let blame = |e: io::Error| Refusal { tun_device: true, ..Refusal::new("open TUN device", &e) };
    let what = || format!("make TUN interface {}", spec.name);
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let open = || OpenOptions::new().read(true).write(true).custom_flags(flags).open(device);
    let plain = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;

    let super_packets = plain | libc::IFF_VNET_HDR as libc::c_short;
    if spec.queues > 1
        && let Ok(tun) =
            create_queues(open, spec, super_packets | libc::IFF_MULTI_QUEUE as libc::c_short)
    {
        return Ok(tun);
    }
    let fd = OwnedFd::from(open().map_err(blame)?);
    let error = match set_iff(&fd, &spec.name, super_packets) {
        Ok(()) => match enable_offloads(&fd) {
            Ok(uso) => return Ok(TunDevice { fd, queues: vec![], vnet_hdr: true, uso }),
            Err(e) => e,
        },
        Err(e) => e,
    };
    if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EBUSY | libc::EEXIST)) {
        return Err(Refusal::new(what(), &error));
    }
    drop(fd);
    let fd = OwnedFd::from(open().map_err(blame)?);
    set_iff(&fd, &spec.name, plain).map_err(|e| Refusal::new(what(), &e))?;
    Ok(TunDevice { fd, queues: vec![], vnet_hdr: false, uso: false })
}

/// A device of several queues. What was made of it goes with its descriptors if that fails.
fn create_queues(
    open: impl Fn() -> io::Result<std::fs::File>,
    spec: &TunSpec,
    flags: libc::c_short,
) -> io::Result<TunDevice> {
    // Opening one that is there would add queues to it.
    if nix::net::if_::if_nametoindex(spec.name.as_str()).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let queue = || {
        let fd = OwnedFd::from(open()?);
        set_iff(&fd, &spec.name, flags)?;
        Ok::<_, io::Error>(fd)
    };
    let fd = queue()?;
    let uso = enable_offloads(&fd)?;
    let queues = (1..spec.queues).map(|_| queue()).collect::<Result<_, _>>()?;
    Ok(TunDevice { fd, queues, vnet_hdr: true, uso })
}

fn set_iff(fd: &OwnedFd, name: &str, flags: libc::c_short) -> io::Result<()> {
    // SAFETY: all-zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains(['/', '%', '\0']) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the request outlives the call.
    unsafe { tun_set_iff(fd.as_raw_fd(), &request) }?;
    Ok(())
}

/// Turns offloads on, the most first; whether UDP segmentation is among them.
fn enable_offloads(fd: &OwnedFd) -> io::Result<bool> {
    // SAFETY: the kernel reads one int.
    unsafe { tun_set_vnet_hdr_size(fd.as_raw_fd(), &VNET_HDR_SIZE) }?;
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    let ladder = [
        (tcp | TUN_F_USO4 | TUN_F_USO6, true),
        (tcp, false),
        (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6, false),
        (TUN_F_CSUM, false),
    ];
    let mut last = nix::Error::EINVAL;
    for (offload, uso) in ladder {
        // SAFETY: the argument is an integer.
        match unsafe { tun_set_offload(fd.as_raw_fd(), offload as libc::c_int) } {
            Ok(_) => return Ok(uso),
            Err(e) => last = e,
        }
    }
    Err(last.into())
}
