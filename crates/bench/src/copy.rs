//! The copy-only limit: two TUNs and a forwarder that moves super-packets between them and does
//! nothing else.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::fd::AsRawFd,
    thread,
};

use gvpn_lab::Host;

use crate::{
    bed::Bed,
    system::{BenchError, Layout, Peer, System, Tunnel, io},
};

/// The copy-only forwarder.
pub(crate) struct CopyOnly;

impl System for CopyOnly {
    fn name(&self) -> &str {
        "copy only"
    }

    fn available(&self) -> Result<(), String> {
        Ok(())
    }

    fn up(&self, bed: &Bed, _: Layout) -> Result<Tunnel, BenchError> {
        let (a, b) = (tun(&bed.a, "10.98.0.1/24")?, tun(&bed.b, "10.98.0.2/24")?);
        forward(&a, &b)?;
        forward(&b, &a)?;
        Ok(Tunnel {
            client: Box::new(bed.a.clone()),
            servers: vec![Peer { side: Box::new(bed.b.clone()), address: [10, 98, 0, 2].into() }],
            gate: None,
            keys_age: None,
            _guards: vec![Box::new((a, b))],
        })
    }
}

/// Bytes of the longest super-packet and of the `virtio_net_hdr` before it.
pub(crate) const MOST: usize = 10 + (1 << 16);

/// UDP segmentation in `linux/if_tun.h`.
const TUN_F_USO4: libc::c_uint = 0x20;
const TUN_F_USO6: libc::c_uint = 0x40;

/// A device `copy0` that takes and gives super-packets.
pub(crate) fn tun(host: &Host, address: &str) -> Result<File, BenchError> {
    let file = host.enter(open_tun)?.map_err(io("opening a TUN device"))?;
    host.ip(["addr", "add", address, "dev", "copy0"])?;
    host.ip(["link", "set", "copy0", "mtu", "1420", "up"])?;
    Ok(file)
}

fn open_tun() -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: an ifreq of zeros is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"copy0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as i16;
    // SAFETY: the request takes what it is given here, and the descriptor is open.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) } == -1 {
        return Err(std::io::Error::last_os_error());
    }
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
    // Kernels before 6.2 do not pass UDP super-packets.
    for offloads in [tcp | TUN_F_USO4 | TUN_F_USO6, tcp] {
        // SAFETY: as above.
        let set = unsafe {
            libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(offloads))
        };
        if set != -1 {
            return Ok(file);
        }
    }
    Err(std::io::Error::last_os_error())
}

/// Copies from one TUN to the other until the first is closed: its namespace has gone.
fn forward(from: &File, to: &File) -> Result<(), BenchError> {
    let mut from = from.try_clone().map_err(io("sharing a TUN device"))?;
    let mut to = to.try_clone().map_err(io("sharing a TUN device"))?;
    thread::spawn(move || {
        let mut packet = vec![0; MOST];
        while let Ok(length) = from.read(&mut packet) {
            let _ = to.write(&packet[..length]);
        }
    });
    Ok(())
}
