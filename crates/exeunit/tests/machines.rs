//! Virtual machines: how soon they run, what they carry and what they take, each beside what the same
//! machine does without this product.
//!
//! Needs user-mode Linux, or QEMU with a kernel, and for traffic `iperf3`; what is missing is said to be missing.
//! With `GVPN_FIGURES=1` it measures for longer and writes what it measured; `GVPN_TEST_EXEUNIT=PATH` has a
//! `gvpn` of another build run the activities.

mod rig;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use gvpn_exeunit::ExeUnitConfig;
use gvpn_lab::figures;
use gvpn_runtime::Machine;
use gvpn_vnic::AgentCommand;
use rig::{
    Activity, Rig, assert_ok, deploy_and_start, family,
    hop::{self, Hop},
    run,
    switchboard::Switchboard,
};

/// What was measured of a machine.
struct Row {
    machine: Machine,
    how: &'static str,
    /// From `deploy` to the end of the first `run`.
    boot: Duration,
    /// Until the first process says something, the same kernel started by hand.
    own_boot: Duration,
    /// Bytes of all its processes.
    memory: u64,
    /// To and from a neighbour, then the same without the data path.
    ours: Traffic,
    ceiling: Traffic,
}

struct Traffic {
    /// Gbit/s from the machine and to it.
    rates: [f64; 2],
    /// Median round trip.
    ping: Duration,
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_boot_and_carry() {
    let mut rows = vec![];
    for machine in Machine::ALL {
        match machine.probe() {
            Ok(how) => rows.push(measure(machine, how).await),
            Err(why) => println!("{} MISSING, not tested: {why}", machine.name()),
        }
    }
    let table = table(&rows);
    println!("{table}");
    if figures::wanted() && !rows.is_empty() {
        figures::write("runtimes.md", "machines", &table).unwrap();
    }
}

async fn measure(machine: Machine, how: &'static str) -> Row {
    let (times, seconds) = if figures::wanted() { (3, 4) } else { (1, 1) };
    let (rig, board) = Rig::with_switch();
    let image = rig.busybox_image();
    add_program(&image, "iperf3");
    let networks = [board.network(&["10.50.0.0/24"]), board.network(&["10.51.0.0/24"])];
    let near = rig.ready(vec![board.member(networks[0], "near", &["10.50.0.3"])]).await;
    let seen = vec![
        board.member(networks[0], "machine", &["10.50.0.2"]),
        board.member(networks[1], "machine", &["10.51.0.2"]),
    ];
    let mtu = seen[1].mtu;
    let (mut boots, mut own_boots) = (vec![], vec![]);
    let mut last = None;
    for _ in 0..times {
        if let Some((activity, _)) = last.take() {
            end(activity).await;
        }
        own_boots.push(own_boot(&rig, machine));
        board.set_aside(networks[1]);
        let mut config = rig.config(&image);
        config.runtime = format!("vm-{}", machine.name());
        let activity = rig.spawn(config).await;
        let start = Instant::now();
        // A machine waits for whoever serves its cards.
        let serve = serve(&rig, &board, networks[1], mtu);
        let script = deploy_and_start(&seen);
        let (results, hop) = tokio::join!(activity.script(&script, seen.clone()), serve);
        assert_ok(&results);
        assert_ok(&activity.script(&run("/bin/true", &[]), vec![]).await);
        boots.push(start.elapsed());
        last = Some((activity, hop));
    }
    let (activity, hop) = last.unwrap();
    activity.shell(&format!("arp -s 10.51.0.3 {}", hop::MAC)).await;
    let memory = memory(&activity);
    near.shell("iperf3 -s -D").await;
    let mut server = Command::new("iperf3");
    server.args(["-s"]).stdout(Stdio::null());
    hop.namespace.enter(&mut server, false).unwrap();
    let mut server = server.spawn().unwrap();
    let ours = traffic(&activity, "10.50.0.3", seconds).await;
    let ceiling = traffic(&activity, "10.51.0.3", seconds).await;
    server.kill().unwrap();
    server.wait().unwrap();
    end(activity).await;
    near.unit.terminate().await;
    let (boot, own_boot) = (median(boots), median(own_boots));
    Row { machine, how, boot, own_boot, memory, ours, ceiling }
}

async fn end(activity: Activity) {
    let pids = family::family(activity.unit.pid());
    activity.unit.terminate().await;
    family::wait_until_gone(&pids);
}

async fn serve(rig: &Rig, board: &Switchboard, network: gvpn_model::NetworkId, mtu: u16) -> Hop {
    let nic = loop {
        match board.take(network) {
            Some(nic) => break nic,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    let config: ExeUnitConfig = rig.config(Path::new("/"));
    let agent =
        AgentCommand { exe: config.exe, args: config.agent_args, ..AgentCommand::default() };
    Hop::new(agent, "10.51.0.3/24", mtu, nic).await
}

/// Adds a program of this host to an image, with the libraries that it needs.
fn add_program(image: &Path, program: &str) {
    let listed = Command::new("sh").args(["-c", &format!("ldd $(command -v {program})")]).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    let paths =
        listed.lines().filter_map(|line| line.split_whitespace().find(|w| w.starts_with('/')));
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    let found = String::from_utf8(found.stdout).unwrap();
    assert!(!found.is_empty(), "{program} is installed");
    for path in paths.map(str::to_owned).chain([found.trim().to_owned()]) {
        let to = image.join(path.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&path, to).unwrap();
    }
    let usual = image.join("bin").join(program);
    if !usual.exists() {
        std::os::unix::fs::symlink(found.trim(), usual).unwrap();
    }
    fs::create_dir_all(image.join("tmp")).unwrap();
}

async fn traffic(activity: &Activity, to: &str, seconds: u32) -> Traffic {
    activity.shell_until(&format!("ping -c 1 -W 2 {to}")).await;
    let text = activity.shell(&format!("ping -c 20 -i 0.1 {to}")).await;
    let times = text.lines().filter_map(|line| {
        let time = line.split_once("time=")?.1.split(' ').next()?;
        Some(Duration::from_secs_f64(time.parse::<f64>().ok()? / 1e3))
    });
    let ping = median(times.collect());
    let mut rates = [0.0; 2];
    for (rate, direction) in rates.iter_mut().zip(["", "-R"]) {
        let command = format!("iperf3 -c {to} -t {seconds} -J {direction}");
        let json: serde_json::Value =
            serde_json::from_str(&activity.shell(&command).await).unwrap();
        let bits = json.pointer("/end/sum_received/bits_per_second").and_then(|v| v.as_f64());
        let bits = bits.unwrap_or_else(|| panic!("{command}: {json}"));
        *rate = bits / 1e9;
        assert!(bits > 0.0);
    }
    Traffic { rates, ping }
}

/// How long the same kernel takes from its start to the first word of a first process of its own.
fn own_boot(rig: &Rig, machine: Machine) -> Duration {
    let directory = rig.path("own-boot");
    let root = directory.join("root");
    if !root.exists() {
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
        let init =
            "#!/bin/busybox sh\n/bin/busybox echo up-and-running\n/bin/busybox poweroff -f\n";
        fs::write(root.join("init"), init).unwrap();
        let pack = "cd $0 && chmod 755 init && mkdir dev && mknod dev/console c 5 1 && \
                    find . | busybox cpio -o -H newc > ../initramfs 2> /dev/null";
        assert!(Command::new("sh").args(["-c", pack]).arg(&root).status().unwrap().success());
    }
    let (program, args) = machine.kernel_alone(&directory.join("initramfs")).unwrap();
    let start = Instant::now();
    let mut child = Command::new(program)
        .args(args)
        .current_dir(&directory)
        .env("HOME", &directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let up = lines.map_while(Result::ok).any(|line| line.contains("up-and-running"));
    let took = start.elapsed();
    let _ = child.kill();
    let _ = child.wait();
    assert!(up, "{} does not boot by itself", machine.name());
    took
}

/// Bytes of all processes of an activity, shared ones by their share.
fn memory(activity: &Activity) -> u64 {
    family::family(activity.unit.pid()).into_iter().filter_map(family::share_of_memory).sum()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn table(rows: &[Row]) -> String {
    let mut table = format!(
        "{}\n\n\
         | machine | by | deploy to the end of the first `run` | the kernel's own boot | ratio | memory | \
         TCP from it, Gbit/s (its ceiling) | TCP to it (its ceiling) | ping (its floor) |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        figures::conditions()
    );
    for row in rows {
        let (ours, ceiling) = (&row.ours, &row.ceiling);
        let us = |time: Duration| time.as_micros();
        table.push_str(&format!(
            "| `{}` | {} | {:.2} s | {:.2} s | {:.2} | {} MiB | {:.2} ({:.2}) | {:.2} ({:.2}) | {} µs ({} µs) |\n",
            row.machine.name(),
            row.how.split(':').next().unwrap_or_default(),
            row.boot.as_secs_f64(),
            row.own_boot.as_secs_f64(),
            row.boot.as_secs_f64() / row.own_boot.as_secs_f64(),
            row.memory >> 20,
            ours.rates[0],
            ceiling.rates[0],
            ours.rates[1],
            ceiling.rates[1],
            us(ours.ping),
            us(ceiling.ping),
        ));
    }
    table
}
