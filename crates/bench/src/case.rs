//! What is measured of each system.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    bed::Bed,
    measure::{self, Figure},
    report::Report,
    system::{BenchError, Layout, System, Tunnel},
};

/// One kind of measurement.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    unit: &'static str,
    layout: Layout,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Tcp {
        flows: u32,
        reverse: bool,
    },
    TcpToEach,
    SmallUdp,
    SmallUdpPaced,
    UdpFull,
    UdpGso,
    PingIdle,
    PingLoaded,
    /// One flow from a server with BBR.
    TcpFromBbr,
    /// One flow for longer than keys are used.
    TcpLong,
    Connect,
    Upgrade,
}

const CASES: &[Case] = &[
    case("tcp, 1 flow", "Gbit/s", Layout::Pair, ONE_FLOW),
    case("tcp, 1 flow, reverse", "Gbit/s", Layout::Pair, Kind::Tcp { flows: 1, reverse: true }),
    case("tcp, 8 flows", "Gbit/s", Layout::Pair, Kind::Tcp { flows: 8, reverse: false }),
    case("tcp, 64 flows", "Gbit/s", Layout::Pair, Kind::Tcp { flows: 64, reverse: false }),
    case("udp, 64 bytes", "kpacket/s", Layout::Pair, Kind::SmallUdp),
    case("udp, 64 bytes, 80 % of that", "kpacket/s", Layout::Pair, Kind::SmallUdpPaced),
    case("udp, 1200 bytes", "Gbit/s", Layout::Pair, Kind::UdpFull),
    case("udp, 1200 bytes, segmentation offload", "Gbit/s", Layout::Pair, Kind::UdpGso),
    case("ping, idle", "µs", Layout::Pair, Kind::PingIdle),
    case("ping, under tcp load", "µs", Layout::Pair, Kind::PingLoaded),
    case("tcp, 1 flow, link segments in software", "Gbit/s", Layout::PlainLink, ONE_FLOW),
    case("tcp, 1 flow, both payloads on one host", "Gbit/s", Layout::OneHost, ONE_FLOW),
    case("tcp through the gate, to the payload", "Gbit/s", Layout::Gate, ONE_FLOW),
    case(
        "tcp through the gate, from the payload",
        "Gbit/s",
        Layout::Gate,
        Kind::Tcp { flows: 1, reverse: true },
    ),
    case("first byte through the gate", "µs", Layout::Gate, Kind::Connect),
    case("connecting through the gate", "µs", Layout::Gate, Kind::Upgrade),
    case("connecting through the gate, 20 ms and 1 % loss", "µs", Layout::LongGate, Kind::Upgrade),
    case(
        "tcp through the gate, 20 ms and 1 % loss, to the payload",
        "Gbit/s",
        Layout::LongGate,
        ONE_FLOW,
    ),
    case(
        "tcp through the gate, 20 ms and 1 % loss, from the payload",
        "Gbit/s",
        Layout::LongGate,
        Kind::Tcp { flows: 1, reverse: true },
    ),
    case(
        "tcp through the gate, 20 ms and 1 % loss, from a payload with BBR",
        "Gbit/s",
        Layout::LongGate,
        Kind::TcpFromBbr,
    ),
    case("tcp, 1 flow, ChaCha20-Poly1305", "Gbit/s", Layout::OtherCipher, ONE_FLOW),
    case("tcp, 1 flow, 100 s with a change of keys", "Gbit/s", Layout::LongRun, Kind::TcpLong),
    case("tcp, a flow to each of 10 peers", "Gbit/s", Layout::Star(10), Kind::TcpToEach),
    case("tcp, a flow to each of 100 peers", "Gbit/s", Layout::Star(100), Kind::TcpToEach),
];

/// A long line takes longer to fill.
const LONG_LINE_FACTOR: u32 = 3;
/// Seconds. Keys are replaced after 90 s of use.
const LONG_RUN: u32 = 100;

const ONE_FLOW: Kind = Kind::Tcp { flows: 1, reverse: false };

const QUICK: &[&str] = &[
    "tcp, 1 flow",
    "udp, 64 bytes",
    "ping, idle",
    "ping, under tcp load",
    "tcp, 1 flow, link segments in software",
    "tcp, 1 flow, both payloads on one host",
    "tcp through the gate, to the payload",
    "tcp through the gate, from the payload",
];

/// What a quick run measures of the bare link and of what others make.
const QUICK_OTHERS: &[&str] = &["tcp, 1 flow", "udp, 64 bytes"];

const fn case(name: &'static str, unit: &'static str, layout: Layout, kind: Kind) -> Case {
    Case { name, unit, layout, kind }
}

/// Which cases to run, how often and for how long.
pub(crate) struct Plan {
    cases: Vec<Case>,
    /// What of these is measured of others.
    of_others: Option<&'static [&'static str]>,
    runs: usize,
    seconds: u32,
}

impl Plan {
    /// The plan of `make bench`, or the quick one; of cases whose names contain `only`, in runs of
    /// `seconds`, where these are given.
    pub(crate) fn new(quick: bool, only: Option<&str>, seconds: Option<u32>) -> Self {
        let cases = CASES
            .iter()
            .filter(|case| {
                only.map_or(!quick || QUICK.contains(&case.name), |part| case.name.contains(part))
            })
            .copied()
            .collect();
        let (runs, usual) = if quick { (3, 1) } else { (5, 2) };
        let seconds = seconds.unwrap_or(usual);
        let of_others = (quick && only.is_none()).then_some(QUICK_OTHERS);
        Self { cases, of_others, runs, seconds }
    }

    /// How it is measured, in words. `load`: the machine's load average before it began.
    pub(crate) fn described(&self, load: &str) -> String {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let cores = thread::available_parallelism().map_or(0, usize::from);
        format!(
            "Medians of {} runs of {} s ({LONG_LINE_FACTOR} times that over the long line), one system after the other, TCP with Cubic; {cores} cores for both ends, kernel {}, load average {load} before the run.",
            self.runs,
            self.seconds,
            kernel.trim()
        )
    }

    /// Measures every case of one system; a failure is printed, noted and does not end the run.
    pub(crate) fn run(&self, system: &dyn System, report: &mut Report) {
        let others = self.of_others.filter(|_| system.is_others());
        let wanted = |case: &Case| others.is_none_or(|names| names.contains(&case.name));
        let all: Vec<Case> = self.cases.iter().copied().filter(wanted).collect();
        let mut layouts: Vec<Layout> = all.iter().map(|case| case.layout).collect();
        layouts.dedup();
        for layout in layouts.into_iter().filter(|layout| system.suits(*layout)) {
            let cases: Vec<Case> =
                all.iter().filter(|case| case.layout == layout).copied().collect();
            if let Err(error) = self.run_on_bed(system, layout, &cases, report) {
                println!("{}: {error}", system.name());
                report.missing(system.name(), &format!("{layout:?}: {error}"));
            }
        }
    }

    fn run_on_bed(
        &self,
        system: &dyn System,
        layout: Layout,
        cases: &[Case],
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let bed = Bed::new(layout)?;
        let tunnel = system.up(&bed, layout)?;
        wait_until_up(&tunnel)?;
        for case in cases {
            let times = if matches!(case.kind, Kind::TcpLong) { 1 } else { self.runs };
            let runs: Result<Vec<Figure>, _> =
                (0..times).map(|_| self.measure(*case, &tunnel)).collect();
            match runs {
                Ok(runs) => {
                    report.add(case.name, system.name(), case.unit, &runs);
                }
                Err(error) => {
                    println!("{}: {}: {error}", system.name(), case.name);
                    report.failed(case.name, system.name(), &error.to_string());
                }
            }
        }
        Ok(())
    }

    fn measure(&self, case: Case, tunnel: &Tunnel) -> Result<Figure, BenchError> {
        let long = case.layout == Layout::LongGate;
        let seconds = if long { LONG_LINE_FACTOR * self.seconds } else { self.seconds };
        match case.kind {
            Kind::Tcp { flows, reverse } => measure::tcp(tunnel, flows, reverse, "cubic", seconds),
            Kind::TcpFromBbr => measure::tcp(tunnel, 1, true, "bbr", seconds),
            Kind::TcpLong => measure::tcp_with_new_keys(tunnel, LONG_RUN),
            Kind::TcpToEach => measure::tcp_to_each(tunnel, self.seconds),
            Kind::SmallUdp => measure::small_udp(tunnel, None, self.seconds),
            Kind::SmallUdpPaced => {
                let most = measure::small_udp(tunnel, None, self.seconds)?;
                measure::small_udp(tunnel, Some(0.8 * most.value), self.seconds)
            }
            Kind::UdpFull => measure::full_udp(tunnel, self.seconds),
            Kind::UdpGso => measure::udp_gso(tunnel, self.seconds),
            Kind::PingIdle => measure::ping(tunnel, self.seconds),
            Kind::PingLoaded => measure::ping_loaded(tunnel, self.seconds),
            Kind::Connect => measure::connect(tunnel),
            Kind::Upgrade => measure::upgrade(tunnel),
        }
    }
}

pub(crate) fn wait_until_up(tunnel: &Tunnel) -> Result<(), BenchError> {
    const LIMIT: Duration = Duration::from_secs(30);
    let begin = Instant::now();
    for peer in &tunnel.servers {
        let address = peer.address.to_string();
        while !tunnel.client.output(&["ping", "-c1", "-W1", &address])?.status.success() {
            if begin.elapsed() > LIMIT {
                return Err(BenchError::NotUp(LIMIT.as_secs()));
            }
            thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}
