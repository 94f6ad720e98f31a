//! Measurements with the programs that everybody uses: iperf3 and ping.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    blast, cpu,
    system::{BenchError, Peer, Running, Side, Tunnel, io},
};

/// One measured value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    /// In the case's unit.
    pub(crate) value: f64,
    /// Gbit carried per CPU second of the whole machine, where that says something.
    pub(crate) gbit_per_cpu_s: Option<f64>,
    /// TCP retransmits, where there are any to count.
    pub(crate) retransmits: Option<u64>,
    /// Lost packets in per cent.
    pub(crate) lost_percent: Option<f64>,
}

impl Figure {
    pub(crate) fn plain(value: f64) -> Self {
        Self { value, gbit_per_cpu_s: None, retransmits: None, lost_percent: None }
    }
}

/// TCP throughput in Gbit/s.
pub(crate) fn tcp(
    tunnel: &Tunnel,
    flows: u32,
    reverse: bool,
    congestion: &str,
    seconds: u32,
) -> Result<Figure, BenchError> {
    let (flows, mut extra) = (flows.to_string(), vec!["-C", congestion, "-P"]);
    extra.push(&flows);
    if reverse {
        extra.push("-R");
    }
    let (json, cpu_seconds) = iperf3(tunnel, seconds, &extra)?;
    let gbit = number(&json, "/end/sum_received/bytes")? * 8e-9;
    Ok(Figure {
        value: number(&json, "/end/sum_received/bits_per_second")? * 1e-9,
        gbit_per_cpu_s: Some(gbit / cpu_seconds),
        retransmits: json.pointer("/end/sum_sent/retransmits").and_then(Value::as_u64),
        lost_percent: None,
    })
}

/// TCP throughput of one flow with Cubic in Gbit/s, during which keys are changed.
pub(crate) fn tcp_with_new_keys(tunnel: &Tunnel, seconds: u32) -> Result<Figure, BenchError> {
    let began = Instant::now();
    let figure = tcp(tunnel, 1, false, "cubic", seconds)?;
    let ran = began.elapsed();
    let age = tunnel.keys_age.as_ref().map(|ask| ask()).transpose()?;
    if age.is_none_or(|age| age > ran) {
        let output = format!("keys of age {age:?} after {ran:?}: none were changed");
        return Err(BenchError::Figure { program: "gvpn status".into(), output });
    }
    Ok(figure)
}

/// TCP throughput of one flow to each server at once, with Cubic, in Gbit/s. It takes longer where
/// there are many, whose programs do not start all at once.
pub(crate) fn tcp_to_each(tunnel: &Tunnel, seconds: u32) -> Result<Figure, BenchError> {
    let seconds = seconds * (tunnel.servers.len() as u32 / 10).max(1);
    let _servers =
        tunnel.servers.iter().map(|peer| server(&*peer.side)).collect::<Result<Vec<_>, _>>()?;
    let before = cpu::busy_seconds();
    let flows: Vec<Result<Value, BenchError>> = thread::scope(|scope| {
        let client = &tunnel.client;
        let start = |peer: &Peer| {
            let address = peer.address.to_string();
            scope.spawn(move || {
                let time = seconds.to_string();
                client_json(&**client, &["-c", &address, "-t", &time, "-C", "cubic"])
            })
        };
        let running: Vec<_> = tunnel.servers.iter().map(start).collect();
        let panicked = || BenchError::Figure { program: "iperf3".into(), output: "panic".into() };
        running.into_iter().map(|run| run.join().unwrap_or_else(|_| Err(panicked()))).collect()
    });
    let cpu_seconds = cpu::busy_seconds() - before;
    let (mut rate, mut gbit, mut retransmits) = (0.0, 0.0, 0);
    for json in flows {
        let json = json?;
        rate += number(&json, "/end/sum_received/bits_per_second")? * 1e-9;
        gbit += number(&json, "/end/sum_received/bytes")? * 8e-9;
        retransmits +=
            json.pointer("/end/sum_sent/retransmits").and_then(Value::as_u64).unwrap_or(0);
    }
    Ok(Figure {
        value: rate,
        gbit_per_cpu_s: Some(gbit / cpu_seconds),
        retransmits: Some(retransmits),
        lost_percent: None,
    })
}

/// Packets of 64 bytes that arrive, in thousands a second. The sender offers `rate` (thousands a
/// second), or more than anyone carries.
pub(crate) fn small_udp(
    tunnel: &Tunnel,
    rate: Option<f64>,
    seconds: u32,
) -> Result<Figure, BenchError> {
    let rate = rate.map_or("0".into(), |kilo| format!("{:.0}", kilo * 1e3 * 64.0 * 8.0));
    // Else packets that came are lost at the program that counts them, while it waits for a processor.
    let buffer = permitted_buffer().to_string();
    let args = ["-u", "-b", &rate, "-l", "64", "-w", &buffer];
    let (json, _) = iperf3(tunnel, seconds, &args)?;
    let sent = number(&json, "/end/sum/packets")?;
    let lost = number(&json, "/end/sum/lost_packets")?;
    Ok(Figure {
        value: (sent - lost) / f64::from(seconds) / 1e3,
        gbit_per_cpu_s: None,
        retransmits: None,
        lost_percent: Some(100.0 * lost / sent.max(1.0)),
    })
}

/// The largest buffer, up to 4 MiB, that sockets may have in both directions.
fn permitted_buffer() -> u64 {
    let limit = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    [limit("rmem_max"), limit("wmem_max")].into_iter().flatten().fold(4 << 20, u64::min)
}

/// UDP datagrams of 1200 bytes, one a system call, in Gbit/s received.
pub(crate) fn full_udp(tunnel: &Tunnel, seconds: u32) -> Result<Figure, BenchError> {
    let (json, cpu_seconds) = iperf3(tunnel, seconds, &["-u", "-b", "0", "-l", "1200"])?;
    let share = 1.0 - number(&json, "/end/sum/lost_percent")? / 100.0;
    let gbit = number(&json, "/end/sum/bytes")? * 8e-9 * share;
    Ok(Figure {
        value: gbit / f64::from(seconds),
        gbit_per_cpu_s: Some(gbit / cpu_seconds),
        retransmits: None,
        lost_percent: Some(100.0 - 100.0 * share),
    })
}

/// UDP datagrams of 1200 bytes, as many a system call as the kernel takes, in Gbit/s received.
pub(crate) fn udp_gso(tunnel: &Tunnel, seconds: u32) -> Result<Figure, BenchError> {
    let me = std::env::current_exe().map_err(io("finding this program"))?.display().to_string();
    let (peer, time) = (&tunnel.servers[0], seconds.to_string());
    let to = format!("{}:{}", peer.address, blast::PORT);
    let before = cpu::busy_seconds();
    let received = thread::scope(|scope| {
        let sink = scope.spawn(|| peer.side.output(&[&me, "sink"]));
        thread::sleep(Duration::from_millis(200));
        let sent = tunnel.client.output(&[&me, "blast", &to, &time])?;
        if !sent.status.success() {
            return Err(BenchError::Figure { program: "blast".into(), output: shown(&sent) });
        }
        let panicked = || BenchError::Figure { program: "sink".into(), output: "panic".into() };
        let received = sink.join().unwrap_or_else(|_| Err(panicked()))?;
        let count = |output: &std::process::Output| -> Option<f64> {
            String::from_utf8_lossy(&output.stdout).trim().parse().ok()
        };
        count(&sent)
            .zip(count(&received))
            .ok_or_else(|| BenchError::Figure { program: "sink".into(), output: shown(&received) })
    });
    let cpu_seconds = cpu::busy_seconds() - before;
    let (sent, arrived) = received?;
    Ok(Figure {
        value: arrived * 8e-9 / f64::from(seconds),
        gbit_per_cpu_s: Some(arrived * 8e-9 / cpu_seconds),
        retransmits: None,
        lost_percent: Some(100.0 * (1.0 - arrived / sent.max(1.0))),
    })
}

/// How often connecting is timed.
const TIMES: usize = 51;

/// Median time of connecting and getting the first byte, in microseconds.
pub(crate) fn connect(tunnel: &Tunnel) -> Result<Figure, BenchError> {
    let me = std::env::current_exe().map_err(io("finding this program"))?.display().to_string();
    let peer = &tunnel.servers[0];
    let _greeter = peer.side.start(&[&me, "greet"])?;
    thread::sleep(Duration::from_millis(300));
    let to = format!("{}:{}", peer.address, blast::GREETING_PORT);
    let output = tunnel.client.output(&[&me, "knock", &to, &TIMES.to_string()])?;
    plain("knock", &output)
}

/// Median time until the gate answers that a connection stands, in microseconds.
pub(crate) fn upgrade(tunnel: &Tunnel) -> Result<Figure, BenchError> {
    let me = std::env::current_exe().map_err(io("finding this program"))?.display().to_string();
    let missing = || BenchError::Figure { program: "gate".into(), output: "there is none".into() };
    let gate = tunnel.gate.as_ref().ok_or_else(missing)?;
    let _greeter = tunnel.servers[0].side.start(&[&me, "greet"])?;
    thread::sleep(Duration::from_millis(300));
    let path = format!("{}/{}", gate.path, blast::GREETING_PORT);
    let times = TIMES.to_string();
    plain("upgrade", &tunnel.client.output(&[&me, "upgrade", &gate.api, &path, &gate.key, &times])?)
}

/// The one number that a program printed.
fn plain(program: &str, output: &std::process::Output) -> Result<Figure, BenchError> {
    let text = shown(output);
    let number = text.trim().parse().ok();
    number.map(Figure::plain).ok_or(BenchError::Figure { program: program.into(), output: text })
}

/// Median round trip in microseconds.
pub(crate) fn ping(tunnel: &Tunnel, seconds: u32) -> Result<Figure, BenchError> {
    let (count, address) = ((seconds * 50).to_string(), tunnel.address());
    let output = tunnel.client.output(&["ping", "-i", "0.02", "-c", &count, &address])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut times: Vec<f64> = text
        .lines()
        .filter_map(|line| line.split_once("time=")?.1.split_whitespace().next()?.parse().ok())
        .collect();
    times.sort_by(f64::total_cmp);
    match times.get(times.len() / 2) {
        Some(median) => Ok(Figure::plain(median * 1e3)),
        None => Err(BenchError::Figure { program: "ping".into(), output: text }),
    }
}

/// Median round trip while a TCP flow fills the tunnel.
pub(crate) fn ping_loaded(tunnel: &Tunnel, seconds: u32) -> Result<Figure, BenchError> {
    let _server = server(&*tunnel.servers[0].side)?;
    let (time, address) = ((seconds + 2).to_string(), tunnel.address());
    let _load = tunnel.client.start(&["iperf3", "-c", &address, "-t", &time, "-C", "cubic"])?;
    thread::sleep(Duration::from_secs(1));
    ping(tunnel, seconds)
}

fn iperf3(tunnel: &Tunnel, seconds: u32, extra: &[&str]) -> Result<(Value, f64), BenchError> {
    let _server = server(&*tunnel.servers[0].side)?;
    let (time, address) = (seconds.to_string(), tunnel.address());
    let mut args = vec!["-c", &address, "-t", &time];
    args.extend(extra);
    let before = cpu::busy_seconds();
    let json = client_json(&*tunnel.client, &args)?;
    Ok((json, cpu::busy_seconds() - before))
}

fn client_json(client: &dyn Side, args: &[&str]) -> Result<Value, BenchError> {
    let command = [&["iperf3", "-J"], args].concat();
    let output = client.output(&command)?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| BenchError::Figure { program: command.join(" "), output: shown(&output) })
}

/// Starts `iperf3 -s` and waits until it listens.
fn server(side: &dyn Side) -> Result<Running, BenchError> {
    let running = side.start(&["iperf3", "-s"])?;
    for _ in 0..200 {
        // 1451 is port 5201; state 0A is LISTEN.
        let listening = |table: &str| {
            side.output(&["cat", table]).is_ok_and(|output| {
                String::from_utf8_lossy(&output.stdout)
                    .lines()
                    .any(|line| line.contains(":1451 ") && line.contains(" 0A "))
            })
        };
        if listening("/proc/net/tcp6") || listening("/proc/net/tcp") {
            return Ok(running);
        }
        thread::sleep(Duration::from_millis(25));
    }
    Err(BenchError::Figure { program: "iperf3 -s".into(), output: "it does not listen".into() })
}

fn number(json: &Value, pointer: &str) -> Result<f64, BenchError> {
    json.pointer(pointer).and_then(Value::as_f64).ok_or_else(|| BenchError::Figure {
        program: "iperf3".into(),
        output: json.get("error").map_or_else(|| json.to_string(), Value::to_string),
    })
}

fn shown(output: &std::process::Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
