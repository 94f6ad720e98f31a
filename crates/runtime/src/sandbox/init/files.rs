//! Files of the payload that others ask init for.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::Access;

/// Opens a file in the payload's root. Never blocks, whatever the payload has put there.
pub(super) fn open(path: &str, access: Access) -> io::Result<File> {
    let path = Path::new("/").join(path);
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC);
    match access {
        Access::Read => options.read(true),
        Access::Write => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            options.write(true).create(true)
        }
    };
    let file = options.open(&path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    if access == Access::Write {
        file.set_len(0)?;
    }
    Ok(file)
}
