//! `gvpn relay`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use gvpn_net::relay_stream::PORT;
use gvpn_relay::{FleetConfig, Relay, RelayConfig, TcpAddress};

use crate::{
    context::Common,
    daemon::stop_signal,
    failure::{Failure, Outcome},
    logging,
};

/// Where TLS streams are accepted unless the options say otherwise.
const DEFAULT_STREAM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT);
/// Where metrics are served unless the options say otherwise.
const DEFAULT_METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7466);
/// How long clients may take to hear the goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Options of `gvpn relay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// UDP address to listen on; may be repeated, once for each address family.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7464")]
    listen: Vec<SocketAddr>,
    /// TCP address for TLS streams of nodes that UDP is blocked for; may be repeated; `none` to do
    /// without [default: 0.0.0.0:443, where that is free].
    #[arg(long, value_name = "ADDR:PORT", value_parser = maybe_address)]
    stream: Vec<MaybeAddress>,
    /// TCP address that serves Prometheus metrics; `none` to do without [default:
    /// 127.0.0.1:7466, where that is free].
    #[arg(long, value_name = "ADDR:PORT", value_parser = maybe_address)]
    metrics: Option<MaybeAddress>,
    /// NATS servers through which a fleet of relays shares one registry, separated by commas.
    #[arg(long, value_name = "URL", env = "GVPN_RELAY_NATS", hide_env_values = true)]
    nats: Option<String>,
    /// The fleet's name: fleets of different ones share nothing.
    #[arg(long, value_name = "NAME", default_value = "gvpn")]
    fleet: String,
    /// Threads that forward; 0 for one a core.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Write logs as JSON.
    #[arg(long)]
    log_json: bool,
}

/// An address, or `none`.
#[derive(Debug, Clone, Copy)]
struct MaybeAddress(Option<SocketAddr>);

fn maybe_address(text: &str) -> Result<MaybeAddress, String> {
    match text {
        "none" => Ok(MaybeAddress(None)),
        _ => text
            .parse()
            .map(|address| MaybeAddress(Some(address)))
            .map_err(|_| "expected ADDR:PORT, such as 0.0.0.0:443, or none".to_owned()),
    }
}

fn stream_addresses(wanted: &[MaybeAddress]) -> Vec<TcpAddress> {
    if wanted.is_empty() {
        return vec![TcpAddress::IfFree(DEFAULT_STREAM)];
    }
    wanted.iter().filter_map(|address| address.0.map(TcpAddress::Required)).collect()
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(common: Common, options: Options) -> Outcome {
    logging::start("info", options.log_json);
    let home = common.home()?;
    let identity = home.init()?;
    let _lock = home.lock()?;
    let stop = stop_signal()?;
    let mut config = RelayConfig::new(identity, options.listen);
    config.database = Some(home.dir().join("registry.db"));
    config.workers = options.workers;
    let name = options.fleet;
    config.fleet = options.nats.map(|servers| FleetConfig { servers, name });
    config.listen_stream = stream_addresses(&options.stream);
    config.metrics = match options.metrics {
        Some(MaybeAddress(address)) => address.map(TcpAddress::Required),
        None => Some(TcpAddress::IfFree(DEFAULT_METRICS)),
    };
    let relay = Relay::start(config).await.map_err(|e| {
        Failure::new(format!("the relay cannot start: {e}"))
            .hint("choose other addresses with --listen, --stream, --metrics ADDR:PORT")
    })?;
    for address in relay.local_addrs() {
        tracing::info!(node = %relay.node_id(), %address, "the relay is up");
    }
    for address in relay.stream_addrs() {
        tracing::info!(%address, "TLS streams are accepted");
    }
    if let Some(address) = relay.metrics_addr() {
        tracing::info!(url = %format!("http://{address}/metrics"), "metrics are served");
    }
    stop.await;
    tracing::info!("stopping");
    let _ = tokio::time::timeout(GOODBYE, relay.shutdown()).await;
    Ok(())
}
