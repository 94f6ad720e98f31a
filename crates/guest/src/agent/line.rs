//! The line to the host.

use std::{
    fs::{self, File, OpenOptions},
    io::{Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use gvpn_guest::{Frame, FromGuest, MAGIC, Request, decode, encode};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};

use super::boot::{Settings, wait_for};

const READ: usize = 64 << 10;
/// Where ports of a virtio console are named.
const PORTS: &str = "/sys/class/virtio-ports";

/// The receiving end.
pub(super) struct Line {
    file: File,
    unread: Vec<u8>,
    sender: Sender,
}

/// The sending end; clones share it.
#[derive(Clone)]
pub(super) struct Sender(Arc<Mutex<File>>);

impl Line {
    /// Opens the line and greets the host.
    pub(super) fn open(settings: &Settings) -> Result<Self, String> {
        let path = device(&settings.line)?;
        let fail = |e: std::io::Error| format!("cannot open the line {}: {e}", path.display());
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?;
        if let Ok(mut terminal) = tcgetattr(&file) {
            cfmakeraw(&mut terminal);
            tcsetattr(file.as_fd(), SetArg::TCSANOW, &terminal)
                .map_err(|e| format!("cannot set up the line: {e}"))?;
        }
        let mut writer = file.try_clone().map_err(fail)?;
        writer.write_all(MAGIC).map_err(fail)?;
        let sender = Sender(Arc::new(Mutex::new(writer)));
        Ok(Self { file, unread: vec![], sender })
    }

    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// The next request; `None` when the host has let go.
    pub(super) fn receive(&mut self) -> Result<Option<Frame<Request>>, String> {
        loop {
            if let Some(frame) = decode(&mut self.unread).map_err(|e| format!("the host: {e}"))? {
                return Ok(Some(frame));
            }
            let start = self.unread.len();
            self.unread.resize(start + READ, 0);
            let read = self.file.read(&mut self.unread[start..]);
            self.unread.truncate(start + read.as_ref().map_or(0, |n| *n));
            match read {
                Ok(0) => return Ok(None),
                Ok(n) => self.sender.send(&FromGuest::Taken { bytes: n as u32 }, &[]),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("the line: {e}")),
            }
        }
    }
}

impl Sender {
    /// Sends a frame. A host that is gone ends the machine in any case.
    pub(super) fn send(&self, message: &FromGuest, data: &[u8]) {
        if let Ok(bytes) = encode(message, data) {
            let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = file.write_all(&bytes);
        }
    }
}

/// The device of a line: a path, or the name of a virtio port.
fn device(line: &str) -> Result<PathBuf, String> {
    if line.starts_with('/') {
        wait_for(line)?;
        return Ok(line.into());
    }
    wait_for(PORTS)?;
    for _ in 0..200 {
        for entry in fs::read_dir(PORTS).into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            if name.trim() == line {
                return Ok(Path::new("/dev").join(entry.file_name()));
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    Err(format!("there is no virtio port {line}"))
}
