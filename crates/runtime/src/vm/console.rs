//! What a machine writes to its console: read always, its end kept for messages.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::UnixStream, sync::watch};

/// How much is kept.
const KEPT: usize = 16 << 10;
/// How much of it goes into a message.
const SHOWN: usize = 5;

/// The end of a console's text.
#[derive(Debug, Clone)]
pub(super) struct Console {
    tail: Arc<Mutex<Vec<u8>>>,
    over: watch::Receiver<bool>,
}

impl Console {
    /// Reads a console until its end.
    pub(super) fn read(socket: OwnedFd) -> io::Result<Self> {
        let socket = std::os::unix::net::UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        let mut socket = UnixStream::from_std(socket)?;
        let tail = Arc::<Mutex<Vec<u8>>>::default();
        let (ending, over) = watch::channel(false);
        let kept = tail.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; KEPT];
            while let Ok(n @ 1..) = socket.read(&mut buffer).await {
                let mut tail = kept.lock().unwrap_or_else(PoisonError::into_inner);
                tail.extend_from_slice(&buffer[..n]);
                let surplus = tail.len().saturating_sub(KEPT);
                tail.drain(..surplus);
            }
            let _ = ending.send(true);
        });
        Ok(Self { tail, over })
    }

    /// The last lines, made fit to follow a message; waits a little for a machine that has just ended.
    pub(super) async fn tail(&self) -> String {
        let mut over = self.over.clone();
        let _ = tokio::time::timeout(Duration::from_secs(1), over.wait_for(|over| *over)).await;
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&tail);
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.chars().map(printable).collect::<String>().trim().to_owned())
            .filter(|line| !line.is_empty())
            .collect();
        let mut shown = &lines[lines.len().saturating_sub(SHOWN)..];
        // Why a kernel gave up stands before where it was.
        if let Some(at) = lines.iter().rposition(|line| line.contains("Kernel panic")) {
            shown = &lines[at..lines.len().min(at + SHOWN)];
        }
        let last = shown.join(" | ");
        if last.is_empty() { String::new() } else { format!("; its console ends with: {last}") }
    }
}
