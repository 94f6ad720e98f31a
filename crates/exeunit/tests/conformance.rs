//! One suite for every runtime and every kind of vNIC: what a payload is promised, it is promised in all
//! of them. `cargo test -p gvpn-exeunit --test conformance -- [RUNTIME..]` runs the suite for those named.
//!
//! Needs namespaces, busybox-static, socat and python3; each runtime needs what it needs, and one that this host
//! lacks is said to be missing.

#![allow(unreachable_pub, reason = "seen by this program only")]

mod checks;
mod rig;

use std::{process::exit, time::Instant};

use checks::{CHECKS, Subject};
use gvpn_runtime::Machine;

/// A runtime under test.
pub struct Candidate {
    /// What it is called in the output.
    pub name: &'static str,
    /// What it is called by a provider.
    pub runtime: Named,
    /// Whether its payload has a root file system of its own, and so names and limits of its own.
    pub own_root: bool,
}

/// How a provider names a runtime.
#[derive(Clone, Copy)]
pub enum Named {
    /// By this.
    Built(&'static str),
    /// By the path of the test's program in this mode.
    Program(&'static str),
    /// A machine.
    Machine(Machine),
}

const CANDIDATES: &[Candidate] = &[
    Candidate { name: "sandbox", runtime: Named::Built("sandbox"), own_root: true },
    Candidate { name: "container", runtime: Named::Built("container"), own_root: true },
    Candidate { name: "program", runtime: Named::Program("live"), own_root: false },
    Candidate { name: "vm-uml", runtime: Named::Machine(Machine::UserMode), own_root: true },
    Candidate {
        name: "vm-qemu-vhost",
        runtime: Named::Machine(Machine::QemuVhost),
        own_root: true,
    },
    Candidate {
        name: "vm-qemu-stream",
        runtime: Named::Machine(Machine::QemuStream),
        own_root: true,
    },
    Candidate {
        name: "vm-qemu-dgram",
        runtime: Named::Machine(Machine::QemuDgram),
        own_root: true,
    },
];

impl Candidate {
    /// What this host lacks for it.
    fn missing(&self) -> Option<String> {
        let in_path = |program: &str| {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
        };
        match self.runtime {
            Named::Machine(machine) => machine.probe().err(),
            Named::Built("container") if !in_path("runc") && !in_path("crun") => {
                Some("there is no runc or crun on this host".to_owned())
            }
            Named::Program(_) if !in_path("python3") => Some("there is no python3".to_owned()),
            _ => None,
        }
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (mut missing, mut lanes) = (0, [vec![], vec![]]);
    for candidate in CANDIDATES {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == candidate.name) {
            continue;
        }
        if let Some(what) = candidate.missing() {
            println!("{:15} MISSING, not tested: {what}", candidate.name);
            missing += 1;
            continue;
        }
        // Machines compute for a long time and others wait for a long time: side by side both are short.
        lanes[usize::from(matches!(candidate.runtime, Named::Machine(_)))].push(candidate);
    }
    let [others, machines] = lanes.map(|lane| async move {
        let mut failed = 0;
        for candidate in lane {
            failed += examine(candidate).await;
        }
        failed
    });
    let failed = runtime.block_on(async { tokio::join!(others, machines) });
    let failed = failed.0 + failed.1;
    println!("conformance: {failed} failed, {missing} runtimes missing");
    // A thread of the data path may still be at work; nothing of it is waited for.
    exit(i32::from(failed > 0));
}

/// Runs every check; how many failed.
async fn examine(candidate: &'static Candidate) -> usize {
    let before = Instant::now();
    let subject = match tokio::spawn(Subject::new(candidate)).await {
        Ok(subject) => std::sync::Arc::new(subject),
        Err(error) => {
            println!("{:15} FAILED to start: {error}", candidate.name);
            return 1;
        }
    };
    println!("{:15} started in {:.1} s", candidate.name, before.elapsed().as_secs_f64());
    for (name, check) in CHECKS {
        let before = Instant::now();
        let outcome = tokio::spawn(check(subject.clone())).await;
        let took = before.elapsed().as_secs_f64();
        match outcome {
            Ok(None) => println!("{:15} {name}: ok ({took:.1} s)", candidate.name),
            Ok(Some(why)) => println!("{:15} {name}: not of this runtime: {why}", candidate.name),
            Err(error) => {
                println!("{:15} {name}: FAILED: {error}", candidate.name);
                // What follows would only wait for what is broken.
                return 1;
            }
        }
    }
    0
}
