//! Virtual machines: every way of running one that this host has.
//!
//! Needs user-mode Linux, or QEMU with a kernel; what is missing is said to be missing.

mod rig;

use gvpn_exeunit::ExeUnitConfig;
use gvpn_runtime::Machine;
use rig::{
    Rig, assert_ok, deploy_and_start,
    family::{family, wait_until_gone},
};

fn config(rig: &Rig, machine: Machine) -> ExeUnitConfig {
    let mut config = rig.config(&rig.busybox_image());
    config.runtime = format!("vm-{}", machine.name());
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_boots_and_meets_a_sandbox() {
    let (rig, board) = Rig::with_switch();
    let id = board.network(&["10.30.0.0/24", "fd30::/64"]);
    let near = rig.ready(vec![board.member(id, "near", &["10.30.0.3", "fd30::3"])]).await;
    let machine = rig.spawn(config(&rig, Machine::UserMode)).await;
    let networks = vec![board.member(id, "guest", &["10.30.0.2", "fd30::2"])];
    let before = std::time::Instant::now();
    assert_ok(&machine.script(&deploy_and_start(&networks), networks).await);
    eprintln!("booted in {:?}", before.elapsed());
    eprintln!("{}", machine.shell("uname -a; ip addr; ip route; cat /etc/hosts; df").await);
    machine.shell("ping -c 2 -W 10 10.30.0.3").await;
    near.shell("ping -c 2 -W 10 fd30::2").await;
    let pids = family(machine.unit.pid());
    machine.unit.terminate().await;
    wait_until_gone(&pids);
    near.unit.terminate().await;
}
