//! How `gvpn demo` ends when it does not run to its end. It needs a network namespace: root, or
//! unprivileged user namespaces.

use std::{
    fs::{self, File},
    net::UdpSocket,
    path::Path,
    time::{Duration, Instant},
};

use gvpn_lab::{Host, Lab, Process};
use nix::sys::signal::Signal;

const LONG: Duration = Duration::from_secs(90);

/// The demo on a loopback of its own.
fn demo(host: &Host, dir: &Path, out: &Path) -> Process {
    let mut command = host.command(env!("CARGO_BIN_EXE_gvpn"));
    command.args(["demo", "--loopback", "--dir"]).arg(dir);
    let file = File::create(out).unwrap();
    command.inner().stdout(file.try_clone().unwrap()).stderr(file);
    command.spawn().unwrap()
}

fn processes(dir: &Path) -> Vec<String> {
    let text = dir.display().to_string();
    let pids = fs::read_dir("/proc").unwrap().flatten();
    let lines = pids.filter_map(|pid| fs::read(pid.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(&text)).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing() {
    let lab = Lab::new().unwrap();
    let host = lab.host("demo").unwrap();
    for (signal, moment) in [(Signal::SIGTERM, "a network"), (Signal::SIGINT, "")] {
        let temp = tempfile::tempdir().unwrap();
        let (dir, out) = (temp.path().join("demo"), temp.path().join("out"));
        let mut process = demo(&host, &dir, &out);
        let start = Instant::now();
        // The second comes while the daemons are being started.
        while !read(&out).contains(moment) || !dir.join("requestor/log").exists() {
            assert!(process.is_running() && start.elapsed() < LONG, "{}", read(&out));
            std::thread::sleep(Duration::from_millis(10));
        }
        process.signal(signal).unwrap();
        let status = process.wait(LONG).unwrap().unwrap_or_else(|| panic!("{}", read(&out)));
        let said = read(&out);
        assert!(!status.success() && said.contains("interrupted"), "{status} {said}");
        assert!(!dir.exists(), "{said}");
        assert_eq!(processes(&dir), Vec::<String>::new(), "{said}");
    }
}

#[test]
fn a_demo_that_fails_keeps_the_logs_and_nothing_else() {
    let lab = Lab::new().unwrap();
    let host = lab.host("demo").unwrap();
    let temp = tempfile::tempdir().unwrap();
    let (dir, out) = (temp.path().join("demo"), temp.path().join("out"));
    // Where the demo's relay wants to be.
    let taken = host.enter(|| UdpSocket::bind("127.0.0.1:7464").unwrap()).unwrap();
    let mut process = demo(&host, &dir, &out);
    let status = process.wait(LONG).unwrap().unwrap_or_else(|| panic!("{}", read(&out)));
    drop(taken);
    let said = read(&out);
    assert!(!status.success() && said.contains("relay did not come up"), "{status} {said}");
    assert!(said.contains(&format!("{}/*.log", dir.display())), "{said}");
    let kept: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(kept, ["relay.log"], "{said}");
    assert!(read(&dir.join("relay.log")).contains("7464"), "{}", read(&dir.join("relay.log")));
    assert_eq!(processes(&dir), Vec::<String>::new(), "{said}");
}
