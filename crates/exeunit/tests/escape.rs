//! A machine's own process is shut in: who breaks out of the machine finds nothing of the host.
//!
//! Needs user-mode Linux, whose root needs not even break out (`hostfs` shows it what its process sees), or QEMU
//! with a kernel; what is missing is said to be missing. As root it also looks at the processes from outside.

mod rig;

use std::{collections::BTreeSet, fs, path::Path};

use gvpn_exeunit::ExeUnitConfig;
use gvpn_model::ResultKind;
use gvpn_runtime::Machine;
use rig::{
    Activity, Rig, assert_ok, deploy_and_start,
    family::{family, wait_until_gone},
    run,
    user::run_as_ordinary_user,
};

/// What is there in the root of a machine's process, of the host or not.
const SEEN: [&str; 7] = ["dev", "etc", "lib", "lib64", "machine", "proc", "scratch"];

async fn machine(rig: &Rig, machine: Machine) -> Option<Activity> {
    if let Err(why) = machine.probe() {
        println!("{} MISSING, not tested: {why}", machine.name());
        return None;
    }
    let mut config: ExeUnitConfig = rig.config(&rig.busybox_image());
    config.runtime = format!("vm-{}", machine.name());
    config.limits.memory = Some(160 << 20);
    let activity = rig.spawn(config).await;
    assert_ok(&activity.script(&deploy_and_start(&[]), vec![]).await);
    Some(activity)
}

#[tokio::test(flavor = "multi_thread")]
async fn root_of_a_user_mode_machine_sees_nothing_of_the_host() {
    let rig = Rig::new();
    let secret = rig.path("secret");
    fs::write(&secret, "of the host").unwrap();
    let Some(activity) = machine(&rig, Machine::UserMode).await else { return };
    let filesystems = activity.shell("cat /proc/filesystems").await;
    if !filesystems.contains("hostfs") {
        println!("MISSING, not tested: this user-mode Linux has no hostfs");
        return;
    }
    activity.shell("mkdir /host && mount -t hostfs none /host -o ../../../../..").await;
    let listed = activity.shell("ls -1A /host").await;
    let strange: Vec<_> = listed.lines().filter(|n| *n != "usr" && !SEEN.contains(n)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    let (programs, libraries) =
        (activity.shell("find /host/usr -type f").await, "find -L /host/lib /host/lib64 -type f");
    assert!(programs.lines().count() == 1 && programs.contains("linux"), "{programs}");
    let libraries = activity.shell(libraries).await;
    assert!(libraries.lines().all(|file| file.contains(".so")), "{libraries}");
    // By its path, by the keeper's root, and by what the kernel tells of other processes.
    let attempts = [
        format!("cat /host{}", secret.display()),
        "cat /host/etc/passwd /host/etc/hostname".to_owned(),
        "ls /host/proc/1 /host/proc/1/root/ /host/proc/1/cwd/ /host/proc/1/fd/".to_owned(),
        "cat /host/proc/1/environ".to_owned(),
        "cat /host/proc/cmdline /host/proc/cpuinfo /host/proc/sys/kernel/hostname".to_owned(),
        "ls /host/sys /host/home /host/root /host/tmp /host/var /host/run".to_owned(),
    ];
    for attempt in attempts {
        let result = activity.script(&run("/bin/sh", &["-c", &attempt]), vec![]).await.remove(0);
        assert_eq!(result.result, ResultKind::Error, "{attempt}: {result:?}");
        assert_eq!(result.stdout.unwrap_or_default(), "", "{attempt}");
    }
    let own = activity.shell("for e in /host/proc/[0-9]*/environ; do cat $e; done; true").await;
    assert!(!own.contains("CARGO") && !own.contains("PATH="), "{own}");
    // Nor is there a place to write to or a device to make.
    for place in ["", "/machine", "/usr/bin", "/lib64"] {
        activity.shell_fails(&format!("echo x > /host{place}/new")).await;
    }
    activity.shell_fails("mknod /host/scratch/disk b 8 0").await;
    let pids = family(activity.unit.pid());
    activity.unit.terminate().await;
    wait_until_gone(&pids);
    run_as_ordinary_user("root_of_a_user_mode_machine_sees_nothing_of_the_host");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machines_process_has_no_rights_and_an_empty_root() {
    for kind in Machine::ALL {
        let rig = Rig::new();
        let Some(activity) = machine(&rig, kind).await else { continue };
        let pids = family(activity.unit.pid());
        let program = if kind == Machine::UserMode { "linux.uml" } else { "qemu-system" };
        let is_machine = |pid: &&u32| name(**pid).contains(program);
        let machines: Vec<_> = pids.iter().filter(is_machine).copied().collect();
        assert!(!machines.is_empty(), "{:?}", pids.iter().map(|p| name(*p)).collect::<Vec<_>>());
        machines.into_iter().for_each(examine);
        activity.unit.terminate().await;
        wait_until_gone(&pids);
    }
}

fn name(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn examine(pid: u32) {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return };
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    for capabilities in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(capabilities), "0000000000000000", "{capabilities} {status}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()), "{status}");
    if !nix::unistd::geteuid().is_root() {
        println!("not tested: who is not root cannot look at a machine's root");
        return;
    }
    let root = format!("/proc/{pid}/root");
    let names: BTreeSet<_> = entries(Path::new(&root)).into_iter().collect();
    let expected = |name: &String| {
        // Where libraries of systems are that have them elsewhere.
        SEEN.contains(&name.as_str()) || ["usr", "nix", "gnu"].contains(&name.as_str())
    };
    assert!(names.iter().all(expected), "{names:?}");
    let settings = entries(&Path::new(&root).join("etc"));
    assert!(settings.iter().all(|name| name == "ld.so.cache"), "{settings:?}");
    let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(
        environ.split_terminator('\0').all(|v| v.starts_with("HOME=") || v.starts_with("TMPDIR="))
    );
    for namespace in ["mnt", "net", "pid", "user", "ipc", "uts", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
    }
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
