//! Messages.

use std::collections::BTreeMap;

use gvpn_link::Interface;
use serde::{Deserialize, Serialize};

/// From the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its number; what belongs to it bears it too.
    pub id: u64,
    /// What is wanted.
    pub order: Order,
}

/// What a host wants of its guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Make an interface exactly so.
    Configure(Interface),
    /// Name the interface with this hardware address so; it may be on its way.
    Adopt {
        /// Its name from now on.
        name: String,
        /// Its hardware address, as the kernel writes it.
        mac: String,
    },
    /// Take an interface's addresses and routes away.
    Clear {
        /// The interface.
        name: String,
    },
    /// Tell the payload its names.
    Rename {
        /// Host name.
        hostname: String,
        /// The text of `/etc/hosts`.
        hosts: String,
        /// The text of `/etc/resolv.conf`.
        resolv_conf: String,
    },
    /// Run a program; its output comes as [`FromGuest::Output`], its end as [`Done::Exited`].
    Run(Program),
    /// So many more bytes of a stream of the request of this number may come. Has no answer.
    Credit {
        /// Which stream.
        stream: Stream,
        /// How many.
        bytes: u32,
    },
    /// Kill the program of the request of this number. Has no answer of its own.
    Kill,
    /// Read a file; it comes as [`FromGuest::Output`].
    Read {
        /// Its path.
        path: String,
    },
    /// Write a file; its bytes follow as [`Order::Chunk`].
    Write {
        /// Its path.
        path: String,
    },
    /// The next bytes of the file of the request of this number, beside this message; none at its end.
    Chunk,
    /// Answer, to show that orders are still taken.
    Answer,
    /// End the machine.
    Stop,
}

/// A program to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its path, or a name to be found in `PATH`.
    pub path: String,
    /// Its arguments, without its own name.
    pub args: Vec<String>,
    /// Environment beyond the payload's own.
    pub env: BTreeMap<String, String>,
    /// Working directory; none for the payload's own.
    pub directory: Option<String>,
}

/// One of a program's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output, or a file's contents.
    Stdout,
    /// Standard error.
    Stderr,
}

/// From the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromGuest {
    /// The image is mounted and orders are taken; first.
    Hello {
        /// [`VERSION`](crate::VERSION).
        version: u32,
        /// Names of the network interfaces that there are.
        interfaces: Vec<String>,
    },
    /// The machine cannot be made ready.
    Failed {
        /// Why.
        reason: String,
    },
    /// So many bytes of the line have been taken off it.
    Taken {
        /// How many.
        bytes: u32,
    },
    /// Bytes of a stream, beside this message.
    Output {
        /// The request.
        id: u64,
        /// Which stream.
        stream: Stream,
    },
    /// The answer to a request.
    Answer {
        /// The request.
        id: u64,
        /// How it went.
        outcome: Result<Done, String>,
    },
}

/// How a request went well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// There is nothing to say about it.
    Nothing,
    /// The program has ended.
    Exited(Exit),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}
