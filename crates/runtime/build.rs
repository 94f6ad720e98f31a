//! Makes the programs that this crate carries in it: the guest agent, and process 1 of containers.

use std::{env, path::PathBuf};

#[path = "build/guest.rs"]
mod guest;

fn main() {
    println!("cargo::rerun-if-changed=build");
    guest::embed();
    assemble_keeper();
}

/// It must run in any image, so it needs nothing but the kernel.
fn assemble_keeper() {
    let architecture = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let source = format!("src/container/keeper/{architecture}.S");
    println!("cargo::rerun-if-changed=src/container/keeper");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("keeper");
    let mut compiler = cc::Build::new().get_compiler().to_command();
    compiler.args(["-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-s", "-o"]);
    let status = compiler.arg(&out).arg(&source).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("cannot assemble {source}: the C compiler ended with {status}"),
        Err(error) => panic!("cannot assemble {source}: the C compiler does not start: {error}"),
    }
}
