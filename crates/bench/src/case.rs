//! What is measured of each system.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    bed::Bed,
    measure::{self, Figure},
    report::Report,
    system::{BenchError, System, Tunnel},
};

/// One kind of measurement.
#[derive(Debug, Clone, Copy)]
struct Case {
    name: &'static str,
    unit: &'static str,
    segment_in_software: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Tcp { flows: u32, reverse: bool },
    SmallUdp,
    UdpFull,
    PingIdle,
    PingLoaded,
}

const CASES: &[Case] = &[
    case("tcp, 1 flow", "Gbit/s", false, Kind::Tcp { flows: 1, reverse: false }),
    case(
        "tcp, 1 flow, link segments in software",
        "Gbit/s",
        true,
        Kind::Tcp { flows: 1, reverse: false },
    ),
    case("tcp, 1 flow, reverse", "Gbit/s", false, Kind::Tcp { flows: 1, reverse: true }),
    case("tcp, 8 flows", "Gbit/s", false, Kind::Tcp { flows: 8, reverse: false }),
    case("tcp, 64 flows", "Gbit/s", false, Kind::Tcp { flows: 64, reverse: false }),
    case("udp, 64 bytes", "kpacket/s", false, Kind::SmallUdp),
    case("udp, 1200 bytes", "Gbit/s", false, Kind::UdpFull),
    case("ping, idle", "µs", false, Kind::PingIdle),
    case("ping, under tcp load", "µs", false, Kind::PingLoaded),
];

const QUICK: &[&str] =
    &["tcp, 1 flow", "tcp, 1 flow, link segments in software", "udp, 64 bytes", "ping, idle"];

const fn case(
    name: &'static str,
    unit: &'static str,
    segment_in_software: bool,
    kind: Kind,
) -> Case {
    Case { name, unit, segment_in_software, kind }
}

/// Which cases to run, how often and for how long.
pub(crate) struct Plan {
    cases: Vec<Case>,
    runs: usize,
    seconds: u32,
}

impl Plan {
    /// The plan of `make bench`, or the quick one.
    pub(crate) fn new(quick: bool, only: Option<&str>) -> Self {
        let cases = CASES
            .iter()
            .filter(|case| {
                only.map_or(!quick || QUICK.contains(&case.name), |part| case.name.contains(part))
            })
            .copied()
            .collect();
        let (runs, seconds) = if quick { (3, 2) } else { (5, 5) };
        Self { cases, runs, seconds }
    }

    /// Measures every case of one system; a failure is printed, noted and does not end the run.
    pub(crate) fn run(&self, system: &dyn System, report: &mut Report) {
        for in_software in [false, true] {
            let cases: Vec<Case> = self
                .cases
                .iter()
                .filter(|c| c.segment_in_software == in_software)
                .copied()
                .collect();
            if cases.is_empty() {
                continue;
            }
            if let Err(error) = self.run_on_bed(system, in_software, &cases, report) {
                println!("{}: {error}", system.name());
                report.missing(system.name(), &error.to_string());
            }
        }
    }

    fn run_on_bed(
        &self,
        system: &dyn System,
        in_software: bool,
        cases: &[Case],
        report: &mut Report,
    ) -> Result<(), BenchError> {
        let bed = Bed::new(in_software)?;
        let tunnel = system.up(&bed)?;
        wait_until_up(&tunnel)?;
        for case in cases {
            let runs: Result<Vec<Figure>, _> =
                (0..self.runs).map(|_| self.measure(*case, &tunnel)).collect();
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
        match case.kind {
            Kind::Tcp { flows, reverse } => measure::tcp(tunnel, flows, reverse, self.seconds),
            Kind::SmallUdp => measure::small_udp(tunnel, self.seconds),
            Kind::UdpFull => measure::full_udp(tunnel, self.seconds),
            Kind::PingIdle => measure::ping(tunnel, self.seconds),
            Kind::PingLoaded => measure::ping_loaded(tunnel, self.seconds),
        }
    }
}

fn wait_until_up(tunnel: &Tunnel) -> Result<(), BenchError> {
    const LIMIT: Duration = Duration::from_secs(30);
    let begin = Instant::now();
    let address = tunnel.address.to_string();
    while begin.elapsed() < LIMIT {
        if tunnel.client.output(&["ping", "-c1", "-W1", &address])?.status.success() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    Err(BenchError::NotUp(LIMIT.as_secs()))
}
