//! Everything that is counted, in Prometheus' text form.

use std::fmt::{Display, Write};

use gvpn_dataplane::Stats;
use gvpn_net::PeerStatus;

use crate::NodeStatus;

/// The text of `/metrics`.
pub(crate) fn text(status: &NodeStatus, peers: &[PeerStatus], stats: &Stats) -> String {
    let mut page = Page(String::new());
    page.gauges(
        "gvpn_networks",
        "Networks by this node's part in them",
        "part",
        &[("owner", status.networks), ("member", status.memberships)],
    );
    page.gauges(
        "gvpn_activities",
        "Activities that have not ended",
        "side",
        &[("requestor", status.requested), ("provider", status.running)],
    );
    page.peers(peers);
    page.networks(stats);
    page.ports(stats);
    page.drops(stats);
    page.0
}

struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    fn row(&mut self, name: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, rows: &[(&str, usize)]) {
        self.head(name, "gauge", help);
        for (value, count) in rows {
            self.row(name, &[(label, value)], count);
        }
    }

    fn peers(&mut self, peers: &[PeerStatus]) {
        self.head("gvpn_peer_connected", "gauge", "Whether there is a session with the peer");
        for peer in peers {
            self.row("gvpn_peer_connected", &[("peer", &peer.node)], u8::from(peer.connected));
        }
        self.head("gvpn_peer_rtt_seconds", "gauge", "Smoothed round-trip time to the peer");
        for peer in peers {
            if let Some(rtt) = peer.rtt {
                self.row("gvpn_peer_rtt_seconds", &[("peer", &peer.node)], rtt.as_secs_f64());
            }
        }
        self.head("gvpn_peer_bytes_total", "counter", "Bytes of datagrams by peer");
        for peer in peers {
            let name = "gvpn_peer_bytes_total";
            self.row(name, &[("peer", &peer.node), ("direction", &"sent")], peer.sent_bytes);
            self.row(
                name,
                &[("peer", &peer.node), ("direction", &"received")],
                peer.received_bytes,
            );
        }
    }

    fn networks(&mut self, stats: &Stats) {
        let (packets, bytes) = ("gvpn_network_packets_total", "gvpn_network_bytes_total");
        self.head(packets, "counter", "Packets from and to local members");
        for row in &stats.networks {
            self.row(packets, &[("network", &row.network), ("direction", &"in")], row.packets_in);
            self.row(packets, &[("network", &row.network), ("direction", &"out")], row.packets_out);
        }
        self.head(bytes, "counter", "Bytes from and to local members");
        for row in &stats.networks {
            self.row(bytes, &[("network", &row.network), ("direction", &"in")], row.bytes_in);
            self.row(bytes, &[("network", &row.network), ("direction", &"out")], row.bytes_out);
        }
    }

    fn ports(&mut self, stats: &Stats) {
        self.head("gvpn_port_bytes_total", "counter", "Bytes from and to a vNIC");
        for port in &stats.ports {
            let member = port.member.map_or_else(|| "tap".to_owned(), |id| id.to_string());
            for (direction, value) in [("in", port.bytes_in), ("out", port.bytes_out)] {
                let labels: [(&str, &dyn Display); 3] =
                    [("network", &port.network), ("member", &member), ("direction", &direction)];
                self.row("gvpn_port_bytes_total", &labels, value);
            }
        }
        let marked = "gvpn_received_marked_packets_total";
        self.head(
            marked,
            "counter",
            "Packets from peers marked (ECN) because the socket's queue stood",
        );
        self.row(marked, &[], stats.marked);
        let marked = "gvpn_port_marked_packets_total";
        self.head(marked, "counter", "Packets marked (ECN) because the vNIC's queue stood");
        for port in stats.ports.iter().filter(|port| port.marked > 0) {
            let member = port.member.map_or_else(|| "tap".to_owned(), |id| id.to_string());
            self.row(marked, &[("network", &port.network), ("member", &member)], port.marked);
        }
    }

    fn drops(&mut self, stats: &Stats) {
        self.head("gvpn_dropped_packets_total", "counter", "Packets dropped, by reason");
        for (reason, count) in &stats.drops {
            self.row("gvpn_dropped_packets_total", &[("reason", reason)], count);
        }
    }
}
