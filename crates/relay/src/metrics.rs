//! What a relay counts, in Prometheus' text form.

use std::fmt::{Display, Write};

use axum::{Router, http::header::CONTENT_TYPE, response::IntoResponse, routing::get};
use tokio::net::TcpListener;

use crate::RelayStats;

const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves `/metrics` until the relay ends.
pub(crate) async fn serve<F>(listener: TcpListener, stats: F)
where
    F: Fn() -> RelayStats + Clone + Send + Sync + 'static,
{
    let page = move || async move { ([(CONTENT_TYPE, FORMAT)], text(&stats())).into_response() };
    let router = Router::new().route("/metrics", get(page));
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "metrics are no longer served");
    }
}

fn text(stats: &RelayStats) -> String {
    let mut page = Page(String::new());
    page.one("gvpn_relay_clients", "gauge", "Clients registered now", stats.clients);
    page.one("gvpn_relay_sessions", "gauge", "Pairs of clients forwarded for", stats.sessions);
    page.one("gvpn_relay_streams", "gauge", "Clients' TLS streams", stats.streams);
    page.one("gvpn_relay_records", "gauge", "Nodes in the registry", stats.records);
    page.one("gvpn_relay_providers", "gauge", "Providers with offers", stats.providers);
    let packets = stats.forwarded_packets;
    page.one("gvpn_relay_forwarded_packets_total", "counter", "Datagrams forwarded", packets);
    let bytes = stats.forwarded_bytes;
    page.one("gvpn_relay_forwarded_bytes_total", "counter", "Bytes forwarded", bytes);
    let sends = stats.forwarding_sends;
    page.one("gvpn_relay_forwarding_sends_total", "counter", "System calls for that", sends);
    let limited = stats.limited;
    page.one("gvpn_relay_refused_requests_total", "counter", "Requests beyond the limit", limited);
    page.head("gvpn_relay_lookups_total", "counter", "Look-ups of nodes by outcome");
    for (outcome, count) in [("found", stats.found), ("not_found", stats.not_found)] {
        page.labelled("gvpn_relay_lookups_total", "outcome", outcome, count);
    }
    page.head("gvpn_relay_drops_total", "counter", "Datagrams not forwarded by reason");
    for (reason, count) in &stats.drops {
        page.labelled("gvpn_relay_drops_total", "reason", reason, count);
    }
    if let Some(fleet) = &stats.fleet {
        let connected = u8::from(fleet.connected);
        page.one("gvpn_relay_fleet_connected", "gauge", "Whether NATS is reached", connected);
        let waiting = fleet.waiting;
        page.one("gvpn_relay_fleet_waiting", "gauge", "Changes that wait for NATS", waiting);
        page.head("gvpn_relay_fleet_changes_total", "counter", "Changes by what became of them");
        let outcomes =
            [("learnt", fleet.learnt), ("shared", fleet.shared), ("refused", fleet.refused)];
        for (outcome, count) in outcomes {
            page.labelled("gvpn_relay_fleet_changes_total", "outcome", outcome, count);
        }
    }
    page.0
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    fn labelled(&mut self, name: &str, label: &str, of: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{{{label}=\"{of}\"}} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FleetStats;

    #[test]
    fn every_row_has_a_type_before_it() {
        let stats = RelayStats {
            clients: 3,
            drops: vec![("relay_limit", 7)],
            fleet: Some(FleetStats::default()),
            ..RelayStats::default()
        };
        let page = text(&stats);
        for row in page.lines().filter(|row| !row.starts_with('#')) {
            let name = row.split(['{', ' ']).next().unwrap();
            assert!(page.contains(&format!("# TYPE {name} ")), "{row}");
        }
        assert!(page.contains("gvpn_relay_clients 3\n"));
        assert!(page.contains("gvpn_relay_drops_total{reason=\"relay_limit\"} 7\n"));
        assert!(page.contains("gvpn_relay_fleet_connected 0\n"));
    }
}
