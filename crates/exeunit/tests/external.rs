//! Runtimes that are programs of their own: what they can do, and what their misdeeds lead to.
//!
//! Needs python3, and namespaces.

mod rig;

use gvpn_exeunit::{ExeUnitConfig, NetworkConfig};
use gvpn_model::{CommandResult, ResultKind};
use gvpn_roster::MemberEdit;
use rig::{
    Activity, Rig, assert_ok, deploy_and_start,
    family::{family, wait_until_gone},
    run,
    switchboard::Switchboard,
};

/// An activity of the test runtime that behaves in this way.
fn config(rig: &Rig, mode: &str) -> ExeUnitConfig {
    let program = rig.runtime_program(mode);
    let mut config = rig.config(&program);
    config.image = None;
    config.runtime = program.to_str().unwrap().to_owned();
    config
}

async fn ready(rig: &Rig, mode: &str, networks: Vec<NetworkConfig>) -> Activity {
    let activity = rig.spawn(config(rig, mode)).await;
    assert_ok(&activity.script(&deploy_and_start(&networks), networks).await);
    activity
}

/// A network, a sandbox in it at `10.30.0.3`, and what a second member sees.
async fn neighbour(rig: &Rig, board: &Switchboard) -> (Activity, NetworkConfig) {
    let id = board.network(&["10.30.0.0/24", "fd30::/64"]);
    let neighbour = rig.ready(vec![board.member(id, "near", &["10.30.0.3", "fd30::3"])]).await;
    neighbour.shell("echo hello > /var/www/index.html; httpd -p 80 -h /var/www").await;
    (neighbour, board.member(id, "outer", &["10.30.0.2", "fd30::2"]))
}

async fn joins_by(kind: &str) {
    let (rig, board) = Rig::with_switch();
    let (neighbour, seen) = neighbour(&rig, &board).await;
    let outer = ready(&rig, kind, vec![seen]).await;
    outer.shell("ping -c 2 -W 10 10.30.0.3").await;
    neighbour.shell("ping -c 2 -W 10 10.30.0.2").await;
    let page = outer.shell("busybox wget -q -O - http://10.30.0.3/index.html").await;
    assert_eq!(page, "hello\n");
    let pids = family(outer.unit.pid());
    outer.unit.terminate().await;
    wait_until_gone(&pids);
    assert!(!outer.workdir.exists());
    neighbour.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_joined_by_a_unix_stream() {
    joins_by("unix").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_joined_by_udp() {
    joins_by("udp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_is_joined_by_tcp() {
    joins_by("tcp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_knows_how_follows_its_networks() {
    let (rig, board) = Rig::with_switch();
    let (neighbour, seen) = neighbour(&rig, &board).await;
    let (id, member) = (seen.network, seen.member);
    let outer = ready(&rig, "live", vec![seen]).await;
    outer.shell("ping -c 1 -W 10 fd30::3").await;
    let moved = MemberEdit {
        ips: Some(vec!["10.30.0.42".parse().unwrap(), "fd30::42".parse().unwrap()]),
        ..MemberEdit::default()
    };
    outer.unit.reconfigure(board.edit(id, member, moved));
    neighbour.shell_until("ping -c 1 -W 1 10.30.0.42").await;
    neighbour.shell_until("ping -c 1 -W 1 fd30::42").await;
    neighbour.shell_fails("ping -c 1 -W 1 10.30.0.2").await;
    // A second network, joined while it runs; each frame finds its own.
    let second = board.network(&["10.31.0.0/24"]);
    let third = rig.ready(vec![board.member(second, "third", &["10.31.0.3"])]).await;
    outer.unit.reconfigure(board.member(second, "outer", &["10.31.0.2"]));
    third.shell_until("ping -c 1 -W 1 10.31.0.2").await;
    neighbour.shell("ping -c 1 -W 10 10.30.0.42").await;
    outer.unit.remove_network(id);
    outer.shell_until("! ip -4 addr show dev eth0 | grep -q 10.30.0.42").await;
    third.shell("ping -c 1 -W 10 10.31.0.2").await;
    outer.shell_until("grep -q third names").await;
    for activity in [outer, neighbour, third] {
        activity.unit.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_does_not_know_how_says_nothing_false() {
    let (rig, board) = Rig::with_switch();
    let (neighbour, seen) = neighbour(&rig, &board).await;
    let (id, member) = (seen.network, seen.member);
    let outer = ready(&rig, "unix", vec![seen]).await;
    let moved =
        MemberEdit { ips: Some(vec!["10.30.0.42".parse().unwrap()]), ..MemberEdit::default() };
    outer.unit.reconfigure(board.edit(id, member, moved));
    // It keeps running, with the address it had.
    outer.shell("ip addr show dev eth0 | grep -q 10.30.0.2/").await;
    for activity in [outer, neighbour] {
        activity.unit.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_files_and_figures() {
    let (rig, _board) = Rig::with_switch();
    let outer = ready(&rig, "live", vec![]).await;
    let script = run("/bin/sh", &["-c", "echo out; echo err >&2; exit 7"]);
    let results = outer.script(&script, vec![]).await;
    assert_eq!(results[0].result, ResultKind::Error);
    assert_eq!(results[0].stdout.as_deref(), Some("out\n"));
    assert_eq!(results[0].stderr.as_deref(), Some("err\n"));
    assert!(results[0].message.as_ref().unwrap().contains('7'));
    let big = outer.shell("head -c 3000000 /dev/zero | tr '\\0' x").await;
    assert_eq!(big.len(), 3_000_000);
    rig.files.lock().unwrap().insert("gftp:a".into(), b"file".to_vec());
    let copy = |from: &str, to: &str| {
        serde_json::json!([{"transfer": {"from": from, "to": to}}]).to_string()
    };
    assert_ok(&outer.script(&copy("gftp:a", "container:/work/sub/a"), vec![]).await);
    assert_ok(&outer.script(&copy("container:/work/sub/a", "gftp:b"), vec![]).await);
    assert_eq!(rig.files.lock().unwrap()["gftp:b"], b"file");
    let outside = outer.script(&copy("container:/etc/passwd", "gftp:c"), vec![]).await;
    assert!(outside[0].message.as_ref().unwrap().contains("volumes"), "{outside:?}");
    outer.unit.poll_usage();
    rig::until(|| outer.seen.lock().unwrap().usage.is_some_and(|usage| usage.cpu_sec == 1.5)).await;
    outer.unit.terminate().await;
    // Without a service mode each program is a command of its own.
    let command = ready(&rig, "command", vec![]).await;
    assert_eq!(command.shell("echo $((6 * 7))").await, "42\n");
    command.shell_fails("exit 3").await;
    command.unit.terminate().await;
}

/// Where a misdeed shows, and what the requestor reads.
const MISDEEDS: &[(&str, &str)] = &[
    ("deploy-rubbish", "no JSON object but `hello"),
    ("deploy-hang", "`deploy` did not end within"),
    ("deploy-die", "deploy-die: as told"),
    ("deploy-flood", "printed more than"),
    ("deploy-refuse", "bad image"),
    ("start-rubbish", "hello: what it says is not the runtime protocol"),
    ("start-hang", "hello: no answer within"),
    ("start-die", "start-die: as told"),
    ("start-flood", "hello: "),
    ("net-refuse", "no network today"),
    ("net-none", "named no endpoint"),
    ("net-hang", "network: no answer within"),
    ("net-nowhere", "cannot connect to its endpoint"),
    ("run-die", "run-die: as told"),
    ("run-hang", "run: no answer within"),
    ("run-huge", "a message of more than"),
    ("frame-half", "in the middle of a frame"),
    ("frame-huge", "a frame of 1073741824 bytes"),
];

#[tokio::test(flavor = "multi_thread")]
async fn misdeeds_are_told_and_leave_nothing() {
    let (rig, board) = Rig::with_switch();
    let (bystander, _) = neighbour(&rig, &board).await;
    let network = board.network(&["10.32.0.0/24"]);
    let misdeeds = MISDEEDS.iter().map(|(mode, _)| {
        let (rig, board) = (&rig, &board);
        let (member, mode) = (board.member(network, mode, &[]), *mode);
        async move {
            let mut config = config(rig, mode);
            config.runtime = format!("impatient:{}", config.runtime);
            let activity = rig.spawn(config).await;
            let told = what_is_told(&activity, member).await;
            let pids = family(activity.unit.pid());
            activity.unit.terminate().await;
            tokio::task::spawn_blocking(move || wait_until_gone(&pids)).await.unwrap();
            assert!(!activity.workdir.exists(), "{mode}");
            told
        }
    });
    let told = futures::future::join_all(misdeeds).await;
    for ((mode, expected), told) in MISDEEDS.iter().zip(told) {
        assert!(told.contains(expected), "{mode}: {told}");
    }
    bystander.shell("wget -q -O - http://10.30.0.3/index.html").await;
    bystander.unit.terminate().await;
}

async fn what_is_told(activity: &Activity, member: NetworkConfig) -> String {
    let networks = vec![member];
    let mut results = activity.script(&deploy_and_start(&networks), networks).await;
    if results.iter().all(|result| result.result == ResultKind::Ok) {
        results = activity.script(&run("/bin/sleep", &["60"]), vec![]).await;
    }
    message(&results)
}

fn message(results: &[CommandResult]) -> String {
    results.last().and_then(|result| result.message.clone()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooding_runtime_is_held_back_and_ended() {
    let (rig, _board) = Rig::with_switch();
    let outer = ready(&rig, "run-flood", vec![]).await;
    let script = run("/bin/true", &[]);
    let flooding = outer.script(&script, vec![]);
    let ending = async {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        outer.unit.terminate().await;
    };
    let (results, ()) = tokio::join!(flooding, ending);
    assert!(message(&results).contains("terminated"), "{}", message(&results));
    assert!(!outer.workdir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_exeunit_takes_its_runtime_along() {
    let (rig, board) = Rig::with_switch();
    let (neighbour, seen) = neighbour(&rig, &board).await;
    let outer = ready(&rig, "unix", vec![seen]).await;
    outer.shell("setsid sh -c 'trap \"\" TERM; sleep 1000' > /dev/null 2>&1 &").await;
    let pids = family(outer.unit.pid());
    assert!(pids.len() >= 4, "{pids:?}");
    let pid = nix::unistd::Pid::from_raw(outer.unit.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    outer.gone().await;
    wait_until_gone(&pids);
    assert!(!outer.workdir.exists());
    neighbour.unit.terminate().await;
}

#[test]
fn an_ordinary_user_can_do_the_same() {
    rig::user::run_as_ordinary_user("a_killed_exeunit_takes_its_runtime_along");
    rig::user::run_as_ordinary_user("a_network_is_joined_by_a_unix_stream");
}
