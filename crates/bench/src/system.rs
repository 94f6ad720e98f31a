//! What is measured: something that carries IP packets between two hosts.

use std::{
    net::IpAddr,
    path::Path,
    process::{Child, Output, Stdio},
    time::Duration,
};

use gvpn_lab::{Host, LabError, Process};

use crate::{
    bed::Bed, copy::CopyOnly, peers, product::Product, sealed_copy::SealedCopy,
    udp_copy::CopyOverUdp,
};

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

    /// Whether it is neither a limit nor this product.
    fn is_others(&self) -> bool {
        self.version().is_some()
    }

    /// Its version and where it is from, of systems that others make.
    fn version(&self) -> Option<String> {
        None
    }

    /// Whether it can run here, after installing it where that is possible; else why not.
    fn available(&self) -> Result<(), String>;

    /// Whether the layout means anything to it.
    fn suits(&self, layout: Layout) -> bool {
        matches!(layout, Layout::Pair | Layout::PlainLink)
    }

    /// Brings it up on the bed, in a layout that suits it.
    fn up(&self, bed: &Bed, layout: Layout) -> Result<Tunnel, BenchError>;
}

/// Who talks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One end on each host.
    Pair,
    /// The same over a link that segments UDP in software, like a plain network card.
    PlainLink,
    /// Both ends are payloads of one daemon.
    OneHost,
    /// From a program on the requestor's host through the gate to a payload.
    Gate,
    /// The same over a long line: 20 ms, 1 % of frames lost.
    LongGate,
    /// One end on each host, whose daemons are told to seal by ChaCha20-Poly1305.
    OtherCipher,
    /// One end on each host, for as long as it takes to change keys.
    LongRun,
    /// One end to so many others, each with a daemon of its own; at most 100.
    Star(u16),
}

impl Layout {
    /// How many servers there are.
    pub(crate) fn servers(self) -> u16 {
        match self {
            Self::Star(servers) => servers,
            _ => 1,
        }
    }
}

/// A running tunnel; dropping it ends it.
pub(crate) struct Tunnel {
    /// Where traffic starts.
    pub(crate) client: Box<dyn Side>,
    /// Where traffic ends; one, but for [`Layout::Star`].
    pub(crate) servers: Vec<Peer>,
    /// Where the gate's WebSockets are, if traffic goes through one.
    pub(crate) gate: Option<GateAddress>,
    /// Tells how old the keys between the client and the first server are, if anybody knows.
    pub(crate) keys_age: Option<KeysAge>,
    /// What keeps it up.
    pub(crate) _guards: Vec<Box<dyn std::any::Any>>,
}

impl Tunnel {
    /// The address of the first server.
    pub(crate) fn address(&self) -> String {
        self.servers[0].address.to_string()
    }
}

/// Asks for the age of keys.
pub(crate) type KeysAge = Box<dyn Fn() -> Result<Duration, BenchError>>;

/// Where a WebSocket leads to the first server.
pub(crate) struct GateAddress {
    /// `host:port` of the daemon's API.
    pub(crate) api: String,
    /// The app key.
    pub(crate) key: String,
    /// The path, up to the port.
    pub(crate) path: String,
}

/// Where traffic ends.
pub(crate) struct Peer {
    /// The place.
    pub(crate) side: Box<dyn Side>,
    /// Its address as the client sees it.
    pub(crate) address: IpAddr,
}

/// A place where programs see the tunnel.
pub(crate) trait Side: Sync {
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
    let mut systems: Vec<Box<dyn System>> = vec![
        Box::new(CopyOnly),
        Box::new(CopyOverUdp),
        Box::new(SealedCopy),
        Box::new(Product::new(gvpn)),
        Box::new(peers::Bare),
    ];
    systems.extend(peers::all(built));
    systems
}
