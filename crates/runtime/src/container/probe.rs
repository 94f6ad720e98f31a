//! An image with a program that does nothing, for finding out whether a runtime works.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use super::inside::KEEPER;

/// The program of [`write_probe_image`]'s image. With an argument it ends at once, with 0; without, it
/// waits until it is killed.
pub const PROBE: &str = "/probe";

/// Makes a directory that is an image: [`PROBE`] and nothing else.
///
/// # Errors
/// When it cannot be written.
pub fn write_probe_image(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let path = directory.join(PROBE.trim_start_matches('/'));
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(path)?
        .write_all(KEEPER)
}
