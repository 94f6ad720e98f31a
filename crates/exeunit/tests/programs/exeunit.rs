//! The entry points that the product's binary has, for the tests of this crate.

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("ns-agent") => gvpn_vnic::agent_main(),
        Some("exeunit") => gvpn_exeunit::exeunit_main(),
        other => panic!("no such entry point: {other:?}"),
    }
}
