//! How a node is set up.

use std::{net::SocketAddr, path::PathBuf};

use gvpn_identity::Identity;
use gvpn_model::NodeId;
use gvpn_net::relay_stream::{PORT, Proxy};
use serde::{Deserialize, Serialize};

use crate::{AgreementSpec, MarketConfig};

/// Everything [`Node::start`](crate::Node::start) needs.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Directory of the node's state; made when missing, readable by its owner only.
    pub data_dir: PathBuf,
    /// Who the node is.
    pub identity: Identity,
    /// UDP addresses to listen on.
    pub listen: Vec<SocketAddr>,
    /// Relays to register with.
    pub relays: Vec<SocketAddr>,
    /// The TCP port of the relays' TLS stream, used where UDP reaches none of them; `None` to do
    /// without.
    pub stream_port: Option<u16>,
    /// The HTTP proxy that it goes through.
    pub proxy: Option<Proxy>,
    /// Whether to ask the router for a port that leads here.
    pub port_mapping: bool,
    /// Data path threads; 0 for as many as there are cores.
    pub workers: usize,
    /// Seals by ChaCha20-Poly1305 even where both ends have instructions for AES.
    pub force_chacha20: bool,
    /// How fast this node's line is, in bits a second: what members send to other nodes is shared
    /// evenly among them. 0 if that is not known.
    pub uplink: u64,
    /// Set when the node accepts agreements.
    pub provider: Option<ProviderPolicy>,
    /// The executable with the hidden sub-commands `ns-agent` and `exeunit`.
    pub exe: PathBuf,
    /// The TUN device node.
    pub tun_device: PathBuf,
    /// Whether runtimes are tried before they are offered; else the policy is believed.
    pub try_runtimes: bool,
    /// How the node takes part in the market.
    pub market: MarketConfig,
    /// Where payloads' questions about names of no network go, if the network's owner allows it.
    pub resolver: Resolver,
    /// How many owned networks have their gate opened before anybody asks for it, so that the
    /// owner's address answers and the first connection is quick.
    pub gates_ahead: usize,
    /// What gates are made of.
    pub gate: GateKind,
}

/// What a gate is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GateKind {
    /// A namespace; a TCP stack in this process where the host forbids namespaces.
    #[default]
    Auto,
    /// A namespace or nothing.
    Namespace,
    /// A TCP stack in this process.
    UserSpace,
}

impl NodeConfig {
    /// The usual set-up: any UDP port on every address, no relay, requestor only, this executable.
    pub fn new(data_dir: PathBuf, identity: Identity) -> Self {
        Self {
            data_dir,
            identity,
            listen: vec![SocketAddr::from(([0, 0, 0, 0], 0))],
            relays: Vec::new(),
            stream_port: Some(PORT),
            proxy: None,
            port_mapping: false,
            workers: 0,
            force_chacha20: false,
            uplink: 0,
            provider: None,
            exe: PathBuf::from("/proc/self/exe"),
            tun_device: std::env::var_os("GVPN_TUN")
                .map_or_else(|| PathBuf::from("/dev/net/tun"), PathBuf::from),
            try_runtimes: true,
            market: MarketConfig::default(),
            resolver: Resolver::System,
            gates_ahead: 64,
            gate: GateKind::default(),
        }
    }
}

/// The DNS server that a provider lends to payloads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Resolver {
    /// The first name servers of `/etc/resolv.conf`.
    #[default]
    System,
    /// This one.
    At(SocketAddr),
    /// None: other names are refused whatever the owner says.
    Nobody,
}

impl std::str::FromStr for Resolver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "system" => Ok(Self::System),
            "none" => Ok(Self::Nobody),
            _ => text
                .parse()
                .or_else(|_| text.parse().map(|ip| SocketAddr::new(ip, 53)))
                .map(Self::At)
                .map_err(|_| format!("`{text}` is neither `system`, `none` nor an address")),
        }
    }
}

/// Which agreements a provider accepts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ProviderPolicy {
    /// Requestors it works for; `None` for anybody.
    pub requestors: Option<Vec<NodeId>>,
    /// How many activities it runs at once.
    pub max_activities: u32,
    /// Runtimes it offers, as far as they work on this host.
    pub runtimes: Vec<String>,
    /// CPU cores it gives to all activities together.
    pub cpu_cores: f64,
    /// Memory it gives to all activities together, in GiB.
    pub mem_gib: f64,
    /// Storage it gives to all activities together, in GiB.
    pub storage_gib: f64,
    /// Images that every activity may name without a URL, by directory: `image` of an agreement
    /// may be a path below one of these.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub image_dirs: Vec<PathBuf>,
}

impl ProviderPolicy {
    /// What the provider would be bound by, defaults filled in; else the reason of its refusal.
    pub(crate) fn admit(
        &self,
        requestor: NodeId,
        mut spec: AgreementSpec,
    ) -> Result<AgreementSpec, String> {
        if self.requestors.as_ref().is_some_and(|allowed| !allowed.contains(&requestor)) {
            return Err(format!("this provider does not work for {requestor}"));
        }
        let runtime = match spec.runtime.take() {
            Some(runtime) => runtime,
            None => self.runtimes.first().cloned().unwrap_or_default(),
        };
        if !self.runtimes.contains(&runtime) {
            let offered = self.runtimes.join(", ");
            return Err(format!("runtime `{runtime}` is not offered here, only: {offered}"));
        }
        spec.runtime = Some(runtime);
        within("CPU cores", spec.cpu_cores, self.cpu_cores)?;
        within("GiB of memory", spec.mem_gib, self.mem_gib)?;
        within("GiB of storage", spec.storage_gib, self.storage_gib)?;
        Ok(spec)
    }
}

fn within(what: &str, asked: Option<f64>, most: f64) -> Result<(), String> {
    match asked {
        Some(asked) if !asked.is_finite() || asked <= 0.0 => {
            Err(format!("{asked} {what} make no sense"))
        }
        Some(asked) if asked > most => {
            Err(format!("{asked} {what} are more than this provider has to give ({most})"))
        }
        _ => Ok(()),
    }
}

impl Default for ProviderPolicy {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self {
            requestors: None,
            max_activities: 32,
            runtimes: ["sandbox", "container"].map(str::to_owned).to_vec(),
            cpu_cores: cores as f64,
            mem_gib: 4.0,
            storage_gib: 20.0,
            image_dirs: Vec::new(),
        }
    }
}
