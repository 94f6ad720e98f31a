//! What this host can offer, as far as it can be found out.

use gvpn_exeunit::Probed;
use gvpn_market::{Properties, provider::Capabilities};
use gvpn_payment::KNOWN_PLATFORMS;
use serde_json::json;

use super::binding::RUNTIME;
use crate::{ProviderPolicy, core::Core};

/// What a payload's virtual machine is, and what runs its instructions.
const MACHINE: &str = "gvpn.vm.machine";
const ACCELERATION: &str = "gvpn.vm.acceleration";

/// The name under which Golem's clients ask for a runtime. Every virtual machine is a `vm`. Their images
/// run in the sandbox too, so it goes by that name where this provider has no machines.
fn market_name<'a>(runtime: &'a str, offered: &[String]) -> &'a str {
    let is_machine = |name: &str| name == "vm" || name.starts_with("vm-");
    match runtime {
        "sandbox" if !offered.iter().any(|name| is_machine(name)) => "vm",
        other if is_machine(other) => "vm",
        other => other,
    }
}

/// What is said about a runtime that has been found to work so.
pub(super) fn of(
    core: &Core,
    policy: &ProviderPolicy,
    runtime: &str,
    can: &Probed,
) -> Capabilities {
    let market = &core.config.market;
    let cores = policy.cpu_cores.max(1.0) as u32;
    let threads = std::thread::available_parallelism().map_or(cores, |n| n.get() as u32);
    let mut more: Properties =
        [(RUNTIME, json!(runtime)), ("golem.activity.caps.transfer.report-progress", json!(false))]
            .into_iter()
            .collect();
    if let Some(machine) = can.machine {
        more.set(MACHINE, machine.name());
        more.set(ACCELERATION, machine.acceleration());
    }
    Capabilities {
        node_name: market.node_name.clone(),
        subnet: market.subnet.clone(),
        runtime: market_name(runtime, &policy.runtimes).to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        features: features(can),
        cpu_cores: cores,
        cpu_threads: threads.min(cores.max(1)),
        cpu_architecture: std::env::consts::ARCH.to_owned(),
        cpu_brand: cpu_brand(),
        mem_gib: policy.mem_gib,
        storage_gib: policy.storage_gib,
        transfer: ["gftp", "http", "https"].map(str::to_owned).to_vec(),
        platforms: KNOWN_PLATFORMS
            .iter()
            .map(|p| (*p).to_owned())
            .chain(market.platforms.iter().cloned())
            .collect(),
        address: core.me.to_string(),
        public: false,
        more,
    }
}

/// Whether payloads here can join networks: it takes a TUN device that this process may open.
pub(crate) fn has_vpn(core: &Core) -> bool {
    std::fs::OpenOptions::new().read(true).write(true).open(&core.config.tun_device).is_ok()
}

/// `vpn`: payloads can join networks; their addresses, names and groups then follow the owner's changes.
/// Payloads have no way to the Internet, so there is no `inet`.
fn features(can: &Probed) -> Vec<String> {
    let mut features = vec!["manifest-support".to_owned()];
    if can.vpn.is_ok() {
        features.extend(["vpn", "gvpn-live", "gvpn-ipv6", "gvpn-multicast"].map(str::to_owned));
    }
    features
}

fn cpu_brand() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or_else(|| "unknown".to_owned(), |(_, brand)| brand.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_with_machines_calls_nothing_else_so() {
        let names = |offered: &[&str]| -> Vec<String> {
            let all: Vec<String> = offered.iter().map(|name| (*name).to_owned()).collect();
            offered.iter().map(|name| market_name(name, &all).to_owned()).collect()
        };
        assert_eq!(names(&["sandbox", "container"]), ["vm", "container"]);
        assert_eq!(names(&["sandbox", "vm"]), ["sandbox", "vm"]);
        assert_eq!(
            names(&["vm-uml", "sandbox", "/usr/bin/own"]),
            ["vm", "sandbox", "/usr/bin/own"]
        );
    }
}
