//! `gvpn daemon`: a node and its API.

use std::net::{SocketAddr, ToSocketAddrs};

use gvpn_net::relay_stream::{PORT, Proxy, ProxyError};
use gvpn_node::{GateKind, Node, NodeConfig, ProviderPolicy};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::{Cipher, Gate, Role},
    context::Common,
    failure::{Failure, Outcome},
    home::Home,
    logging,
};

/// Options of `gvpn daemon`; each goes before its setting in `config.toml`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What the node does: own networks, run activities for others, or both.
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// Where the REST API listens [default: 127.0.0.1:7465].
    #[arg(long, value_name = "ADDR:PORT")]
    api: Option<SocketAddr>,
    /// UDP address of Golem Net; may be repeated [default: 0.0.0.0:0].
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// Relay that introduces this node to others; may be repeated.
    #[arg(long, value_name = "HOST:PORT")]
    relay: Vec<String>,
    /// Threads of the data path; 0 for one a core.
    #[arg(long)]
    workers: Option<usize>,
    /// How payloads' packets are sealed [default: auto].
    #[arg(long, value_enum)]
    cipher: Option<Cipher>,
    /// How fast this host's line sends, in bits a second: payloads share it evenly
    /// [default: not known].
    #[arg(long, value_name = "BITS")]
    uplink: Option<u64>,
    /// The TUN device node [default: GVPN_TUN, or /dev/net/tun].
    #[arg(long, value_name = "PATH")]
    tun: Option<std::path::PathBuf>,
    /// What the gate's sockets are made of [default: auto].
    #[arg(long, value_enum)]
    gate: Option<Gate>,
    /// Provider: a requestor to work for; may be repeated [default: anybody].
    #[arg(long, value_name = "NODE", value_parser = crate::context::node_id)]
    allow: Vec<gvpn_model::NodeId>,
    /// Provider: how many activities to run at once.
    #[arg(long, value_name = "N")]
    max_activities: Option<u32>,
    /// Provider: a directory of images that requestors may name; may be repeated.
    #[arg(long, value_name = "DIR")]
    image_dir: Vec<std::path::PathBuf>,
    /// DNS server for payloads' questions about names of no network, where the network's owner
    /// allows it: an address, `system` (as in /etc/resolv.conf) or `none` [default: system].
    #[arg(long, value_name = "ADDR")]
    resolver: Option<gvpn_node::Resolver>,
    /// The node's name in its offers [default: the host's].
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Write logs as JSON.
    #[arg(long)]
    log_json: bool,
}

const DEFAULT_API: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7465);

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(common: Common, options: Options) -> Outcome {
    logging::start("info", options.log_json);
    allow_open_files();
    let home = common.home()?;
    let identity = home.init()?;
    let _lock = home.lock()?;
    // Before anything is started: a signal that comes early must end it too.
    let stop = stop_signal()?;

    let config = home.config()?;
    let api = options.api.or(config.api.listen).unwrap_or(DEFAULT_API);
    let mut node_config = NodeConfig::new(home.dir().to_owned(), identity);
    node_config.gate =
        options.gate.or(config.net.gate).map_or_else(GateKind::default, GateKind::from);
    node_config.provider = provider_policy(&options, &config);
    if let Some(listen) = Some(options.listen).filter(|l| !l.is_empty()).or(config.net.listen) {
        node_config.listen = listen;
    }
    let relays = Some(options.relay).filter(|r| !r.is_empty()).or(config.net.relays);
    node_config.relays = resolve_all(&relays.unwrap_or_default())?;
    node_config.stream_port =
        config.net.stream_port.map_or(Some(PORT), |port| (port != 0).then_some(port));
    node_config.proxy = http_proxy(config.net.proxy.as_deref())?;
    node_config.market.clone_from(&config.market);
    if let Some(name) = options.node_name {
        node_config.market.node_name = name;
    }
    node_config.resolver = options.resolver.unwrap_or_default();
    node_config.port_mapping = config.net.port_mapping.unwrap_or(true);
    node_config.workers = options.workers.or(config.net.workers).unwrap_or(0);
    node_config.force_chacha20 =
        options.cipher.or(config.net.cipher) == Some(Cipher::Chacha20Poly1305);
    node_config.uplink = options.uplink.or(config.net.uplink).unwrap_or(0);
    if let Some(tun) = options.tun.or(config.net.tun_device) {
        node_config.tun_device = tun;
    }

    let node = Node::start(node_config).await?;
    if let Some(key) = home.app_key() {
        node.keys().import("cli", &key)?;
    }
    tracing::info!(node = %node.id(), "the node is up");
    let result = tokio::select! {
        served = serve(&home, node.clone(), api) => served,
        () = stop => Ok(()),
    };
    home.forget_api_url();
    tracing::info!("stopping");
    node.stop().await;
    result
}

async fn serve(home: &Home, node: Node, api: SocketAddr) -> Outcome {
    let announce = |bound: SocketAddr| {
        tracing::info!(url = %format!("http://{bound}"), "the API is served");
        if let Err(failure) = home.set_api_url(&format!("http://{}", reachable(bound))) {
            tracing::warn!(%failure, "commands will not find this daemon by its data directory");
        }
    };
    gvpn_api::serve(node, api, announce).await.map_err(|e| {
        Failure::new(format!("the API cannot listen on {api}: {e}"))
            .hint("another daemon may run there; choose an address with --api ADDR:PORT")
    })
}

/// An address that means this machine for one that means all of its addresses.
/// As many open files as the host allows: vNICs, connections and gates have some each.
fn allow_open_files() {
    use nix::sys::resource::{Resource::RLIMIT_NOFILE, getrlimit, setrlimit};
    let raised =
        getrlimit(RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

fn reachable(bound: SocketAddr) -> SocketAddr {
    let mut address = bound;
    if bound.ip().is_unspecified() {
        address.set_ip(match bound {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

fn provider_policy(options: &Options, config: &crate::config::Config) -> Option<ProviderPolicy> {
    let role = options.role.or(config.role).unwrap_or_default();
    if role == Role::Requestor {
        return None;
    }
    let mut policy = config.provider.clone();
    if !options.allow.is_empty() {
        policy.requestors = Some(options.allow.clone());
    }
    if let Some(max) = options.max_activities {
        policy.max_activities = max;
    }
    if !options.image_dir.is_empty() {
        policy.image_dirs.clone_from(&options.image_dir);
    }
    Some(policy)
}

/// The HTTP proxy of the settings, or that of the environment.
pub(crate) fn http_proxy(setting: Option<&str>) -> Outcome<Option<Proxy>> {
    match setting {
        Some("") => Ok(None),
        Some(address) => address.parse().map(Some).map_err(|e: ProxyError| {
            Failure::new(e.to_string()).hint("set `proxy` in [net] of config.toml, or remove it")
        }),
        None => Ok(Proxy::from_env().unwrap_or_else(|error| {
            tracing::warn!(%error, "the proxy of the environment is not used");
            None
        })),
    }
}

/// The addresses of relays by name.
pub(crate) fn resolve_all(names: &[String]) -> Outcome<Vec<SocketAddr>> {
    let mut all = Vec::new();
    for name in names {
        let found = name.to_socket_addrs().map_err(|e| {
            Failure::new(format!("the relay `{name}` cannot be found: {e}"))
                .hint("expected HOST:PORT, such as relay.example.org:7464")
        })?;
        all.extend(found);
    }
    Ok(all)
}

/// Completes on the first SIGTERM or SIGINT. After it the signals mean again what they mean to
/// everyone: a second one ends the process at once.
pub(crate) fn stop_signal() -> Outcome<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate()).map_err(Failure::io("SIGTERM"))?;
    let mut int = signal(SignalKind::interrupt()).map_err(Failure::io("SIGINT"))?;
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            std::process::exit(130);
        });
    })
}
