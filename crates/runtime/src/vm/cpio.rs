//! The initial file system of a machine: a cpio archive in the `newc` form
//! (the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`).

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;

/// Writes an archive.
pub(super) struct Archive<W> {
    to: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, entries: 0 }
    }

    pub(super) fn directory(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, DIRECTORY, (0, 0), &[])
    }

    pub(super) fn program(&mut self, name: &str, contents: &[u8]) -> io::Result<()> {
        self.entry(name, PROGRAM, (0, 0), contents)
    }

    /// A character device, which the kernel wants for its first process's output.
    pub(super) fn device(&mut self, name: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(name, DEVICE, (major, minor), &[])
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        Ok(self.to)
    }

    fn entry(
        &mut self,
        name: &str,
        mode: u32,
        (major, minor): (u32, u32),
        contents: &[u8],
    ) -> io::Result<()> {
        self.entries += 1;
        let size = u32::try_from(contents.len()).map_err(io::Error::other)?;
        let fields =
            [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name.len() as u32 + 1, 0];
        let mut header = String::from("070701");
        fields.iter().for_each(|field| header.push_str(&format!("{field:08X}")));
        self.to.write_all(header.as_bytes())?;
        self.to.write_all(name.as_bytes())?;
        // Name and contents end on a multiple of four; the header has 110 bytes.
        self.pad(110 + name.len(), 1)?;
        self.to.write_all(contents)?;
        self.pad(contents.len(), 0)
    }

    fn pad(&mut self, length: usize, least: usize) -> io::Result<()> {
        let padded = (length + least).next_multiple_of(4);
        self.to.write_all(&[0; 4][..padded - length])
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn busybox_reads_the_archive() {
        let mut archive = Archive::new(vec![]);
        archive.directory("etc").unwrap();
        archive.program("init", b"#!/bin/sh\n").unwrap();
        archive.program("etc/odd", &[7; 13]).unwrap();
        let bytes = archive.finish().unwrap();
        let mut busybox = Command::new("busybox")
            .args(["cpio", "-t"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        busybox.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = busybox.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "etc\ninit\netc/odd\n");
    }
}
