//! What a daemon tells an ExeUnit.

use std::path::PathBuf;

use gvpn_model::ActivityId;
use gvpn_runtime::{Helper, Limits};
use gvpn_vnic::AgentCommand;
use serde::{Deserialize, Serialize};

/// How to start an ExeUnit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExeUnitConfig {
    /// The program; usually `/proc/self/exe`.
    pub exe: PathBuf,
    /// Leading arguments that lead the program to [`exeunit_main`](crate::exeunit_main); usually
    /// `exeunit`.
    pub args: Vec<String>,
    /// Leading arguments that lead the program to [`gvpn_vnic::agent_main`]; usually `ns-agent`.
    pub agent_args: Vec<String>,
    /// The activity.
    pub activity: ActivityId,
    /// The activity's own directory; made when absent, removed at the end. On the same file system as
    /// `images`.
    pub workdir: PathBuf,
    /// Directory of unpacked images, shared by all activities of the daemon.
    pub images: PathBuf,
    /// Which runtime: `sandbox`, ...
    pub runtime: String,
    /// The payload's image: a path (directory, tar, squashfs), `http(s)://..`, `gftp://..`, or
    /// `hash:sha3:HEX:URL`.
    pub image: Option<String>,
    /// What the payload may use.
    pub limits: Limits,
    /// The TUN device node.
    pub tun_device: PathBuf,
}

impl ExeUnitConfig {
    /// The usual configuration: own binary, `sandbox`, no image, no limits.
    pub fn new(activity: ActivityId, workdir: PathBuf, images: PathBuf) -> Self {
        let agent = AgentCommand::default();
        Self {
            exe: agent.exe,
            args: vec!["exeunit".to_owned()],
            agent_args: agent.args,
            activity,
            workdir,
            images,
            runtime: "sandbox".to_owned(),
            image: None,
            limits: Limits::default(),
            tun_device: agent.tun_device,
        }
    }

    /// How this ExeUnit starts namespace agents.
    pub(crate) fn agent(&self) -> AgentCommand {
        AgentCommand {
            exe: self.exe.clone(),
            args: self.agent_args.clone(),
            tun_device: self.tun_device.clone(),
            ..AgentCommand::default()
        }
    }

    /// How this ExeUnit starts helper processes.
    pub(crate) fn helper(&self) -> Helper {
        Helper { exe: self.exe.clone(), args: self.args.clone() }
    }
}
