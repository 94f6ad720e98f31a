//! `gvpn relay`.

use std::net::SocketAddr;

use crate::{context::Common, daemon::stop_signal, failure::Outcome, logging};

/// Options of `gvpn relay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// UDP address to listen on; may be repeated.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:7464")]
    listen: Vec<SocketAddr>,
    /// Write logs as JSON.
    #[arg(long)]
    log_json: bool,
}

/// Runs until SIGTERM or SIGINT.
pub(crate) async fn run(common: Common, options: Options) -> Outcome {
    logging::start("info", options.log_json);
    let home = common.home()?;
    let _identity = home.init()?;
    let _lock = home.lock()?;
    let stop = stop_signal()?;
    let _ = options.listen;
    stop.await;
    Ok(())
}
