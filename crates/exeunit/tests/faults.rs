//! What is left when something is killed: nothing.

mod rig;

use std::{
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use gvpn_model::NetworkId;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rig::{
    PATIENCE, Rig,
    family::{family, wait_until_gone},
    network,
    user::{run_as_ordinary_user, run_as_user_with_ids},
};

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_exeunit_leaves_nothing() {
    let rig = Rig::new();
    let net = NetworkId::random();
    let bystander = rig.ready(vec![network(net, 3)]).await;
    let victim = rig.ready(vec![network(net, 2)]).await;
    // Processes that left their session, ignore signals, and hold the output open.
    victim
        .shell("for i in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000' & done")
        .await;
    victim
        .shell("mkdir -p /secret/dir; chmod 000 /secret; dd if=/dev/zero of=/big bs=1M count=4")
        .await;
    let pids = family(victim.unit.pid());
    assert!(pids.len() >= 7, "{pids:?}");
    signal(victim.unit.pid(), Signal::SIGKILL);
    let reason = victim.gone().await;
    assert!(reason.unwrap().contains("killed"));
    wait_until_gone(&pids);
    assert!(!victim.workdir.exists());
    bystander.shell("ping -c 1 -W 5 10.20.0.3").await;
    bystander.unit.terminate().await;
}

#[test]
fn a_killed_exeunit_of_an_ordinary_user_leaves_nothing() {
    run_as_ordinary_user("a_killed_exeunit_leaves_nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_handle_ends_the_activity() {
    let rig = Rig::new();
    let activity = rig.ready(vec![network(NetworkId::random(), 2)]).await;
    let pids = family(activity.unit.pid());
    let rig::Activity { unit, workdir, mut ended, .. } = activity;
    drop(unit);
    tokio::time::timeout(PATIENCE, ended.wait_for(Option::is_some)).await.unwrap().unwrap();
    wait_until_gone(&pids);
    assert!(!workdir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_whose_init_dies_is_reported() {
    let rig = Rig::new();
    let activity = rig.ready(vec![]).await;
    let pids = family(activity.unit.pid());
    let cmdline =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // The last of the helpers named `init` is the one inside.
    let init = pids.iter().rfind(|pid| cmdline(pid).contains("\0init")).unwrap();
    signal(*init, Signal::SIGKILL);
    let reason = activity.gone().await.unwrap();
    assert!(reason.contains("init"), "{reason}");
    wait_until_gone(&pids);
    assert!(!activity.workdir.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn terminating_interrupts_a_program() {
    let rig = Rig::new();
    let activity = rig.ready(vec![]).await;
    let stubborn = "trap '' TERM; echo begun; sleep 1000; sleep 1000";
    let before = Instant::now();
    let results = activity.terminated_in(&rig::run_told("/bin/sh", &["-c", stubborn])).await;
    assert_eq!(results[0].result, gvpn_model::ResultKind::Error);
    assert!(results[0].message.as_ref().unwrap().contains("terminated"), "{results:?}");
    assert!(before.elapsed() < PATIENCE / 2);
    assert!(!activity.workdir.exists());
}

/// Not a test of its own: a daemon for [`a_killed_daemon_leaves_nothing`] to kill.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other test runs it"]
async fn daemon_to_be_killed() {
    let Some(directory) = std::env::var_os("GVPN_TEST_DAEMON") else { return };
    let rig = Rig::new();
    let mut config = rig.config(&rig.busybox_image());
    config.workdir = PathBuf::from(directory).join("activity");
    config.images = config.workdir.with_file_name("images");
    let activity = rig.spawn(config).await;
    let networks = vec![network(NetworkId::random(), 2)];
    let results = activity.script(&rig::deploy_and_start(&networks), networks).await;
    rig::assert_ok(&results);
    activity.shell("setsid sh -c 'trap \"\" TERM; sleep 1000' &").await;
    println!("unit {} {}", activity.unit.pid(), rig.directory.keep().display());
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_leaves_nothing() {
    let rig = Rig::new();
    let mut daemon = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "daemon_to_be_killed", "--ignored", "--nocapture"])
        .env("GVPN_TEST_DAEMON", rig.directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stdout.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("unit ")).unwrap();
    let words: Vec<&str> = line[line.find("unit ").unwrap()..].split(' ').collect();
    let pids = family(daemon.id());
    assert!(pids.contains(&words[1].parse().unwrap()) && pids.len() >= 6, "{line} {pids:?}");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    wait_until_gone(&pids);
    fs::remove_dir_all(words[2]).unwrap();
    assert!(!rig.path("activity").exists(), "the ExeUnit clears up even without its daemon");
    // What an ExeUnit that was killed too has left goes with the next daemon.
    let agent = gvpn_vnic::AgentCommand { exe: rig::exe(), ..gvpn_vnic::AgentCommand::default() };
    let helper = gvpn_runtime::Helper { exe: rig::exe(), args: vec!["exeunit".into()] };
    fs::create_dir_all(rig.path("activity/left/over")).unwrap();
    gvpn_exeunit::sweep_with(&rig.path("activity"), &agent, &helper).await.unwrap();
    assert_eq!(fs::read_dir(rig.path("activity")).unwrap().count(), 0);
}

#[test]
fn a_killed_daemon_of_an_ordinary_user_leaves_nothing() {
    run_as_ordinary_user("a_killed_daemon_leaves_nothing");
}

#[test]
fn a_killed_exeunit_of_a_user_with_ids_leaves_nothing() {
    run_as_user_with_ids("a_killed_exeunit_leaves_nothing");
}
