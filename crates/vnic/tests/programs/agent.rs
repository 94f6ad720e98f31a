//! The agent alone, for the tests of this crate.

fn main() {
    gvpn_vnic::agent_main()
}
