//! What is measured: something that carries IP packets between two hosts.

use std::{
    net::IpAddr,
    path::Path,
    process::{Child, Output, Stdio},
};

use gvpn_lab::{Host, LabError, Process};

use crate::{bed::Bed, copy::CopyOnly, peers, product::Product};

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The lab failed.
    #[error(transparent)]
    Lab(#[from] LabError),
    /// The system said no.
    #[error("{0}: {1}")]
    Io(&'static str, std::io::Error),
    /// A program printed something unexpected.
    #[error("{program} gave no figure: {output}")]
    Figure {
        /// The program.
        program: String,
        /// What it printed.
        output: String,
    },
    /// A tunnel did not come up.
    #[error("the tunnel did not come up within {0} s")]
    NotUp(u64),
}

/// Adds what was attempted to a system error.
pub(crate) fn io(what: &'static str) -> impl Fn(std::io::Error) -> BenchError {
    move |error| BenchError::Io(what, error)
}

/// Something that carries IP packets between the two hosts of a [`Bed`].
pub(crate) trait System {
    /// Name in tables.
    fn name(&self) -> &str;

    /// Whether it can run here; else why not.
    fn available(&self) -> Result<(), String>;

    /// Brings it up on the bed.
    fn up(&self, bed: &Bed) -> Result<Tunnel, BenchError>;
}

/// A running tunnel; dropping it ends it.
pub(crate) struct Tunnel {
    /// Where traffic starts.
    pub(crate) client: Box<dyn Side>,
    /// Where traffic ends.
    pub(crate) server: Box<dyn Side>,
    /// The server's address in the tunnel.
    pub(crate) address: IpAddr,
    /// What keeps it up.
    pub(crate) _guards: Vec<Box<dyn std::any::Any>>,
}

/// A place where programs see the tunnel.
pub(crate) trait Side {
    /// Runs a program to its end.
    fn output(&self, program: &[&str]) -> Result<Output, BenchError>;

    /// Starts a program that is ended when the returned value is dropped.
    fn start(&self, program: &[&str]) -> Result<Running, BenchError>;
}

/// A started program.
pub(crate) enum Running {
    /// A program on a host of the lab.
    Lab(#[expect(dead_code, reason = "ends the program when dropped")] Process),
    /// A local child.
    Child(Child),
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Self::Child(child) = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Side for Host {
    fn output(&self, program: &[&str]) -> Result<Output, BenchError> {
        Ok(self.command(program[0]).args(&program[1..]).output()?)
    }

    fn start(&self, program: &[&str]) -> Result<Running, BenchError> {
        let mut command = self.command(program[0]);
        command.args(&program[1..]);
        command.inner().stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Running::Lab(command.spawn()?))
    }
}

/// Every system, the limits first, then ours, then the peers.
pub(crate) fn all(gvpn: &Path, built: &Path) -> Vec<Box<dyn System>> {
    let mut systems: Vec<Box<dyn System>> =
        vec![Box::new(CopyOnly), Box::new(Product::new(gvpn)), Box::new(peers::Bare)];
    systems.extend(peers::all(built));
    systems
}
