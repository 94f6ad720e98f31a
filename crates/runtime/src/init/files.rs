//! Files that tell the payload its names.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{self, Seek, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::Names;

/// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf`: files of init's own, mounted over those of the
/// image, so that changing them follows no path that the payload controls.
pub(crate) struct NameFiles {
    hosts: File,
    hostname: File,
    resolv_conf: File,
}

impl NameFiles {
    /// Their names in `/etc`, in the order that [`make`](Self::make) makes them in.
    pub(crate) const NAMES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

    /// Makes the files in a directory of init's own.
    pub(crate) fn make(directory: &Path, names: &Names) -> io::Result<Self> {
        let [hosts, hostname, resolv_conf] =
            Self::NAMES.map(|name| new_file(&directory.join(name)));
        let mut files = Self { hosts: hosts?, hostname: hostname?, resolv_conf: resolv_conf? };
        files.write(names)?;
        Ok(files)
    }

    pub(crate) fn write(&mut self, names: &Names) -> io::Result<()> {
        replace(&mut self.hosts, &names.hosts_file())?;
        replace(&mut self.hostname, &format!("{}\n", names.hostname))?;
        replace(&mut self.resolv_conf, &names.resolv_conf())
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o644))?;
    Ok(file)
}

fn replace(file: &mut File, text: &str) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}
