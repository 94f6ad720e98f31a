//! Traffic between payloads, measured by ordinary programs in them.

use std::time::Instant;

use serde_json::Value;

use crate::{
    demo::payload::Payload,
    failure::{Failure, Outcome},
};

/// Bytes of the copied file.
const FILE_MIB: u32 = 256;

/// Round-trip time.
pub(crate) async fn icmp(from: &Payload, to: &Payload) -> Outcome<String> {
    let text = from.sh(&format!("ping -c 5 -i 0.2 -W 5 {}", to.ip)).await?;
    let times = text.lines().find_map(|line| line.strip_prefix("round-trip min/avg/max = "));
    let times = times.ok_or_else(|| Failure::new(format!("ping said: {text}")))?;
    Ok(format!("round trip min/avg/max {times}"))
}

/// Throughput of one TCP connection.
pub(crate) async fn tcp(from: &Payload, to: &Payload) -> Outcome<String> {
    let report = iperf(from, to, "-t 2").await?;
    let sum = &report["end"]["sum_received"]["bits_per_second"];
    let lost = &report["end"]["sum_sent"]["retransmits"];
    Ok(format!("{:.2} Gbit/s (iperf3, 2 s, {lost} retransmits)", number(sum)? / 1e9))
}

/// Datagrams at a steady rate.
pub(crate) async fn udp(from: &Payload, to: &Payload) -> Outcome<String> {
    let report = iperf(from, to, "-u -b 20M -l 1200 -t 2").await?;
    let sum = &report["end"]["sum"];
    let lost = number(&sum["lost_percent"])?;
    if lost > 5.0 {
        return Err(Failure::new(format!("{lost:.1} % of the datagrams were lost")));
    }
    let rate = number(&sum["bits_per_second"])? / 1e6;
    Ok(format!("{rate:.0} Mbit/s of 1200-byte datagrams for 2 s, {lost:.2} % lost"))
}

/// A file over HTTP, compared by its checksum at both ends.
pub(crate) async fn file(to: &Payload, from: &Payload) -> Outcome<String> {
    let make = format!(
        "dd if=/dev/urandom of=/www/big bs=1M count={FILE_MIB} 2>/dev/null && sha256sum < /www/big"
    );
    let sent = from.sh(&make).await?;
    let start = Instant::now();
    to.sh(&format!("wget -q -O /tmp/big http://{}/big", from.ip)).await?;
    let took = start.elapsed().as_secs_f64();
    let received = to.sh("sha256sum < /tmp/big && rm /tmp/big").await?;
    from.sh("rm /www/big").await?;
    if sent.trim() != received.trim() {
        return Err(Failure::new(format!("sent {} but received {}", sent.trim(), received.trim())));
    }
    let rate = f64::from(FILE_MIB) * 8.0 * 1.048_576e-3 / took;
    let sum = sent.get(..16).unwrap_or_default();
    Ok(format!("{took:.1} s ({rate:.2} Gbit/s), SHA-256 {sum}.. at both ends"))
}

async fn iperf(from: &Payload, to: &Payload, options: &str) -> Outcome<Value> {
    let text = from.sh(&format!("iperf3 -c {} -J {options}", to.ip)).await?;
    serde_json::from_str(&text).map_err(|e| Failure::new(format!("iperf3 said {e}: {text}")))
}

fn number(value: &Value) -> Outcome<f64> {
    value.as_f64().ok_or_else(|| Failure::new("iperf3's report lacks a figure"))
}
