//! Files of the payload that others ask init for.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use crate::{Access, Names};

/// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`: files of init's own, mounted over those of the
/// image, so that changing them follows no path that the payload controls.
pub(super) struct NameFiles {
    pub(super) hosts: File,
    pub(super) hostname: File,
    pub(super) resolv_conf: File,
}

impl NameFiles {
    pub(super) fn write(&mut self, names: &Names) -> io::Result<()> {
        replace(&mut self.hosts, &names.hosts_file())?;
        replace(&mut self.hostname, &format!("{}\n", names.hostname))?;
        replace(&mut self.resolv_conf, &names.resolv_conf())
    }
}

fn replace(file: &mut File, text: &str) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

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
