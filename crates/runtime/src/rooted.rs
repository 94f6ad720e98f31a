//! Paths resolved inside a tree, whatever links it holds.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};

/// A tree whose links lead nowhere outside.
#[derive(Debug)]
pub(crate) struct Root(OwnedFd);

impl Root {
    /// The tree below a directory.
    ///
    /// # Errors
    /// As `open(2)`.
    pub(crate) fn at(directory: impl AsRef<Path>) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(nix::fcntl::open(directory.as_ref(), flags, Mode::empty())?))
    }

    /// Opens a place, as somebody would find it whose root this is.
    ///
    /// # Errors
    /// As `openat2(2)`.
    pub(crate) fn open(&self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let made = if flags.contains(OFlag::O_CREAT) { 0o644 } else { 0 };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .mode(Mode::from_bits_truncate(made))
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(openat2(self.0.as_fd(), path, how)?)
    }

    /// Opens a regular file, without blocking on anything else.
    ///
    /// # Errors
    /// As `openat2(2)`; `InvalidInput` for what is no regular file.
    pub(crate) fn regular(&self, path: &str, flags: OFlag) -> io::Result<File> {
        let file = File::from(self.open(path, flags | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?);
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }

    /// The text of a small file; what goes beyond `most` bytes is left out.
    ///
    /// # Errors
    /// As [`regular`](Self::regular), and of reading.
    pub(crate) fn text(&self, path: &str, most: u64) -> io::Result<String> {
        let mut bytes = vec![];
        self.regular(path, OFlag::O_RDONLY)?.take(most).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A path that leads to what a descriptor of this process is open on.
pub(crate) fn fd_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
