//! The entry points that the product's binary has, for the tests of this crate.

use std::time::Duration;

use gvpn_runtime::{AnyRuntime, External, Patience};

/// A runtime that is a program, given little time.
fn impatient(name: &str) -> Option<AnyRuntime> {
    let time = Duration::from_secs(6);
    let patience = Patience { deploy: time, start: time, answer: time, stop: time };
    let path = name.strip_prefix("impatient:")?;
    Some(AnyRuntime::new(External::new(path).with_patience(patience)))
}

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("ns-agent") => gvpn_vnic::agent_main(),
        Some("exeunit") => gvpn_exeunit::exeunit_main_with(impatient),
        other => panic!("no such entry point: {other:?}"),
    }
}
