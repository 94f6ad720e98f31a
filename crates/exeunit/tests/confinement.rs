//! What a payload cannot see or do.

mod rig;

use gvpn_model::NetworkId;
use rig::{Rig, assert_ok, deploy_and_start, network, user::run_as_ordinary_user};

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_sees_itself_alone() {
    let rig = Rig::new();
    let activity = rig.ready(vec![network(NetworkId::random(), 2)]).await;
    let processes = activity.shell("ls /proc | grep -c '^[0-9]*$'").await;
    assert!(processes.trim().parse::<u32>().unwrap() <= 6, "{processes}");
    let interfaces = activity.shell("ls /sys/class/net").await;
    assert_eq!(interfaces.split_whitespace().collect::<Vec<_>>(), ["eth0", "lo"]);
    let mounts = activity.shell("cut -d' ' -f2 /proc/mounts").await;
    for mount in mounts.lines() {
        let known = ["/", "/proc", "/sys", "/dev", "/tmp", "/etc"];
        let known = known.iter().any(|k| mount == *k || mount.starts_with(&format!("{k}/")));
        assert!(known, "{mount}");
    }
    let own = rig.directory.path().file_name().unwrap().to_str().unwrap().to_owned();
    assert!(!activity.shell("cat /proc/self/mountinfo").await.contains("/root/"), "{own}");
    assert_eq!(activity.shell("ls -A /proc/self/fd | wc -l").await.trim(), "4");
    assert_eq!(activity.shell("id -u").await.trim(), "0");
    activity.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_cannot_reach_the_host() {
    let rig = Rig::new();
    let activity = rig.ready(vec![network(NetworkId::random(), 2)]).await;
    let forbidden = [
        "mount -t tmpfs x /root",
        "mount -o remount,rw /sys",
        "umount /proc/sys",
        "umount /etc/hosts",
        "unshare -U true",
        "unshare -m true",
        "chroot /proc/1/root true",
        "ls /proc/1/root/",
        "readlink /proc/1/exe",
        "readlink /proc/1/fd/2",
        "cat /proc/1/maps",
        "cat /proc/1/environ",
        "cat /proc/1/mem",
        "echo x > /proc/1/exe",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo b > /proc/sysrq-trigger",
        "hostname other",
        "mknod /disk b 8 0 && cat /disk",
        "ip link set eth0 down",
        "ip addr add 10.20.0.99/24 dev eth0",
        "ip route add 0.0.0.0/0 dev eth0",
        "wget -T 2 -O - http://192.0.2.1/",
        "nc -w 1 127.0.0.1 22",
        "date -s 2001-01-01 2>&1 | grep -v permitted | grep -v 2001",
        "reboot -f",
        "dmesg -c",
        "kill -9 1; sleep 0.2; kill -0 1; [ ! -e /proc/1 ]",
        "nsenter -t 1 -m true",
        "insmod /bin/busybox",
        "swapon /bin/busybox",
    ];
    for command in forbidden {
        activity.shell_fails(command).await;
    }
    // It is alive and well.
    assert_eq!(activity.shell("echo fine").await, "fine\n");
    activity.unit.terminate().await;
}

/// What only Landlock refuses: the kernel lets anybody make the character device 0:0 in a file system in
/// memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_payload_makes_no_device_nodes() {
    let rig = Rig::new();
    let activity = rig.ready(vec![]).await;
    // SAFETY: asks for the version of Landlock, and nothing else.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0, 0, 1) };
    if version < 1 {
        eprintln!("not tested: this kernel has no Landlock");
    } else {
        let result = activity.shell_fails("mknod /tmp/device c 0 0").await;
        assert!(result.stderr.unwrap().contains("Permission denied"));
    }
    activity
        .shell("mknod /tmp/pipe p; ln -s x /tmp/l; mv /tmp/pipe /tmp/p; stty < /dev/ptmx")
        .await;
    // Programs of different commands are one payload.
    activity.shell("sleep 1000 & echo $! > /tmp/pid").await;
    activity.shell("kill $(cat /tmp/pid)").await;
    activity.unit.terminate().await;
}

#[test]
fn a_payload_of_an_ordinary_user_cannot_reach_the_host() {
    run_as_ordinary_user("a_payload_cannot_reach_the_host");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_need_is_there() {
    let rig = Rig::new();
    let activity = rig.ready(vec![network(NetworkId::random(), 2)]).await;
    let works = [
        "echo x > /dev/null; head -c 10 /dev/zero > /tmp/a; head -c 10 /dev/urandom > /dev/shm/b",
        "[ -c /dev/ptmx ] && [ -c /dev/full ] && [ -d /dev/pts ] && [ -L /dev/fd ]",
        "ping -c 1 -W 5 127.0.0.1",
        "ping -c 1 -W 5 10.20.0.2",
        "echo x >> /etc/hosts",
        "echo hello | nc -l -p 80 -w 5 >/dev/null & sleep 0.3; nc -w 5 127.0.0.1 80 </dev/null | grep hello",
        "touch /etc/new /bin/new /new; mkdir -p /var/lib/thing; chown 0:0 /new; chmod 600 /new",
        "mkfifo /tmp/f; ln -s /x /tmp/l; ln /new /newer",
    ];
    for command in works {
        activity.shell(command).await;
    }
    activity.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    let rig = Rig::new();
    let mut config = rig.config(&rig.busybox_image());
    config.limits.processes = Some(40);
    config.limits.memory = Some(64 << 20);
    config.limits.open_files = Some(64);
    let activity = rig.spawn(config).await;
    assert_ok(&activity.script(&deploy_and_start(&[]), vec![]).await);
    assert_eq!(activity.shell("ulimit -n").await.trim(), "64");
    activity.shell_fails("i=0; while [ $i -lt 100 ]; do sleep 600 & i=$((i+1)); done").await;
    let results = activity.script(&rig::run("/bin/ls", &["/proc"]), vec![]).await;
    let processes = results[0].stdout.as_ref().unwrap().lines();
    let processes = processes.filter(|line| line.parse::<u32>().is_ok()).count();
    assert!((20..=42).contains(&processes), "{processes}");
    activity.unit.terminate().await;

    let mut config = rig.config(&rig.busybox_image());
    config.limits.memory = Some(64 << 20);
    let activity = rig.spawn(config).await;
    assert_ok(&activity.script(&deploy_and_start(&[]), vec![]).await);
    activity
        .shell("awk 'BEGIN { s = \"x\"; for (i = 0; i < 20; i++) s = s s; print length(s) }'")
        .await;
    activity
        .shell_fails("awk 'BEGIN { s = \"x\"; for (i = 0; i < 28; i++) s = s s; print length(s) }'")
        .await;
    activity
        .shell_fails(
            "dd if=/dev/zero of=/tmp/big bs=1M count=128 && [ $(wc -c < /tmp/big) -gt 100000000 ]",
        )
        .await;
    activity.shell("rm -f /tmp/big; echo fine").await;
    activity.unit.terminate().await;
}
