//! `gvpn relay`.

use std::{net::SocketAddr, time::Duration};

use gvpn_relay::{Relay, RelayConfig};

use crate::{
    context::Common,
    daemon::stop_signal,
    failure::{Failure, Outcome},
    logging,
};

/// How long clients may take to hear the goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Options of `gvpn relay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// UDP address to listen on; may be repeated, once for each address family.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7464")]
    listen: Vec<SocketAddr>,
    /// Threads that forward; 0 for one a core.
    #[arg(long, default_value_t = 0)]
    workers: usize,
    /// Write logs as JSON.
    #[arg(long)]
    log_json: bool,
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
    let relay = Relay::start(config).await.map_err(|e| {
        Failure::new(format!("the relay cannot start: {e}"))
            .hint("choose another address with --listen ADDR:PORT")
    })?;
    for address in relay.local_addrs() {
        tracing::info!(node = %relay.node_id(), %address, "the relay is up");
    }
    stop.await;
    tracing::info!("stopping");
    let _ = tokio::time::timeout(GOODBYE, relay.shutdown()).await;
    Ok(())
}
