//! The checks, in the order in which they are made.

mod groups;
mod network;
mod payload;

use std::{pin::Pin, sync::Arc};

use gvpn_exeunit::{ExeUnitConfig, NetworkConfig};
use gvpn_model::NetworkId;

use crate::{
    Candidate, Named,
    rig::{Activity, Rig, assert_ok, switchboard::Switchboard},
};

/// What a check says: nothing when all is well, or why it does not apply.
type Verdict = Option<&'static str>;
type Check = fn(Arc<Subject>) -> Pin<Box<dyn Future<Output = Verdict> + Send>>;

macro_rules! checks {
    ($($name:literal: $check:path,)*) => {
        &[$(($name, |subject| Box::pin(async move { $check(&subject).await }))),*]
    };
}

/// All checks.
pub const CHECKS: &[(&str, Check)] = checks! {
    "streams and exit codes": payload::streams_and_exit_codes,
    "environment": payload::environment,
    "much output": payload::much_output,
    "files in and out": payload::files,
    "limits": payload::limits,
    "usage": payload::usage,
    "both families": network::both_families,
    "tcp both ways": network::tcp_both_ways,
    "several networks": network::several_networks,
    "multicast": network::multicast,
    "groups that are joined": groups::joined,
    "names": network::names,
    "live addresses": network::live_addresses,
    "live names": network::live_names,
    "live joining and leaving": network::live_joining_and_leaving,
    "many networks, again and again": network::many_networks,
    "owner's rules": network::rules,
    "owner's limits": network::owners_limits,
    "terminated while it runs": payload::terminated,
    "killed": payload::killed,
};

/// A running payload, a neighbour of it, and what is between them.
pub struct Subject {
    pub candidate: &'static Candidate,
    pub rig: Rig,
    pub board: Switchboard,
    /// A network of both families, and one of IPv4 alone.
    pub networks: [NetworkId; 2],
    /// What the payload was given of them.
    pub seen: [NetworkConfig; 2],
    /// A sandbox in both, the third member after the owner and the payload.
    pub neighbour: Activity,
    pub payload: Activity,
    /// Another payload of the same runtime, to be killed.
    pub victim: Activity,
}

impl Subject {
    pub async fn new(candidate: &'static Candidate) -> Self {
        let (rig, board) = Rig::with_switch();
        let networks =
            [board.network(&["10.40.0.0/24", "fd40::/64"]), board.network(&["10.41.0.0/24"])];
        let seen = [
            board.member(networks[0], "payload", &["10.40.0.2", "fd40::2"]),
            board.member(networks[1], "payload", &["10.41.0.2"]),
        ];
        let near = vec![
            board.member(networks[0], "near", &["10.40.0.3", "fd40::3"]),
            board.member(networks[1], "near", &["10.41.0.3"]),
        ];
        // The payload sees who came after it.
        let seen = seen.map(|config| board.config(config.network, config.member));
        rig.install("/usr/bin/socat");
        let neighbour = rig.ready(near).await;
        neighbour.shell("echo near > /var/www/index.html; httpd -p 80 -h /var/www").await;
        let (payload, victim) =
            tokio::join!(start(candidate, &rig, &seen), start(candidate, &rig, &[]));
        Self { candidate, rig, board, networks, seen, neighbour, payload, victim }
    }

    /// Runs a shell command in the payload that must succeed; its output.
    pub async fn shell(&self, command: &str) -> String {
        let results = self.payload.script(&in_shell(command), vec![]).await;
        assert_ok(&results);
        results[0].stdout.clone().unwrap()
    }

    /// Runs a shell command in the payload until it succeeds.
    pub async fn shell_until(&self, command: &str) {
        let deadline = std::time::Instant::now() + crate::rig::PATIENCE;
        loop {
            let results = self.payload.script(&in_shell(command), vec![]).await;
            if results[0].result == gvpn_model::ResultKind::Ok {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{command}: {results:#?}");
        }
    }
}

/// The shell that every payload has.
pub fn in_shell(command: &str) -> String {
    crate::rig::run("busybox", &["sh", "-c", command])
}

fn config(candidate: &Candidate, rig: &Rig) -> ExeUnitConfig {
    let mut config = rig.config(&rig.busybox_image());
    config.limits.memory = Some(192 << 20);
    config.runtime = match candidate.runtime {
        Named::Built(name) => name.to_owned(),
        Named::Machine(machine) => format!("vm-{}", machine.name()),
        Named::Program(mode) => {
            config.image = None;
            rig.runtime_program(mode).to_str().unwrap().to_owned()
        }
    };
    config
}

async fn start(candidate: &Candidate, rig: &Rig, networks: &[NetworkConfig]) -> Activity {
    let activity = rig.spawn(config(candidate, rig)).await;
    let net: Vec<_> = networks
        .iter()
        .map(|n| {
            serde_json::json!({"id": n.network, "ip": "10.0.0.0", "mask": "255.255.255.0",
                "nodeIp": n.addresses[0].addr(), "nodes": {}})
        })
        .collect();
    let script = serde_json::json!([
        {"deploy": {"net": net, "env": {"GREETING": "hello world"}, "hostname": "payload"}},
        {"start": {}}
    ]);
    assert_ok(&activity.script(&script.to_string(), networks.to_vec()).await);
    activity
}
