//! `gvpn`: one binary for the daemon, the relay and the commands a person types.

fn main() {}
