//! `gvpn-bench`: measures this product, its peers and the physical limit side by side, on one
//! machine, in one run.
//!
//! Two hosts (network namespaces) are joined by a veth with MTU 1500; each system in turn carries
//! the same traffic between them. Needs root for the namespaces, `iperf3`, `ethtool` and `ping`.

mod bed;
mod blast;
mod case;
mod copy;
mod cpu;
mod easytier;
mod measure;
mod peers;
mod product;
mod relay;
mod report;
mod sealed_copy;
mod system;
mod turn;
mod udp_copy;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

/// Measures the tunnel beside its peers.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    program: Option<blast::Program>,
    /// Fewer runs and shorter ones: under three minutes.
    #[arg(long)]
    quick: bool,
    /// The relay instead: beside direct paths and beside coturn.
    #[arg(long)]
    relay: bool,
    /// Where results.json and table.md go.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The product's binary.
    #[arg(long, default_value = "target/release/gvpn")]
    gvpn: PathBuf,
    /// Where peers built from crates.io are kept.
    #[arg(long, default_value = "target/bench/peers")]
    peers: PathBuf,
    /// Seconds of a run, instead of the usual.
    #[arg(long)]
    seconds: Option<u32>,
    /// Only systems whose name contains this.
    #[arg(long)]
    system: Option<String>,
    /// Only cases whose name contains this.
    #[arg(long)]
    case: Option<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gvpn-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), system::BenchError> {
    if let Some(program) = &args.program {
        return program.run().map_err(system::io("one end of a tunnel"));
    }
    let load = load();
    if args.relay {
        return relay::run(&args.gvpn, args.quick, &load);
    }
    let plan = case::Plan::new(args.quick, args.case.as_deref(), args.seconds);
    let wanted = |name: &str| args.system.as_deref().is_none_or(|part| name.contains(part));
    let mut report = report::Report::default();
    for system in system::all(&args.gvpn, &args.peers) {
        if !wanted(system.name()) {
            continue;
        }
        if let Err(why) = system.available() {
            println!("{}: missing: {why}", system.name());
            report.missing(system.name(), &why);
            continue;
        }
        if let Some(version) = system.version() {
            report.version(system.name(), &version);
        }
        plan.run(system.as_ref(), &mut report);
    }
    report.write(&args.out)?;
    if args.system.is_some() || args.case.is_some() {
        return Ok(());
    }
    let text = format!("{}\n\n{}", plan.described(&load), report.table());
    gvpn_lab::figures::write("performance.md", "figures", &text)
        .map_err(system::io("writing docs/performance.md"))
}

/// What else runs on this machine.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}
