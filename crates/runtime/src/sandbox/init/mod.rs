//! The sandbox's init process: its programs are its children, in its own root.

mod confine;
mod files;
mod mounts;
mod process;

use std::{fs::File, io, os::fd::OwnedFd, path::Path};

use nix::{sched::CloneFlags, unistd::Pid};

use crate::{
    Access, Names, Program,
    confinement::fence::fence,
    init::{NameFiles, Setup, inside::Inside},
};
use process::Launcher;

/// The sandbox from within.
pub(crate) struct InSandbox {
    names: NameFiles,
    launcher: Launcher,
}

impl Inside for InSandbox {
    type More = ();
    const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID
        .union(CloneFlags::CLONE_NEWUTS)
        .union(CloneFlags::CLONE_NEWIPC)
        .union(CloneFlags::CLONE_NEWCGROUP);

    fn set_up(setup: Setup<()>) -> io::Result<Self> {
        // What only init may see must stay hidden from payload processes of the same user.
        nix::sys::prctl::set_dumpable(false)?;
        let names = mounts::set_up(&setup)?;
        // One fence around everything that will run here, this process included: programs of one payload
        // may signal each other.
        fence(Path::new("/"), Path::new("/dev"), &[])
            .map_err(|e| io::Error::other(format!("the payload cannot be fenced in: {e}")))?;
        Ok(Self { names, launcher: Launcher::new(&setup) })
    }

    fn launch(&mut self, program: &Program, output: Vec<OwnedFd>) -> io::Result<Pid> {
        self.launcher.launch(program, output)
    }

    fn open(&self, path: &str, access: Access) -> io::Result<File> {
        files::open(path, access)
    }

    fn rename(&mut self, names: &Names) -> io::Result<()> {
        self.names.write(names)
    }
}
