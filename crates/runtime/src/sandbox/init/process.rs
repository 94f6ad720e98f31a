//! Programs of the payload.

use std::{
    collections::BTreeMap,
    ffi::{CString, NulError},
    fs, io,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
};

use nix::unistd::{ForkResult, Pid, dup2_stderr, dup2_stdin, dup2_stdout, fork, setpgid};

use super::confine;
use crate::{Limits, Program, init::Setup};

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts programs.
pub(super) struct Launcher {
    env: BTreeMap<String, String>,
    limits: Limits,
}

impl Launcher {
    pub(super) fn new(setup: &Setup<()>) -> Self {
        let standard = [("PATH", PATH), ("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root")];
        let mut env: BTreeMap<String, String> =
            standard.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        env.insert("SHELL".to_owned(), "/bin/sh".to_owned());
        env.extend(setup.env.clone());
        let mut limits = setup.limits.clone();
        limits.memory = limits.memory.filter(|_| !setup.memory_is_bounded);
        Self { env, limits }
    }

    /// Starts a program with the two descriptors as its output; an error when it cannot be executed.
    pub(super) fn launch(&self, program: &Program, output: Vec<OwnedFd>) -> io::Result<Pid> {
        let Ok([stdout, stderr]) = <[OwnedFd; 2]>::try_from(output) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let invalid = |_: NulError| io::Error::new(io::ErrorKind::InvalidInput, "a zero byte");
        let image = Image::new(program, &self.env).map_err(invalid)?;
        let (mut failure, failed) = io::pipe()?;
        // SAFETY: this process has one thread.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop(failure);
                let error = self.become_program(&image, program, &stdout, &stderr);
                let code = error.raw_os_error().unwrap_or(libc::EIO);
                let _ = (&failed).write_all(&code.to_ne_bytes());
                std::process::exit(127)
            }
            ForkResult::Parent { child } => {
                drop(failed);
                let mut code = [0; 4];
                match failure.read_exact(&mut code) {
                    Ok(()) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(code))),
                    Err(_) => Ok(child),
                }
            }
        }
    }

    /// In the new process; returns only with an error.
    fn become_program(
        &self,
        image: &Image,
        program: &Program,
        stdout: &OwnedFd,
        stderr: &OwnedFd,
    ) -> io::Error {
        let prepare = || -> io::Result<()> {
            // A group, not a session: a session leader whose parent is process 1 looks to servers as if
            // it had been sent to the background already.
            setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
            let null = fs::File::open("/dev/null")?;
            dup2_stdin(null.as_fd())?;
            dup2_stdout(stdout)?;
            dup2_stderr(stderr)?;
            let directory = program.directory.as_deref().unwrap_or("/");
            nix::unistd::chdir(directory)?;
            keep_only_output()?;
            confine::confine(&self.limits)
        };
        match prepare() {
            Ok(()) => image.execute(),
            Err(e) => e,
        }
    }
}

/// Whatever else is open here does not reach the program.
fn keep_only_output() -> io::Result<()> {
    // SAFETY: plain system call; it only marks descriptors close-on-exec.
    let done = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What `execve` wants.
struct Image {
    paths: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Image {
    fn new(program: &Program, env: &BTreeMap<String, String>) -> Result<Self, NulError> {
        let mut all = env.clone();
        all.extend(program.env.clone());
        let paths = if program.path.contains('/') {
            vec![CString::new(program.path.as_str())?]
        } else {
            let search = all.get("PATH").map_or(PATH, String::as_str);
            let candidate = |directory| CString::new(format!("{directory}/{}", program.path));
            search.split(':').map(candidate).collect::<Result<_, _>>()?
        };
        let words = std::iter::once(&program.path).chain(&program.args);
        let args = words.map(|word| CString::new(word.as_str())).collect::<Result<_, _>>()?;
        let env = all.iter().map(|(key, value)| CString::new(format!("{key}={value}")));
        Ok(Self { paths, args, env: env.collect::<Result<_, _>>()? })
    }

    /// Tries each path; the most telling error.
    fn execute(&self) -> io::Error {
        let mut error = nix::Error::ENOENT;
        for path in &self.paths {
            let Err(e) = nix::unistd::execve(path, &self.args, &self.env);
            if e != nix::Error::ENOENT {
                error = e;
            }
        }
        error.into()
    }
}
