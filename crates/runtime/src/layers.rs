//! A root file system made of layers, in overlayfs's own form: a removed name is a character device
//! 0:0, a directory that hides those below it has the attribute [`OPAQUE`].

use std::{
    ffi::{CStr, CString},
    fs::{self, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, lchown, symlink},
    },
    path::Path,
};

use nix::{
    mount::{MsFlags, mount},
    sys::stat::{Mode, SFlag, mknod},
};

const NO_DATA: Option<&str> = None;
/// Overlayfs in a user namespace reads attributes of the `user` kind.
const OPAQUE: &CStr = c"user.overlay.opaque";

/// Makes `root` of the layers `lower/0` (lowest), `lower/1`, .. of the working directory below a
/// layer `upper` of its own (`work` is the kernel's); where the host has no overlays for users, of a copy.
pub(crate) fn mount_root(layers: usize) -> io::Result<()> {
    let lower: Vec<String> = (0..layers).rev().map(|n| format!("lower/{n}")).collect();
    let options = format!("lowerdir={},upperdir=upper,workdir=work", lower.join(":"));
    for options in [format!("{options},userxattr"), options] {
        let flags = MsFlags::MS_NODEV;
        if mount(Some("overlay"), "root", Some("overlay"), flags, Some(options.as_str())).is_ok() {
            return Ok(());
        }
    }
    for layer in 0..layers {
        lay_over(&Path::new("lower").join(layer.to_string()), Path::new("upper"))?;
    }
    Ok(mount(Some("upper"), "root", NO_DATA, MsFlags::MS_BIND | MsFlags::MS_REC, NO_DATA)?)
}

/// Makes the mark of a name that is removed from the layers below.
pub(crate) fn mark_removed(path: &Path) -> io::Result<()> {
    Ok(mknod(path, SFlag::S_IFCHR, Mode::empty(), 0)?)
}

/// Marks a directory as hiding those of its name in the layers below.
pub(crate) fn mark_opaque(directory: &Path) -> io::Result<()> {
    let path = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: both strings and the value outlive the call.
    let done =
        unsafe { libc::lsetxattr(path.as_ptr(), OPAQUE.as_ptr(), c"y".as_ptr().cast(), 1, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn is_removed(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(directory: &Path) -> bool {
    let Ok(path) = CString::new(directory.as_os_str().as_bytes()) else { return false };
    let mut value = [0_u8; 1];
    // SAFETY: the strings outlive the call, which writes at most one byte into `value`.
    let length = unsafe {
        libc::lgetxattr(path.as_ptr(), OPAQUE.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    length == 1 && value == *b"y"
}

/// Copies a layer onto what is there, with owners, modes and links.
fn lay_over(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let metadata = entry.metadata()?;
        let kind = metadata.file_type();
        let there = fs::symlink_metadata(&target).ok();
        let merges = kind.is_dir() && there.as_ref().is_some_and(Metadata::is_dir);
        match there {
            Some(_) if merges && !is_opaque(&source) => {}
            Some(there) if there.is_dir() => fs::remove_dir_all(&target)?,
            Some(_) => fs::remove_file(&target)?,
            None => {}
        }
        if kind.is_dir() {
            if fs::symlink_metadata(&target).is_err() {
                fs::create_dir(&target)?;
            }
            lay_over(&source, &target)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target)?;
        } else {
            debug_assert!(is_removed(&metadata) || !kind.is_char_device());
            continue;
        }
        lchown(&target, Some(metadata.uid()), Some(metadata.gid()))?;
        if !kind.is_symlink() {
            fs::set_permissions(&target, metadata.permissions())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_laid_over_each_other_are_as_if_mounted() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not tested: needs root, to make marks on any kernel");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["0/etc/kept", "0/old/gone", "0/turned", "1/etc", "1/old", "upper"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        for path in ["0/etc/a", "0/etc/b", "0/old/x", "1/etc/b", "1/old/new", "1/turned"] {
            fs::write(at(path), path).unwrap();
        }
        mark_removed(&at("1/etc/a")).unwrap();
        mark_removed(&at("1/etc/never")).unwrap();
        mark_opaque(&at("1/old")).unwrap();
        for layer in ["0", "1"] {
            lay_over(&at(layer), &at("upper")).unwrap();
        }
        let read = |path: &str| fs::read_to_string(at("upper").join(path)).unwrap();
        assert_eq!((read("etc/b"), read("old/new")), ("1/etc/b".into(), "1/old/new".into()));
        assert_eq!(read("turned"), "1/turned");
        assert!(at("upper/etc/kept").is_dir());
        for gone in ["etc/a", "etc/never", "old/x", "old/gone"] {
            assert!(fs::symlink_metadata(at("upper").join(gone)).is_err(), "{gone}");
        }
    }
}
