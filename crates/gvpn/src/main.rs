//! `gvpn`: one binary for the daemon, the relay and the commands a person types.

mod cli;
mod commands;
mod config;
mod context;
mod daemon;
mod demo;
mod failure;
mod home;
mod logging;
mod relay;
mod show;

use std::process::ExitCode;

fn main() -> ExitCode {
    // These two become another kind of process, which must happen before any thread exists.
    match std::env::args_os().nth(1).as_deref().and_then(|arg| arg.to_str()) {
        Some("ns-agent") => gvpn_vnic::agent_main(),
        Some("exeunit") => gvpn_exeunit::exeunit_main(),
        _ => cli::run(),
    }
}
