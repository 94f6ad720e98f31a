//! Many activities on one provider.

mod rig;

use std::{
    fs,
    time::{Duration, Instant},
};

use gvpn_exeunit::ExeUnitConfig;
use gvpn_lab::figures;
use gvpn_model::NetworkId;
use gvpn_runtime::Machine;
use rig::{
    Activity, Rig, assert_ok, deploy_and_start,
    family::{family, share_of_memory},
    run,
    switchboard::Switchboard,
};

const ACTIVITIES: u32 = 20;

/// What was measured of a runtime.
struct Row {
    runtime: String,
    /// From `deploy` to the end of the first `run`, for one after the other, sorted.
    one: Vec<Duration>,
    /// The same, for all at once.
    all: Duration,
    /// Bytes of an activity: of all its processes, and of the payload's by the usage counter.
    memory: (u64, u64),
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_activities_share_a_network_and_end_together() {
    let mut rows = vec![twenty("sandbox").await, twenty("container").await];
    // Twenty machines boot for minutes.
    if figures::wanted()
        && let Ok(machine) = Machine::best()
    {
        rows.push(twenty(&format!("vm-{}", machine.name())).await);
    }
    let ms = |time: Duration| format!("{} ms", time.as_millis());
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let mut table = format!(
        "{}\n\n| runtime | deploy to the end of the first `run`: median, slowest | {} more at once | \
         memory of an activity | its payload's part |\n|---|---|---|---|---|\n",
        figures::conditions(),
        ACTIVITIES - 1
    );
    for Row { runtime, one, all, memory } in rows {
        let (median, slowest) = (ms(one[one.len() / 2]), ms(one[one.len() - 1]));
        let (whole, payload) = (mib(memory.0), mib(memory.1));
        table.push_str(&format!(
            "| `{runtime}` | {median}, {slowest} | {} | {whole} | {payload} |\n",
            ms(all)
        ));
    }
    println!("{table}");
    if figures::wanted() {
        figures::write("runtimes.md", "start-and-memory", &table).unwrap();
    }
}

async fn spawn(rig: &Rig, runtime: &str, n: u32) -> (u32, Activity) {
    let config = rig.config(&rig.busybox_image());
    let mut limits = config.limits.clone();
    if runtime.starts_with("vm-") {
        limits.memory = Some(128 << 20);
    }
    (n, rig.spawn(ExeUnitConfig { runtime: runtime.to_owned(), limits, ..config }).await)
}

/// Deploys, starts and runs a first program; how long that took.
async fn begin(board: &Switchboard, id: NetworkId, (n, activity): &(u32, Activity)) -> Duration {
    let name = format!("peer{n}");
    let member = board.member(id, &name, &[&format!("10.20.0.{n}"), &format!("fd20::{n}")]);
    let networks = vec![member];
    let start = Instant::now();
    assert_ok(&activity.script(&deploy_and_start(&networks), networks).await);
    assert_ok(&activity.script(&run("/bin/true", &[]), vec![]).await);
    start.elapsed()
}

async fn twenty(runtime: &str) -> Row {
    let (rig, board) = Rig::with_switch();
    let id = board.network(&["10.20.0.0/24", "fd20::/64"]);
    // The image is unpacked with the first.
    let first = spawn(&rig, runtime, 2).await;
    begin(&board, id, &first).await;
    let mut one = vec![];
    for n in 100..105 {
        let other = spawn(&rig, runtime, n).await;
        one.push(begin(&board, id, &other).await);
        other.1.unit.terminate().await;
    }
    one.sort();
    let others = futures((0..ACTIVITIES - 1).map(|n| spawn(&rig, runtime, n + 3))).await;
    let start = Instant::now();
    futures(others.iter().map(|other| begin(&board, id, other))).await;
    let all = start.elapsed();
    for (_, activity) in &others {
        activity.shell_until("ping -c 1 -W 2 10.20.0.2").await;
    }
    // Unpacked, or as the one disk of all machines.
    let images = fs::read_dir(rig.path("images")).unwrap().flatten().map(|entry| entry.path());
    let kept = images.filter(|path| path.extension().is_none_or(|e| e != "lock"));
    assert_eq!(kept.count(), 1, "{runtime}");
    let whole: u64 = others.iter().map(|(_, activity)| memory(activity)).sum();
    let mut payloads = 0;
    for (_, activity) in &others {
        payloads += payload_memory(activity).await;
    }
    let count = u64::from(ACTIVITIES - 1);
    let everybody = others.iter().chain([&first]);
    futures(everybody.map(|(_, activity)| activity.unit.terminate())).await;
    assert_eq!(fs::read_dir(rig.path("activities")).unwrap().count(), 0);
    Row { runtime: runtime.to_owned(), one, all, memory: (whole / count, payloads / count) }
}

/// Bytes of all processes of an activity, shared ones by their share.
fn memory(activity: &Activity) -> u64 {
    family(activity.unit.pid()).into_iter().filter_map(share_of_memory).sum()
}

async fn payload_memory(activity: &Activity) -> u64 {
    activity.unit.poll_usage();
    let deadline = Instant::now() + rig::PATIENCE;
    loop {
        if let Some(usage) = activity.seen.lock().unwrap().usage {
            return usage.memory;
        }
        assert!(Instant::now() < deadline, "usage is told");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// All of them, at once.
async fn futures<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(Box::pin).collect();
    let mut done: Vec<Option<F::Output>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}
