//! Files on their way in and out.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use gvpn_guest::{Done, Stream};

use super::program::Programs;

/// Sends a file.
pub(super) fn read(programs: Arc<Programs>, id: u64, path: String) {
    programs.open_window(id);
    thread::spawn(move || {
        let outcome = open(&path).map(|file| {
            programs.forward(id, Stream::Stdout, file);
            Done::Nothing
        });
        programs.close_window(id);
        programs.answer(id, outcome);
    });
}

fn open(path: &str) -> Result<File, String> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|e| e.to_string())?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        _ => Err("not a regular file".to_owned()),
    }
}

/// Files that are being written.
#[derive(Default)]
pub(super) struct Files(HashMap<u64, Incoming>);

/// A file that takes its name when it is whole.
struct Incoming {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
}

impl Files {
    pub(super) fn create(&mut self, id: u64, path: &str) -> Result<(), String> {
        let path = PathBuf::from(path);
        if path.is_dir() {
            return Err("it is a directory".to_owned());
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(|e| e.to_string())?;
        let unfinished = directory.join(format!(".incoming-{id}"));
        let file = File::create(&unfinished).map_err(|e| e.to_string())?;
        self.0.insert(id, Incoming { file, unfinished, path });
        Ok(())
    }

    /// Adds bytes; none make the file whole. Whether it is.
    pub(super) fn append(&mut self, id: u64, data: &[u8]) -> Result<bool, String> {
        // What follows a failure that has been told has no file any more.
        let Some(incoming) = self.0.get_mut(&id) else { return Ok(false) };
        if !data.is_empty() {
            let written = incoming.file.write_all(data);
            return match written {
                Ok(()) => Ok(false),
                Err(e) => {
                    self.drop_file(id);
                    Err(e.to_string())
                }
            };
        }
        let Some(Incoming { unfinished, path, .. }) = self.0.remove(&id) else { return Ok(false) };
        match fs::rename(&unfinished, &path) {
            Ok(()) => Ok(true),
            Err(e) => {
                let _ = fs::remove_file(&unfinished);
                Err(e.to_string())
            }
        }
    }

    fn drop_file(&mut self, id: u64) {
        if let Some(incoming) = self.0.remove(&id) {
            let _ = fs::remove_file(incoming.unfinished);
        }
    }
}
