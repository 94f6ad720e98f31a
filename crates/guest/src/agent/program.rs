//! Programs: started, their output sent as the host takes it, their end told.

use std::{
    collections::HashMap,
    io::{PipeReader, Read},
    os::unix::process::CommandExt,
    process::{Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use gvpn_guest::{Done, Exit, FromGuest, MAX_DATA, Program, Stream, WINDOW};
use nix::{
    sys::{
        signal::{Signal, killpg},
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::line::Sender;

/// Where programs are looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long the output of a program that has ended may be held open by others.
const DRAIN: Duration = Duration::from_millis(200);

/// All running programs, and files on their way out.
pub(super) struct Programs {
    pub(super) sender: Sender,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Requests by process id.
    running: HashMap<Pid, u64>,
    ended: HashMap<u64, Exit>,
    /// Bytes that may still be sent, by request and stream.
    credit: HashMap<(u64, bool), u64>,
    /// Whether there may be children.
    children: bool,
}

impl Programs {
    /// Starts the burial of children, orphans of the payload included.
    pub(super) fn start(sender: Sender) -> Arc<Self> {
        let programs = Arc::new(Self { sender, state: Mutex::default(), changed: Condvar::new() });
        let of_all = Arc::clone(&programs);
        thread::spawn(move || of_all.bury());
        programs
    }

    pub(super) fn run(this: &Arc<Self>, id: u64, program: &Program) {
        match this.spawn(id, program) {
            Ok((stdout, stderr)) => {
                let of_all = Arc::clone(this);
                thread::spawn(move || of_all.follow(id, stdout, stderr));
            }
            Err(reason) => this.answer(id, Err(reason)),
        }
    }

    pub(super) fn credit(&self, id: u64, stream: Stream, bytes: u32) {
        if let Some(credit) = self.state().credit.get_mut(&(id, stream == Stream::Stderr)) {
            *credit += u64::from(bytes);
        }
        self.changed.notify_all();
    }

    pub(super) fn kill(&self, id: u64) {
        let state = self.state();
        if let Some((pid, _)) = state.running.iter().find(|(_, of)| **of == id) {
            let _ = killpg(*pid, Signal::SIGKILL);
        }
    }

    pub(super) fn answer(&self, id: u64, outcome: Result<Done, String>) {
        self.sender.send(&FromGuest::Answer { id, outcome }, &[]);
    }

    fn spawn(&self, id: u64, program: &Program) -> Result<(PipeReader, PipeReader), String> {
        let text = |e: std::io::Error| e.to_string();
        let (stdout, to_stdout) = std::io::pipe().map_err(text)?;
        let (stderr, to_stderr) = std::io::pipe().map_err(text)?;
        let path = program.env.get("PATH").map_or(PATH, String::as_str);
        let mut command = Command::new(&program.path);
        command.args(&program.args).env_clear().env("PATH", path).env("HOME", "/root");
        command.envs(&program.env).current_dir(program.directory.as_deref().unwrap_or("/"));
        command.stdin(Stdio::null()).stdout(to_stdout).stderr(to_stderr);
        // SAFETY: `setsid` is async-signal-safe.
        unsafe { command.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
        // Held over the start, so that its burial finds whose it was.
        let mut state = self.state();
        let child = command.spawn().map_err(text)?;
        state.running.insert(Pid::from_raw(child.id() as i32), id);
        state.children = true;
        for stderr in [false, true] {
            state.credit.insert((id, stderr), WINDOW.into());
        }
        self.changed.notify_all();
        Ok((stdout, stderr))
    }

    /// Sends a program's output, then its end.
    fn follow(self: Arc<Self>, id: u64, stdout: PipeReader, stderr: PipeReader) {
        let forward = |stream, pipe| {
            let of_all = Arc::clone(&self);
            thread::spawn(move || of_all.forward(id, stream, pipe))
        };
        let readers = [forward(Stream::Stdout, stdout), forward(Stream::Stderr, stderr)];
        let mut state = self.state();
        let exit = loop {
            if let Some(exit) = state.ended.remove(&id) {
                break exit;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        // What it left running may hold the pipes open: what was written by now is waited for.
        let mut waited = Duration::ZERO;
        while readers.iter().any(|reader| !JoinHandle::is_finished(reader))
            && (waited < DRAIN || !self.is_idle(id))
        {
            thread::sleep(Duration::from_millis(5));
            waited += Duration::from_millis(5);
        }
        self.state().credit.retain(|(of, _), _| *of != id);
        self.changed.notify_all();
        self.answer(id, Ok(Done::Exited(exit)));
    }

    /// Whether nothing of a request's waits for the host to take it.
    fn is_idle(&self, id: u64) -> bool {
        self.state().credit.iter().all(|((of, _), credit)| *of != id || *credit > 0)
    }

    /// Sends what a pipe gives, as the host takes it; afterwards what comes goes nowhere.
    pub(super) fn forward(&self, id: u64, stream: Stream, mut from: impl Read) {
        let mut buffer = vec![0; MAX_DATA / 2];
        loop {
            let room = self.room(id, stream).unwrap_or(buffer.len());
            let Ok(n @ 1..) = from.read(&mut buffer[..room]) else { return };
            if let Some(credit) = self.state().credit.get_mut(&(id, stream == Stream::Stderr)) {
                *credit = credit.saturating_sub(n as u64);
            } else {
                continue;
            }
            self.sender.send(&FromGuest::Output { id, stream }, &buffer[..n]);
        }
    }

    /// Opens the window of a file on its way out.
    pub(super) fn open_window(&self, id: u64) {
        self.state().credit.insert((id, false), WINDOW.into());
    }

    pub(super) fn close_window(&self, id: u64) {
        self.state().credit.retain(|(of, _), _| *of != id);
    }

    /// How many bytes may be sent, waiting until it is some; `None` when nobody wants them any more.
    fn room(&self, id: u64, stream: Stream) -> Option<usize> {
        let mut state = self.state();
        loop {
            match *state.credit.get(&(id, stream == Stream::Stderr))? {
                0 => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                n => return Some((n as usize).min(MAX_DATA / 2)),
            }
        }
    }

    fn bury(&self) {
        loop {
            match waitpid(None, None) {
                Ok(WaitStatus::Exited(pid, code)) => self.buried(pid, Exit::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.buried(pid, Exit::Signal(signal as i32));
                }
                Err(nix::Error::ECHILD) => {
                    let mut state = self.state();
                    state.children = !state.running.is_empty();
                    while !state.children {
                        state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                }
                _ => {}
            }
        }
    }

    fn buried(&self, pid: Pid, exit: Exit) {
        let mut state = self.state();
        if let Some(id) = state.running.remove(&pid) {
            state.ended.insert(id, exit);
        }
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
