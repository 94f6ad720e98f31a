//! The runtime's executable: its arguments, and single commands given to it.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use gvpn_vnic::Child;
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::unix::pipe,
    time::timeout,
};

use crate::{
    Helper, Payload, RuntimeError,
    keep::{self, Order},
};

/// Most bytes that a single command may print.
const PRINTED: usize = 1 << 20;
/// How much of its complaints is kept.
const COMPLAINTS: usize = 4 << 10;

/// A runtime's executable.
#[derive(Debug, Clone)]
pub(super) struct Executable {
    pub(super) path: PathBuf,
}

/// Where a started program's output goes.
pub(super) enum Streams {
    /// Both directions of the channel; complaints are kept.
    Channel,
    /// These pipes.
    Pipes { stdout: OwnedFd, stderr: OwnedFd },
}

/// A started program.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) process: Child,
    pub(super) socket: OwnedFd,
    pub(super) complaints: Complaints,
}

impl Executable {
    /// How it is called in messages.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }

    /// The arguments that every command gets.
    pub(super) fn global_args(payload: &Payload, workdir: &Path) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--workdir".into(), workdir.into()];
        let mut push = |name: &str, value: OsString| args.extend([name.into(), value]);
        if let Some(image) = payload.image() {
            push("--task-package", image.into());
        }
        let limits = &payload.config().limits;
        let gib = |bytes: u64| format!("{}", bytes as f64 / f64::from(1 << 30)).into();
        if let Some(cores) = limits.cpu_cores {
            push("--cpu-cores", format!("{}", cores.max(1.0) as u64).into());
        }
        if let Some(bytes) = limits.memory {
            push("--mem-gib", gib(bytes));
        }
        if let Some(bytes) = limits.storage {
            push("--storage-gib", gib(bytes));
        }
        args
    }

    /// Starts it under a keeper.
    pub(super) async fn start(
        &self,
        helper: &Helper,
        workdir: &Path,
        args: &[OsString],
        streams: Streams,
    ) -> Result<Running, RuntimeError> {
        let refused = |source: io::Error| {
            RuntimeError::Failed(format!(
                "cannot start the runtime {}: {source}",
                self.path.display()
            ))
        };
        // Said here, where it can be said better than by the keeper's end.
        nix::unistd::access(&self.path, nix::unistd::AccessFlags::X_OK)
            .map_err(|e| refused(e.into()))?;
        let order = Order {
            program: self.path.clone(),
            args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
            output_to_input: matches!(streams, Streams::Channel),
            cage: None,
        };
        let (stdout, stderr, complaints) = match streams {
            Streams::Pipes { stdout, stderr } => (Some(stdout), stderr, Complaints::default()),
            Streams::Channel => {
                let (reader, writer) = io::pipe().map_err(refused)?;
                (None, writer.into(), Complaints::read(reader.into()).map_err(refused)?)
            }
        };
        let spawned = keep::start(helper, &order, |command| {
            command.current_dir(workdir).stderr(Stdio::from(stderr));
            if let Some(stdout) = stdout {
                put_on_stdout(command, stdout);
            }
            Ok(())
        });
        let (process, socket) = spawned.await.map_err(refused)?;
        Ok(Running { process, socket, complaints })
    }

    /// Gives a single command and returns what it printed.
    pub(super) async fn ask(
        &self,
        helper: &Helper,
        workdir: &Path,
        args: &[OsString],
        patience: Duration,
    ) -> Result<Vec<u8>, RuntimeError> {
        let command = args.last().map(|arg| arg.to_string_lossy().into_owned()).unwrap_or_default();
        let failed = |why: String| {
            RuntimeError::Failed(format!("the runtime {}: `{command}` {why}", self.name()))
        };
        let Running { mut process, socket, complaints } =
            self.start(helper, workdir, args, Streams::Channel).await?;
        let talk = async {
            let socket = std::os::unix::net::UnixStream::from(socket);
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UnixStream::from_std(socket)?;
            let mut printed = vec![];
            (socket).take(PRINTED as u64 + 1).read_to_end(&mut printed).await?;
            if printed.len() > PRINTED {
                return Ok((printed, None));
            }
            io::Result::Ok((printed, Some(process.wait().await?)))
        };
        match timeout(patience, talk).await {
            Err(_) => Err(failed(format!("did not end within {} s", patience.as_secs()))),
            Ok(Err(e)) => Err(failed(format!("could not be followed: {e}"))),
            Ok(Ok((_, None))) => Err(failed(format!("printed more than {PRINTED} bytes"))),
            Ok(Ok((printed, Some(status)))) if status.success() => Ok(printed),
            Ok(Ok((_, Some(status)))) => {
                let said = complaints.tail().await;
                Err(failed(format!("failed with {status}{said}")))
            }
        }
    }
}

/// Standard output is the keeper's channel otherwise.
fn put_on_stdout(command: &mut std::process::Command, stdout: OwnedFd) {
    use std::os::unix::process::CommandExt;
    // SAFETY: `dup2` is async-signal-safe; the descriptor is the closure's own.
    unsafe { command.pre_exec(move || Ok(nix::unistd::dup2_stdout(&stdout)?)) };
}

/// The end of what a runtime wrote to its standard error.
#[derive(Debug, Clone, Default)]
pub(super) struct Complaints {
    tail: Arc<Mutex<Vec<u8>>>,
    over: Option<tokio::sync::watch::Receiver<bool>>,
}

impl Complaints {
    fn read(pipe: OwnedFd) -> io::Result<Self> {
        let tail = Arc::<Mutex<Vec<u8>>>::default();
        let (ending, over) = tokio::sync::watch::channel(false);
        let reader = pipe::Receiver::from_owned_fd(pipe)?;
        let kept = tail.clone();
        tokio::spawn(async move {
            keep_tail(reader, &kept).await;
            let _ = ending.send(true);
        });
        Ok(Self { tail, over: Some(over) })
    }

    /// It, made fit to follow a message; waits a little for a program that has just ended.
    pub(super) async fn tail(&self) -> String {
        if let Some(over) = &self.over {
            let mut over = over.clone();
            let _ = timeout(Duration::from_secs(1), over.wait_for(|over| *over)).await;
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&tail);
        let text = text.trim();
        if text.is_empty() { String::new() } else { format!("; it said: {text}") }
    }
}

async fn keep_tail(mut reader: impl AsyncRead + Unpin, tail: &Mutex<Vec<u8>>) {
    let mut buffer = vec![0; COMPLAINTS];
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend_from_slice(&buffer[..n]);
        let surplus = tail.len().saturating_sub(COMPLAINTS);
        tail.drain(..surplus);
    }
}
