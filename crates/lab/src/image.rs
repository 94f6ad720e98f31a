//! Payload images.

use std::{fs, io, path::Path, process::Command};

/// Adds a program of this machine to the image in the directory `root`, with its libraries, each at the
/// place that it has here.
///
/// # Errors
/// When the program is not installed, or a file cannot be copied.
pub fn install(root: &Path, program: &str) -> io::Result<()> {
    if !Path::new(program).exists() {
        let what = format!("{program} is not installed: scripts/setup installs it");
        return Err(io::Error::new(io::ErrorKind::NotFound, what));
    }
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let to = root.join(file.trim_start_matches('/'));
        // A program may be there as one of busybox's.
        let _ = fs::remove_file(&to);
        to.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::copy(file, to)?;
    }
    Ok(())
}
