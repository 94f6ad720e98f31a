//! What a daemon tells an ExeUnit.

use std::{net::IpAddr, path::PathBuf};

use gvpn_model::{ActivityId, MemberId, NetworkId};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// How to start an ExeUnit.
#[derive(Debug, Clone)]
pub struct ExeUnitConfig {
    /// The program; usually `/proc/self/exe`.
    pub exe: PathBuf,
    /// Leading arguments that lead the program to [`exeunit_main`](crate::exeunit_main); usually `exeunit`.
    pub args: Vec<String>,
    /// Leading arguments that lead the program to [`gvpn_vnic::agent_main`]; usually `ns-agent`.
    pub agent_args: Vec<String>,
    /// The activity.
    pub activity: ActivityId,
    /// The activity's own directory; made when absent, removed at the end.
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
        let agent = gvpn_vnic::AgentCommand::default();
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
}

/// What a payload may use. `None`: as much as the host gives.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processor cores.
    pub cpu_cores: Option<f64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Open files of a process.
    pub open_files: Option<u64>,
    /// Bytes of files written.
    pub storage: Option<u64>,
}

/// One network as the payload is to see it, derived from the owner's roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// The network.
    pub network: NetworkId,
    /// The payload's member.
    pub member: MemberId,
    /// The payload's addresses, each with the length of its network's prefix.
    pub addresses: Vec<IpNet>,
    /// The network's gateway addresses.
    pub gateways: Vec<IpAddr>,
    /// Further prefixes reached through this network.
    pub routes: Vec<IpNet>,
    /// Largest packet.
    pub mtu: u16,
    /// Lines of `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// Name servers for `/etc/resolv.conf`.
    pub dns: Vec<IpAddr>,
    /// Search domains for `/etc/resolv.conf`.
    pub search: Vec<String>,
}
