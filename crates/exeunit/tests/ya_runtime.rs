//! A program built on Golem's published runtime SDK (`conformance/ya-runtime`) under this ExeUnit.
//!
//! Needs root, a TUN device, and the program, which `make test-ya-runtime` builds: its licence keeps it
//! out of this workspace.

mod rig;

use gvpn_model::ResultKind;
use rig::{
    Rig, assert_ok,
    family::{family, wait_until_gone},
    run,
};

async fn joins_by(kind: &str) {
    let (rig, board) = Rig::with_switch();
    let network = board.network(&["10.30.0.0/24"]);
    let neighbour = rig.ready(vec![board.member(network, "near", &["10.30.0.3"])]).await;
    neighbour.shell("echo hello > /var/www/index.html; httpd -p 80 -h /var/www").await;
    let program = std::env::var("GVPN_YA_RUNTIME")
        .expect("GVPN_YA_RUNTIME names the program; `make test-ya-runtime` builds it and says so");
    let mut config = rig.config(&rig.path("image"));
    config.image = None;
    config.runtime = program;
    config.limits.memory = Some(1 << 30);
    config.limits.cpu_cores = Some(1.0);
    let activity = rig.spawn(config).await;
    let networks = vec![board.member(network, "golem", &["10.30.0.2"])];
    let deploy = serde_json::json!([
        {"deploy": {"net": [{"id": network, "ip": "10.30.0.0", "mask": "255.255.255.0",
            "nodeIp": "10.30.0.2", "nodes": {}}]}},
        {"start": {"args": [kind]}}
    ]);
    assert_ok(&activity.script(&deploy.to_string(), networks).await);
    activity.shell("ping -c 2 -W 10 10.30.0.3").await;
    neighbour.shell("ping -c 2 -W 10 10.30.0.2").await;
    // The SDK's helper writes a program's output as JSON of its result; the program does so itself.
    let page = activity.shell("busybox wget -q -O - http://10.30.0.3/index.html").await;
    assert!(page.starts_with("hello\n"), "{page}");
    let failed = activity.script(&run("/bin/false", &[]), vec![]).await;
    assert_eq!(failed[0].result, ResultKind::Error);
    let pids = family(activity.unit.pid());
    activity.unit.terminate().await;
    wait_until_gone(&pids);
    neighbour.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program that `make test-ya-runtime` builds"]
async fn a_unix_stream() {
    joins_by("unix").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program that `make test-ya-runtime` builds"]
async fn udp_datagrams() {
    joins_by("udp").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the program that `make test-ya-runtime` builds"]
async fn a_tcp_stream() {
    joins_by("tcp").await;
}
