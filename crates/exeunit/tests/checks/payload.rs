//! Programs, files, limits, ends.

use gvpn_model::ResultKind;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{Subject, Verdict, in_shell};
use crate::rig::{
    assert_ok,
    family::{family, wait_until_gone},
    run, run_told, until,
};

pub(super) async fn streams_and_exit_codes(subject: &Subject) -> Verdict {
    let script = in_shell("echo out; echo err >&2; exit 7");
    let results = subject.payload.script(&script, vec![]).await;
    assert_eq!(results[0].result, ResultKind::Error);
    assert_eq!(results[0].stdout.as_deref(), Some("out\n"));
    assert_eq!(results[0].stderr.as_deref(), Some("err\n"));
    assert!(results[0].message.as_ref().unwrap().contains('7'), "{results:?}");
    let missing = subject.payload.script(&run("/no/such/program", &[]), vec![]).await;
    assert_eq!(missing[0].result, ResultKind::Error, "{missing:?}");
    // A program left running does not hold up the command that started it.
    assert_eq!(subject.shell("busybox sleep 1000 & echo on").await, "on\n");
    None
}

pub(super) async fn environment(subject: &Subject) -> Verdict {
    assert_eq!(subject.shell("echo $GREETING").await, "hello world\n");
    None
}

pub(super) async fn much_output(subject: &Subject) -> Verdict {
    let command = "busybox seq 1 200000; busybox seq 1 100000 >&2";
    let results = subject.payload.script(&in_shell(command), vec![]).await;
    assert_ok(&results);
    let stdout = results[0].stdout.as_ref().unwrap();
    let stderr = results[0].stderr.as_ref().unwrap();
    assert!(stdout.lines().map(|l| l.parse::<u32>().unwrap()).eq(1..=200_000));
    assert!(stderr.lines().map(|l| l.parse::<u32>().unwrap()).eq(1..=100_000));
    None
}

pub(super) async fn files(subject: &Subject) -> Verdict {
    let transfer = |from: &str, to: &str| {
        serde_json::json!([{"transfer": {"from": from, "to": to}}]).to_string()
    };
    let bytes: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    subject.rig.files.lock().unwrap().insert("gftp:in".into(), bytes.clone());
    let payload = &subject.payload;
    let file = "container:/work/sub/file";
    assert_ok(&payload.script(&transfer("gftp:in", file), vec![]).await);
    if subject.candidate.own_root {
        assert_eq!(subject.shell("busybox wc -c < /work/sub/file").await.trim(), "3000000");
    }
    assert_ok(&payload.script(&transfer(file, "gftp:out"), vec![]).await);
    assert!(subject.rig.files.lock().unwrap()["gftp:out"] == bytes, "the file changed on its way");
    let absent = payload.script(&transfer("container:/work/absent", "gftp:no"), vec![]).await;
    assert_eq!(absent[0].result, ResultKind::Error);
    None
}

pub(super) async fn limits(subject: &Subject) -> Verdict {
    if !subject.candidate.own_root {
        return Some("the program keeps to what it is told by itself");
    }
    let greedy = in_shell("busybox dd if=/dev/zero of=/dev/null bs=400M count=1");
    let results = subject.payload.script(&greedy, vec![]).await;
    assert_eq!(results[0].result, ResultKind::Error, "400 MiB of 192: {results:?}");
    assert_eq!(subject.shell("echo alive").await, "alive\n");
    None
}

pub(super) async fn usage(subject: &Subject) -> Verdict {
    subject.shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").await;
    subject.payload.unit.poll_usage();
    let seen = || subject.payload.seen.lock().unwrap().usage;
    until(|| seen().is_some_and(|usage| usage.duration_sec > 0.0 && usage.cpu_sec > 0.0)).await;
    None
}

pub(super) async fn terminated(subject: &Subject) -> Verdict {
    let payload = &subject.payload;
    let pids = family(payload.unit.pid());
    let stubborn = "trap '' TERM; echo begun; busybox sleep 1000; busybox sleep 1000";
    let script = run_told("busybox", &["sh", "-c", stubborn]);
    let results = payload.terminated_in(&script).await;
    assert!(results[0].message.as_ref().unwrap().contains("terminated"), "{results:?}");
    wait_until_gone(&pids);
    assert!(!payload.workdir.exists());
    None
}

pub(super) async fn killed(subject: &Subject) -> Verdict {
    let victim = &subject.victim;
    let command = "for i in 1 2 3; do busybox setsid busybox sh -c 'trap \"\" TERM HUP; busybox sleep 1000' & done";
    assert_ok(&victim.script(&in_shell(command), vec![]).await);
    let pids = family(victim.unit.pid());
    kill(Pid::from_raw(victim.unit.pid() as i32), Signal::SIGKILL).unwrap();
    assert!(victim.gone().await.unwrap().contains("killed"));
    wait_until_gone(&pids);
    assert!(!victim.workdir.exists());
    subject.neighbour.shell("echo alive").await;
    None
}
