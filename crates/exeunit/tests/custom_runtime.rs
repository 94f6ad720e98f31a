//! A runtime that implements nothing of the network is in the network.

mod rig;

use gvpn_model::{NetworkId, ResultKind};
use rig::{Rig, assert_ok, deploy_and_start, network};

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_of_a_few_lines_joins_networks_and_follows_them() {
    let rig = Rig::new();
    let id = NetworkId::random();
    let neighbour = rig.ready(vec![network(id, 3)]).await;
    let mut config = rig.config(&rig.busybox_image());
    config.exe = env!("CARGO_BIN_EXE_gvpn-host-process").into();
    config.runtime = "host-process".to_owned();
    config.image = None;
    let custom = rig.spawn(config).await;
    let networks = vec![network(id, 2)];
    assert_ok(&custom.script(&deploy_and_start(&networks), networks).await);
    custom.shell("ping -c 1 -W 10 10.20.0.3").await;
    neighbour.shell("ping -c 1 -W 10 fd20::2").await;
    let mut moved = network(id, 2);
    moved.addresses = vec!["10.20.0.42/24".parse().unwrap()];
    custom.unit.reconfigure(moved);
    neighbour.shell_until("ping -c 1 -W 1 10.20.0.42").await;
    custom.unit.remove_network(id);
    custom.shell_until("! ip link show eth0").await;
    let failed = custom.shell_fails("exit 3").await;
    assert!(failed.message.unwrap().contains('3'));
    custom.unit.terminate().await;
    neighbour.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_runtime_is_refused() {
    let rig = Rig::new();
    let mut config = rig.config(&rig.busybox_image());
    config.runtime = "no-such-thing".to_owned();
    let workdir = config.workdir.clone();
    let error = gvpn_exeunit::ExeUnit::spawn(config).await.unwrap_err();
    assert!(error.to_string().contains("no-such-thing"), "{error}");
    assert!(!workdir.exists());
    let missing = rig.spawn(rig.config(&rig.path("missing"))).await;
    let results = missing.script(&deploy_and_start(&[]), vec![]).await;
    assert_eq!(results[0].result, ResultKind::Error);
    missing.unit.terminate().await;
}

#[test]
fn the_tutorial_is_the_program_that_is_tested() {
    let page = include_str!("../../../docs/runtimes.md");
    let tutorial = page.split("\n## ").find(|part| part.starts_with("A runtime in seventy lines"));
    let blocks = tutorial.unwrap().split("```rust\n").skip(1);
    let lines = |text: &str| {
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let told: Vec<_> = blocks.flat_map(|block| lines(block.split("```").next().unwrap())).collect();
    assert_eq!(told, lines(include_str!("programs/host_process.rs")));
    assert!(told.len() < 100);
}
