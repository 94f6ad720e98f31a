//! Logs: to standard error, filtered by `GVPN_LOG` (`info`, `gvpn_net=debug`, ..).

use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan};

/// Starts logging; `default` is the filter when `GVPN_LOG` says nothing.
pub(crate) fn start(default: &str, json: bool) {
    let filter = EnvFilter::try_from_env("GVPN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        .with_writer(std::io::stderr);
    // A second start in one process changes nothing.
    let _ = if json { subscriber.json().try_init() } else { subscriber.try_init() };
}
