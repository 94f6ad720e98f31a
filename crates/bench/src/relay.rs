//! The relay: what goes through it as a share of what goes directly, and what it costs beside
//! coturn, in one run.
//!
//! ```text
//! direct    a ─── b          relayed   a ─── r ─── b   (r forwards no packets itself)
//! ```

use std::{fmt::Write, fs, net::Ipv4Addr, path::Path, process::Stdio, thread, time::Duration};

use gvpn_lab::{Host, Lab, Process};

use crate::{
    bed::Bed,
    blast,
    measure::{self, Figure},
    peers::debian,
    product::{OWNER, Product, World},
    report::median,
    system::{BenchError, Layout, Peer, Side, System, Tunnel, io},
};

const A: &str = "10.99.1.2";
const R_A: &str = "10.99.1.1";
const B: &str = "10.99.2.2";
const R_B: &str = "10.99.2.1";

/// What was measured, in the order of the runs.
#[derive(Default)]
struct Figures {
    direct: Vec<f64>,
    relayed: Vec<f64>,
    share: Vec<f64>,
    /// Gbit/s and Gbit per CPU-second of the relay's process.
    relay: Vec<(f64, f64)>,
    coturn: Vec<(f64, f64)>,
    batch: Vec<f64>,
}

/// Measures, prints and writes into docs/relay.md.
pub(crate) fn run(gvpn: &Path, quick: bool, load: &str) -> Result<(), BenchError> {
    let (runs, seconds) = if quick { (3, 2) } else { (5, 5) };
    if let Err(why) = debian("turnserver", "coturn") {
        return Err(BenchError::Figure { program: "coturn".into(), output: why });
    }
    let mut text = format!(
        "Medians of {runs} runs of {seconds} s each, direct, relayed and coturn in turn; load of the machine before: \
         {load}.\n\n| | link segments | direct, Gbit/s | relayed, Gbit/s | share | relay, Gbit/CPU-s | coturn, \
         Gbit/CPU-s | ratio | datagrams a send |\n|---|---|---|---|---|---|---|---|---|\n"
    );
    for (layout, name) in [(Layout::Pair, "no"), (Layout::PlainLink, "in software")] {
        let figures = measure(gvpn, layout, runs, seconds)?;
        let row = figures.row(name);
        print!("{row}");
        text.push_str(&row);
    }
    text.push_str(
        "\nDirect and relayed: one TCP flow between payloads. CPU-seconds are those of the relay's and of the TURN \
         server's process while they forward UDP datagrams with 1200 bytes of data as fast as they come; the relay's \
         carry our headers and seal beside.\n",
    );
    gvpn_lab::figures::write("relay.md", "figures", &text).map_err(io("writing docs/relay.md"))
}

fn measure(gvpn: &Path, layout: Layout, runs: usize, seconds: u32) -> Result<Figures, BenchError> {
    let bed = Bed::new(layout)?;
    let direct = Product::new(gvpn).up(&bed, layout)?;
    let dir = tempfile::tempdir().map_err(io("making a directory"))?;
    let gvpn = fs::canonicalize(gvpn).map_err(io("finding gvpn"))?;
    let relayed = Relayed::up(&gvpn, dir.path(), layout == Layout::PlainLink)?;
    let coturn = Coturn::start(&relayed.r)?;
    for tunnel in [&direct, &relayed.tunnel] {
        crate::case::wait_until_up(tunnel)?;
    }
    let mut figures = Figures::default();
    for _ in 0..runs {
        let straight = measure::tcp(&direct, 1, false, "cubic", seconds)?.value;
        let around = measure::tcp(&relayed.tunnel, 1, false, "cubic", seconds)?.value;
        figures.direct.push(straight);
        figures.relayed.push(around);
        figures.share.push(around / straight);
        let before = relayed.forwarded()?;
        figures.relay.push(charged(relayed.relay.pid(), seconds, || {
            measure::udp_gso(&relayed.tunnel, seconds)
        })?);
        let after = relayed.forwarded()?;
        figures.batch.push((after.0 - before.0) / (after.1 - before.1).max(1.0));
        figures.coturn.push(charged(coturn.pid(), seconds, || flood(&relayed, seconds))?);
    }
    Ok(figures)
}

/// Gbit/s, and Gbit per CPU-second of a process.
fn charged(
    pid: u32,
    seconds: u32,
    work: impl FnOnce() -> Result<Figure, BenchError>,
) -> Result<(f64, f64), BenchError> {
    let before = cpu_seconds(pid)?;
    let rate = work()?.value;
    let used = cpu_seconds(pid)? - before;
    Ok((rate, rate * f64::from(seconds) / used.max(0.01)))
}

/// User and system time of a process, in seconds.
fn cpu_seconds(pid: u32) -> Result<f64, BenchError> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(io("reading /proc"))?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |at: usize| fields.split_whitespace().nth(at).and_then(|f| f.parse::<f64>().ok());
    let ticks = ticks(11).zip(ticks(12)).map_or(0.0, |(user, system)| user + system);
    Ok(ticks / crate::cpu::ticks_per_second())
}

impl Figures {
    fn row(&self, name: &str) -> String {
        let of = |values: &[f64]| median(values.iter().copied());
        let costs = |values: &[(f64, f64)]| median(values.iter().map(|(_, cost)| *cost));
        let (relay, coturn) = (costs(&self.relay), costs(&self.coturn));
        let rate = |values: &[(f64, f64)]| median(values.iter().map(|(rate, _)| *rate));
        let mut row = String::new();
        let _ = writeln!(
            row,
            "| | {name} | {:.2} | {:.2} | {:.0} % | {relay:.1} (at {:.2} Gbit/s) | {coturn:.2} (at {:.2} Gbit/s) | \
             {:.1} | {:.1} |",
            of(&self.direct),
            of(&self.relayed),
            100.0 * of(&self.share),
            rate(&self.relay),
            rate(&self.coturn),
            relay / coturn,
            of(&self.batch),
        );
        row
    }
}

/// Two daemons that reach nobody but the relay between them, a payload on each.
struct Relayed {
    tunnel: Tunnel,
    relay: Process,
    a: Host,
    b: Host,
    r: Host,
    _lab: Lab,
}

impl Relayed {
    fn up(gvpn: &Path, dir: &Path, in_software: bool) -> Result<Self, BenchError> {
        let lab = Lab::new()?;
        let (a, r, b) = (lab.host("a")?, lab.host("r")?, lab.host("b")?);
        link((&a, A), (&r, R_A), "eth0", in_software)?;
        link((&b, B), (&r, R_B), "eth1", in_software)?;
        let world = World { binary: gvpn, dir, force_chacha20: false };
        let relay = world.spawn(&r, "relay", &["relay", "--listen", "0.0.0.0:7464"])?;
        let (by_a, by_b) = (format!("{R_A}:7464"), format!("{R_B}:7464"));
        let mut processes = vec![
            world.daemon_of(&a, OWNER, &format!("{A}:6999"), &by_a, "requestor")?,
            world.daemon_of(&a, "a", &format!("{A}:7000"), &by_a, "provider")?,
            world.daemon_of(&b, "b", &format!("{B}:7000"), &by_b, "provider")?,
        ];
        let network = world.text(&a, &["net", "create", "10.98.1.0/24", "--json"], "/id")?;
        // Payloads are found by their addresses, which those of the direct pair must not have.
        let addresses = [Ipv4Addr::new(10, 98, 1, 2), Ipv4Addr::new(10, 98, 1, 3)];
        let client = world.payload(&a, &a, "a", &network, addresses[0])?;
        let server = world.payload(&a, &b, "b", &network, addresses[1])?;
        let servers = vec![Peer { side: Box::new(server), address: addresses[1].into() }];
        processes.reverse();
        let guards: Vec<Box<dyn std::any::Any>> = vec![Box::new(processes)];
        let tunnel = Tunnel {
            client: Box::new(client),
            servers,
            gate: None,
            keys_age: None,
            _guards: guards,
        };
        Ok(Self { tunnel, relay, a, b, r, _lab: lab })
    }

    /// Datagrams that the relay has forwarded, and system calls that it took.
    fn forwarded(&self) -> Result<(f64, f64), BenchError> {
        let page = self.r.run("curl", ["-s", "http://127.0.0.1:7466/metrics"])?;
        let value = |name: &str| {
            let row = page.lines().find_map(|row| row.strip_prefix(name));
            row.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
        };
        let sends = value("gvpn_relay_forwarding_sends_total ");
        Ok((value("gvpn_relay_forwarded_packets_total "), sends))
    }
}

/// Joins two hosts by a veth with MTU 1500.
fn link(
    (end, ip): (&Host, &str),
    (middle, middle_ip): (&Host, &str),
    name: &str,
    in_software: bool,
) -> Result<(), BenchError> {
    let pid = middle.pid().to_string();
    end.ip([
        "link", "add", "eth0", "mtu", "1500", "type", "veth", "peer", "name", name, "netns", &pid,
    ])?;
    for (host, name, ip) in [(end, "eth0", ip), (middle, name, middle_ip)] {
        host.ip(["addr", "add", &format!("{ip}/24"), "dev", name])?;
        host.ip(["link", "set", name, "mtu", "1500", "up"])?;
        if in_software {
            host.run("ethtool", ["-K", name, "tx-udp-segmentation", "off"])?;
        }
    }
    Ok(())
}

/// A TURN server that serves everybody.
struct Coturn;

impl Coturn {
    fn start(host: &Host) -> Result<Process, BenchError> {
        let mut command = host.command("turnserver");
        command.args(["-n", "--no-auth", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp"]);
        command.args(["-L", R_A, "-E", R_B, "-p", "3478", "-r", "bench", "--no-stdout-log"]);
        command.args(["-l", "/dev/null", "--pidfile", "/dev/null", "-m", "2"]);
        command.inner().stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn()?;
        thread::sleep(Duration::from_secs(2));
        Ok(process)
    }
}

/// Floods the TURN server; what arrives behind it.
fn flood(world: &Relayed, seconds: u32) -> Result<Figure, BenchError> {
    let me = std::env::current_exe().map_err(io("finding this program"))?.display().to_string();
    let to = format!("{B}:{}", blast::PORT);
    let server = format!("{R_A}:3478");
    let (program, host) = (me.clone(), world.b.clone());
    let sink = thread::spawn(move || Side::output(&host, &[&program, "sink"]));
    thread::sleep(Duration::from_millis(200));
    let output = Side::output(&world.a, &[&me, "turn", &server, &to, &seconds.to_string()])?;
    let failed = |output: &std::process::Output| BenchError::Figure {
        program: "turn".into(),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    if !output.status.success() {
        return Err(failed(&output));
    }
    let arrived = sink.join().map_err(|_| failed(&output))??;
    let bytes: f64 = String::from_utf8_lossy(&arrived.stdout).trim().parse().unwrap_or_default();
    Ok(Figure::plain(bytes * 8e-9 / f64::from(seconds)))
}
