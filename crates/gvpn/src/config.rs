//! `config.toml` of the data directory. What the command line or the environment says goes first.

use std::{fs, io, net::SocketAddr, path::Path};

use gvpn_node::{GateKind, MarketConfig, ProviderPolicy};
use serde::Deserialize;

use crate::failure::{Failure, Outcome};

/// A new data directory's settings: everything is there, commented out.
pub(crate) const TEMPLATE: &str = r#"# Settings of `gvpn daemon`. What is commented out shows the default.

# requestor, provider or both
#role = "requestor"

[api]
# Where the REST API listens. Anything but loopback should be behind TLS and a firewall.
#listen = "127.0.0.1:7465"

[net]
# UDP addresses of Golem Net.
#listen = ["0.0.0.0:0"]
# Relays (HOST:PORT) that introduce nodes to each other and help where no direct path exists.
#relays = []
# The TCP port of the relays' TLS stream, used where UDP reaches none of them; 0 to do without.
#stream_port = 443
# The HTTP proxy that it goes through (default: HTTPS_PROXY or ALL_PROXY of the environment).
#proxy = "http://user:password@proxy.example.org:3128"
# Whether to ask the router for a port that leads here (PCP, NAT-PMP, UPnP).
#port_mapping = true
# Threads of the data path; 0 for one a core.
#workers = 0
# How payloads' packets are sealed: "auto" is AES-256-GCM where both ends' processors have instructions
# for it and ChaCha20-Poly1305 elsewhere, "chacha20-poly1305" forces the latter.
#cipher = "auto"
# How fast this host's line sends, in bits a second: below that payloads share it evenly, whatever
# number of connections each has. 0 if it is not known: they share the processor only.
#uplink = 0
# The TUN device node.
#tun_device = "/dev/net/tun"
# What the gate's sockets are made of: "namespace" (the kernel's TCP), "user" (a TCP stack in the
# daemon), or "auto": a namespace where the host permits one.
#gate = "auto"

[provider]
# Requestors to work for; without this line, anybody.
#requestors = ["0x0000000000000000000000000000000000000000"]
#max_activities = 32
# Runtimes to offer, as far as they work on this host: sandbox, container, vm (virtual machines, by QEMU
# or user-mode Linux; the sandbox then goes by its own name on the market), or the path of a program.
#runtimes = ["sandbox", "container"]
# What all activities together may use (default: all cores, 4 GiB, 20 GiB).
#cpu_cores = 2.0
#mem_gib = 4.0
#storage_gib = 20.0
# Directories whose images requestors may name by file name.
#image_dirs = []

[market]
# The node's name in its offers (default: the host's).
#node_name = "gvpn"
# The market segment: demands and offers of different ones do not meet.
#subnet = "public"
# Further payment platforms that a provider's offers name.
#platforms = []
# Providers to ask for their offers directly, beside the relays.
#providers = []
"#;

/// What a daemon does for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Owns networks and asks for activities.
    #[default]
    Requestor,
    /// Runs activities for others.
    Provider,
    /// Does both.
    Both,
}

/// How payloads' packets are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
pub(crate) enum Cipher {
    /// AES-256-GCM where both ends have instructions for AES, else ChaCha20-Poly1305.
    #[serde(rename = "auto")]
    Auto,
    /// ChaCha20-Poly1305 always.
    #[serde(rename = "chacha20-poly1305")]
    #[value(name = "chacha20-poly1305")]
    Chacha20Poly1305,
}

/// What the gate's sockets are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Gate {
    /// A namespace where the host permits one, else a TCP stack in the daemon.
    Auto,
    /// A namespace and the kernel's TCP, or nothing.
    Namespace,
    /// A TCP stack in the daemon.
    User,
}

impl From<Gate> for GateKind {
    fn from(gate: Gate) -> Self {
        match gate {
            Gate::Auto => Self::Auto,
            Gate::Namespace => Self::Namespace,
            Gate::User => Self::UserSpace,
        }
    }
}

/// The settings.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) role: Option<Role>,
    pub(crate) api: Api,
    pub(crate) net: Net,
    pub(crate) provider: ProviderPolicy,
    pub(crate) market: MarketConfig,
}

/// `[api]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Api {
    pub(crate) listen: Option<SocketAddr>,
}

/// `[net]`
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Net {
    pub(crate) listen: Option<Vec<SocketAddr>>,
    pub(crate) relays: Option<Vec<String>>,
    pub(crate) stream_port: Option<u16>,
    pub(crate) proxy: Option<String>,
    pub(crate) port_mapping: Option<bool>,
    pub(crate) workers: Option<usize>,
    pub(crate) cipher: Option<Cipher>,
    pub(crate) uplink: Option<u64>,
    pub(crate) tun_device: Option<std::path::PathBuf>,
    pub(crate) gate: Option<Gate>,
}

impl Config {
    /// Reads the settings; a missing file means defaults.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        match fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|e| {
                Failure::new(format!("{} is not understood: {}", path.display(), e.message())).hint(
                    e.span().map_or_else(String::new, |span| {
                        let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
                        format!("look at line {line}")
                    }),
                )
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Failure::io(format!("cannot read {}", path.display()))(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_valid_as_it_is_and_with_its_comments_taken_away() {
        let plain: Config = toml::from_str(TEMPLATE).unwrap();
        assert_eq!(plain.role, None);
        let told: String = TEMPLATE
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if !setting.starts_with(' ') && setting.contains(" = ") => setting,
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let told: Config = toml::from_str(&told).unwrap();
        assert_eq!(told.role, Some(Role::Requestor));
        assert_eq!(told.api.listen.unwrap().port(), 7465);
        assert_eq!(told.provider.max_activities, ProviderPolicy::default().max_activities);
    }

    #[test]
    fn a_mistake_is_shown_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        fs::write(&path, "[api]\n\nlisten = 7\n").unwrap();
        let failure = Config::read(&path).unwrap_err().to_string();
        assert!(failure.contains("line 3"), "{failure}");
        fs::write(&path, "[nett]\n").unwrap();
        assert!(Config::read(&path).unwrap_err().to_string().contains("nett"));
    }
}
