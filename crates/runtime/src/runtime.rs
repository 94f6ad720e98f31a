//! The trait that a runtime implements.

use std::{collections::BTreeMap, fs::File, os::fd::OwnedFd};

use gvpn_model::NetworkId;
use gvpn_vnic::Nic;
use serde::{Deserialize, Serialize};

use crate::{Names, NetworkConfig, Payload, RuntimeError, Usage};

/// Runs one payload. The ExeUnit calls the methods in the order of an activity's life: `deploy`,
/// `start`, any number of `run`s, `stop`; the network methods come at any time after `deploy`, also
/// while a `run` goes on, which is why all of them take `&self`.
#[allow(async_fn_in_trait)]
pub trait Runtime: 'static {
    /// Brings the payload's file system into being.
    ///
    /// # Errors
    /// Whatever the requestor should read; the activity then stays undeployed.
    async fn deploy(&self, payload: &Payload) -> Result<(), RuntimeError>;

    /// Starts the payload.
    ///
    /// # Errors
    /// Whatever the requestor should read.
    async fn start(&self, payload: &Payload, args: &[String]) -> Result<(), RuntimeError>;

    /// Runs a program in the payload until it ends, its output written to `output` as it comes.
    ///
    /// # Errors
    /// When the program cannot be run; one that runs and fails is an [`Exit`].
    async fn run(
        &self,
        payload: &Payload,
        program: Program,
        output: Output,
    ) -> Result<Exit, RuntimeError>;

    /// Ends the payload and everything in it.
    ///
    /// # Errors
    /// When something may be left.
    async fn stop(&self, payload: &Payload) -> Result<(), RuntimeError>;

    /// Opens a file of the payload, for `transfer`.
    ///
    /// # Errors
    /// When there is no such file, or it may not be written.
    async fn open(
        &self,
        _payload: &Payload,
        _path: &str,
        _access: Access,
    ) -> Result<File, RuntimeError> {
        Err(RuntimeError::Unsupported("transfer files to or from its payload"))
    }

    /// Called when a file that was [opened](Self::open) to be written is complete.
    ///
    /// # Errors
    /// When it cannot be put into its place.
    async fn close(
        &self,
        _payload: &Payload,
        _path: &str,
        _file: File,
    ) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// What the payload has used so far; its duration is filled in by the ExeUnit.
    ///
    /// # Errors
    /// When it cannot be told.
    async fn usage(&self, _payload: &Payload) -> Result<Usage, RuntimeError> {
        Ok(Usage::default())
    }

    /// Returns when the payload has ended without being asked to, with what to tell the requestor.
    async fn ended(&self, _payload: &Payload) -> String {
        std::future::pending().await
    }

    /// Gives the payload a network and returns the data path's end of its vNIC. The default makes an
    /// interface in the payload's namespace.
    ///
    /// # Errors
    /// When the interface cannot be made.
    async fn join(&self, payload: &Payload, network: &NetworkConfig) -> Result<Nic, RuntimeError> {
        payload.join(network).await
    }

    /// The vNIC of a network that was joined is now served by the data path: frames go through it.
    ///
    /// # Errors
    /// When the payload cannot use it; it then leaves the network.
    async fn joined(
        &self,
        _payload: &Payload,
        _network: &NetworkConfig,
    ) -> Result<(), RuntimeError> {
        Ok(())
    }

    /// Changes a network that the payload is in: addresses, routes, MTU.
    ///
    /// # Errors
    /// When the interface cannot be changed; it is then as it was or partly changed.
    async fn update(&self, payload: &Payload, network: &NetworkConfig) -> Result<(), RuntimeError> {
        payload.update(network).await
    }

    /// Takes a network away.
    ///
    /// # Errors
    /// When the interface cannot be removed.
    async fn leave(&self, payload: &Payload, network: NetworkId) -> Result<(), RuntimeError> {
        payload.leave(network).await
    }

    /// Tells the payload its host name and the names of others. Also called before `start`.
    ///
    /// # Errors
    /// When they cannot be told.
    async fn rename(&self, _payload: &Payload, _names: &Names) -> Result<(), RuntimeError> {
        Ok(())
    }
}

/// A program to be run in the payload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its path in the payload's file system, or a name to be found in `PATH`.
    pub path: String,
    /// Its arguments, without its own name.
    pub args: Vec<String>,
    /// Environment beyond the payload's own.
    pub env: BTreeMap<String, String>,
    /// Working directory; none for the payload's own.
    pub directory: Option<String>,
}

/// Where a program's output goes: the writing ends of two pipes.
#[derive(Debug)]
pub struct Output {
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// As a shell tells it: signals are 128 and more.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// What a file of the payload is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// To be read.
    Read,
    /// To be written from its start, made if absent, with the directories above it.
    Write,
}
