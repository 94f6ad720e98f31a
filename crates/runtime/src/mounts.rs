//! Mounts, in the present mount namespace.

use std::{ffi::CString, io, os::fd::AsFd, path::Path};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{chdir, fchdir, pivot_root},
};

use crate::rooted::Root;

const NO_DATA: Option<&str> = None;

/// Shows a file or a tree at a second place.
///
/// # Errors
/// As `mount(2)`.
pub(crate) fn bind(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount(Some(from), to, NO_DATA, MsFlags::MS_BIND | MsFlags::MS_REC, NO_DATA)?)
}

/// Makes everything that is mounted at and below a place read-only.
///
/// # Errors
/// As `mount_setattr(2)`: `EINVAL` where nothing is mounted.
pub(crate) fn make_read_only(place: &Path) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let path = CString::new(place.as_os_str().as_encoded_bytes())?;
    // SAFETY: path and attributes outlive the call, which only reads them.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a directory, on which something is mounted, the root, and lets go of the old one.
///
/// # Errors
/// As `pivot_root(2)`.
pub(crate) fn change_root(to: &Path) -> io::Result<()> {
    chdir(to)?;
    // The old root ends up mounted over the new one, and goes.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    let root = Root::at("/")?;
    fchdir(root.as_fd())?;
    Ok(())
}
