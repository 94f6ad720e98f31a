//! The container runtime: real container images, run by the OCI runtime of this host.
//!
//! Needs runc or crun, busybox-static, and user namespaces; the tests that become other users need root.

mod rig;

use std::{fs, path::Path, time::Duration};

use gvpn_exeunit::ExeUnitConfig;
use gvpn_model::{NetworkId, ResultKind};
use rig::{
    Activity, PATIENCE, Rig, assert_ok, deploy_and_start, network,
    oci::{Image, Layer, Packing, archive},
    user::{run_as_ordinary_user, run_as_user_with_ids},
};
use serde_json::json;

/// A container image with busybox.
fn busybox(rig: &Rig) -> Image {
    Image::new(json!({ "Env": ["GREETING=hello", "COLOUR=red"], "Cmd": ["/bin/sh"] }))
        .layer(Layer::new().tree(&rig.busybox_image()), Packing::Gzip)
}

fn config(rig: &Rig, image: &Path) -> ExeUnitConfig {
    ExeUnitConfig { runtime: "container".to_owned(), ..rig.config(image) }
}

/// A container with busybox, in these networks.
async fn ready(rig: &Rig, networks: Vec<gvpn_exeunit::NetworkConfig>) -> Activity {
    let layout = rig.path("layout");
    if !layout.exists() {
        busybox(rig).write_layout(&layout);
    }
    let activity = rig.spawn(config(rig, &layout)).await;
    assert_ok(&activity.script(&deploy_and_start(&networks), networks).await);
    activity
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_run_with_output_and_exit_codes() {
    let rig = Rig::new();
    let activity = ready(&rig, vec![]).await;
    assert_eq!(activity.shell("id -u; pwd; echo $GREETING").await, "0\n/\nhello\n");
    let result = activity.shell_fails("echo out; echo err >&2; exit 3").await;
    assert_eq!(
        (result.stdout.as_deref(), result.stderr.as_deref()),
        (Some("out\n"), Some("err\n"))
    );
    assert!(result.message.unwrap().contains("code 3"));
    let result = activity.shell_fails("kill -9 $$").await;
    assert!(result.message.unwrap().contains("137"));
    let missing = activity.script(&rig::run("/bin/nothing", &[]), vec![]).await;
    assert_eq!(missing[0].result, ResultKind::Error);
    let message = missing[0].message.as_ref().unwrap();
    assert!(message.contains("/bin/nothing") && message.contains("no such file"), "{message}");
    // What a program leaves behind goes on; it does not keep the command from ending.
    activity.shell("(while sleep 0.1; do date > /root/alive; done) & echo started").await;
    activity.shell("rm -f /root/alive").await;
    activity.shell_until("[ -e /root/alive ]").await;
    // Orphans are reaped.
    activity.shell("i=0; while [ $i -lt 20 ]; do (true &) ; i=$((i+1)); done").await;
    activity.shell_until("! ps -o stat | grep -q Z").await;
    activity.unit.terminate().await;
    assert!(!activity.workdir.exists());
}

#[test]
fn programs_run_for_an_ordinary_user() {
    run_as_ordinary_user("programs_run_with_output_and_exit_codes");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_images_wishes_are_heeded() {
    let rig = Rig::new();
    let passwd = "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n";
    let command = "echo $0 $1 $GREETING $COLOUR $(id -u):$(id -g) $HOME $PWD > said; sleep 1000";
    let mut image = busybox(&rig).layer(
        Layer::new().directory("etc/", 0).file("etc/passwd", passwd).directory("srv/", 33),
        Packing::Zstd,
    );
    image.config["User"] = json!("web");
    image.config["WorkingDir"] = json!("/srv");
    image.config["Entrypoint"] = json!(["/bin/sh", "-c", command]);
    image.config["Cmd"] = json!(["served", "well"]);
    let layout = rig.path("image");
    image.write_layout(&layout);
    let activity = rig.spawn(config(&rig, &layout)).await;
    let script = json!([{ "deploy": { "env": { "COLOUR": "blue" } } }, { "start": {} }]);
    assert_ok(&activity.script(&script.to_string(), vec![]).await);
    let said = activity.shell_until("cat /srv/said | grep .").await;
    assert_eq!(said, "served well hello blue 33:34 /srv /srv\n");
    assert_eq!(activity.shell("id -u; pwd; echo $COLOUR").await, "33\n/srv\nblue\n");
    activity.shell_fails("echo x > /etc/passwd").await;
    activity.unit.terminate().await;

    let activity = rig.spawn(config(&rig, &layout)).await;
    let script = json!([{ "deploy": {} }, { "start": { "args": ["other", "words"] } }]);
    assert_ok(&activity.script(&script.to_string(), vec![]).await);
    let said = activity.shell_until("cat /srv/said | grep .").await;
    assert!(said.starts_with("other words hello red"), "{said}");
    activity.unit.terminate().await;
}

#[test]
fn the_images_wishes_are_heeded_for_a_user_with_ids() {
    run_as_user_with_ids("the_images_wishes_are_heeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn wishes_that_cannot_be_met_are_told() {
    let rig = Rig::new();
    let cases = [
        (json!({ "User": "nobody" }), "no user `nobody`"),
        (json!({ "User": "root:people" }), "no group `people`"),
        (json!({ "Entrypoint": ["/bin/missing", "x"] }), "/bin/missing"),
        (json!({ "WorkingDir": "/etc/passwd/below" }), "working directory"),
    ];
    for (n, (wish, reason)) in cases.into_iter().enumerate() {
        let mut image = busybox(&rig);
        image.config = wish;
        let layout = rig.path(&format!("image-{n}"));
        image.write_layout(&layout);
        let activity = rig.spawn(config(&rig, &layout)).await;
        let results = activity.script(&deploy_and_start(&[]), vec![]).await;
        let message = results.last().unwrap().message.clone().unwrap_or_default();
        assert!(results.len() == 2 && message.contains(reason), "{reason}: {results:#?}");
        activity.unit.terminate().await;
        assert!(!activity.workdir.exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_of_an_image_is_the_same() {
    let rig = Rig::new();
    let bottom = Layer::new()
        .tree(&rig.busybox_image())
        .file("root/gone", "x")
        .directory("tmp/", 0)
        .directory("hidden/", 0)
        .file("hidden/below", "x")
        .directory("replaced/", 0)
        .file("replaced/below", "x");
    let middle = Layer::new()
        .file("root/.wh.gone", "")
        .file("root/.wh.never", "")
        .directory("hidden/", 0)
        .file("hidden/.wh..wh..opq", "")
        .file("hidden/new", "x")
        .file(".wh.replaced", "")
        .directory("replaced/", 0)
        .file("replaced/new", "x");
    let top = Layer::new().file("root/mark", "top\n").entry(
        tar::EntryType::Link,
        "root/again",
        "root/mark",
        b"",
        (0, 0o644),
    );
    let image = Image::new(json!({ "Env": ["A=1"] }))
        .layer(bottom, Packing::Gzip)
        .layer(middle, Packing::Zstd)
        .layer(top, Packing::Plain);
    let (layout, docker) = (rig.path("layout"), rig.path("docker.tar"));
    image.write_layout(&layout);
    image.write_docker(&docker);
    let (tar, gz, zst) = (rig.path("oci.tar"), rig.path("oci.tgz"), rig.path("docker.tar.zst"));
    archive(&layout, &tar, Packing::Plain);
    archive(&layout, &gz, Packing::Gzip);
    fs::write(&zst, zstd::encode_all(fs::File::open(&docker).unwrap(), 1).unwrap()).unwrap();
    let check = "cat /root/mark /root/again; ls /hidden /replaced; ls -a /root | grep -e wh -e gone; \
                 echo $A; rm /root/mark /bin/vi; rm -r /hidden; ls /";
    let mut seen = vec![];
    for runtime in ["container", "sandbox"] {
        for form in [&layout, &docker, &tar, &gz, &zst] {
            let mut config = config(&rig, form);
            config.runtime = runtime.to_owned();
            let activity = rig.spawn(config).await;
            assert_ok(&activity.script(&deploy_and_start(&[]), vec![]).await);
            let text = activity.shell(check).await;
            let begin = "top\ntop\n/hidden:\nnew\n\n/replaced:\nnew\n1\n";
            assert!(text.starts_with(begin), "{runtime} {}: {text}", form.display());
            seen.push(text);
            activity.unit.terminate().await;
        }
    }
    assert!(seen.iter().all(|text| *text == seen[0]), "{seen:#?}");
    // Each layer was unpacked once for all of them.
    let stored = fs::read_dir(rig.path("images")).unwrap().flatten();
    assert_eq!(stored.filter(|entry| entry.path().is_dir()).count(), 3);
    // Root file systems that are no container images can be run too.
    let activity = rig.spawn(config(&rig, &rig.busybox_image())).await;
    assert_ok(&activity.script(&deploy_and_start(&[]), vec![]).await);
    activity.shell("true").await;
    activity.unit.terminate().await;
}

#[test]
fn every_form_of_an_image_is_the_same_for_an_ordinary_user() {
    run_as_ordinary_user("every_form_of_an_image_is_the_same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_in_the_network() {
    let rig = Rig::new();
    let (net, other) = (NetworkId::random(), NetworkId::random());
    let activity = ready(&rig, vec![network(net, 2)]).await;
    let neighbour = rig.ready(vec![network(net, 3)]).await;
    assert_eq!(activity.shell("ls /sys/class/net").await, "eth0\nlo\n");
    activity.shell_until("ping -c 1 -W 2 10.20.0.3 && ping -c 1 -W 2 fd20::3").await;
    neighbour.shell_until("ping -c 1 -W 2 10.20.0.2").await;
    assert!(activity.shell("cat /etc/hosts").await.contains("10.20.0.2\tpeer2"));
    assert!(activity.shell("cat /etc/resolv.conf").await.contains("nameserver 10.20.0.1"));
    // Another address and name, another network, and that one gone again, while a program runs.
    activity.shell("sleep 1000 & echo $! > /root/pid").await;
    let mut changed = network(net, 2);
    changed.addresses = vec!["10.20.0.77/24".parse().unwrap()];
    changed.hosts = vec![("elsewhere".into(), "10.20.0.3".parse().unwrap())];
    activity.unit.reconfigure(changed);
    activity.shell_until("ip addr show dev eth0 | grep 10.20.0.77").await;
    activity.shell_until("ping -c 1 -W 2 elsewhere").await;
    neighbour.shell_until("ping -c 1 -W 2 10.20.0.77").await;
    activity.unit.reconfigure(network(other, 5));
    activity.shell_until("ip link show dev eth1").await;
    activity.unit.remove_network(other);
    activity.shell_until("! ip link show dev eth1").await;
    activity.shell("kill -0 $(cat /root/pid)").await;
    neighbour.unit.terminate().await;
    activity.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_and_out() {
    let rig = Rig::new();
    let activity = ready(&rig, vec![]).await;
    rig.files.lock().unwrap().insert("gftp://in".into(), b"from outside".to_vec());
    let script = json!([
        { "transfer": { "from": "gftp://in", "to": "container:/deep/er/file" } },
        { "transfer": { "from": "container:/deep/er/file", "to": "container:/etc/other" } },
        { "transfer": { "from": "container:/etc/other", "to": "gftp://out" } },
    ]);
    assert_ok(&activity.script(&script.to_string(), vec![]).await);
    assert_eq!(activity.shell("cat /deep/er/file").await, "from outside");
    assert_eq!(rig.files.lock().unwrap()["gftp://out"], b"from outside");
    activity.shell("ln -s /proc/self/root/../../../etc /out; mkfifo /root/pipe").await;
    for path in ["/root/pipe", "/nothing", "/dev/zero", "/root"] {
        let from = format!("container:{path}");
        let script = json!([{ "transfer": { "from": from, "to": "gftp://no" } }]).to_string();
        let results = activity.script(&script, vec![]).await;
        assert_eq!(results[0].result, ResultKind::Error, "{path}");
    }
    // Links lead nowhere but into the container.
    activity.shell("ln -s /../../../../etc/target /root/link; rm /out").await;
    rig.files.lock().unwrap().insert("gftp://in".into(), b"through a link".to_vec());
    let script =
        json!([{ "transfer": { "from": "gftp://in", "to": "container:/root/link" } }]).to_string();
    assert_ok(&activity.script(&script, vec![]).await);
    assert_eq!(activity.shell("cat /etc/target").await, "through a link");
    assert!(!Path::new("/etc/target").exists());
    activity.unit.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_cannot_reach_the_host() {
    let rig = Rig::new();
    let activity = ready(&rig, vec![network(NetworkId::random(), 2)]).await;
    let processes = activity.shell("ls /proc | grep -c '^[0-9]*$'").await;
    assert!(processes.trim().parse::<u32>().unwrap() <= 6, "{processes}");
    let forbidden = [
        "mount -t tmpfs x /root",
        "umount /proc/sys",
        "umount /etc/hosts",
        "unshare -U true",
        "unshare -m true",
        "readlink /proc/1/root/../..  | grep .",
        "echo x > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo b > /proc/sysrq-trigger",
        "hostname other",
        "mknod /disk b 8 0 && cat /disk",
        "ip link set eth0 down",
        "ip addr add 10.20.0.99/24 dev eth0",
        "wget -T 2 -O - http://192.0.2.1/",
        "nc -w 1 127.0.0.1 22",
        "reboot -f",
        "kill -9 1; sleep 0.2; kill -0 1; [ ! -e /proc/1 ]",
        "nsenter -t 1 -m true",
        "echo x > /dev/.keeper",
        "mkdir /sys/fs/cgroup/x",
    ];
    for command in forbidden {
        activity.shell_fails(command).await;
    }
    assert_eq!(activity.shell("echo fine").await, "fine\n");
    activity.unit.terminate().await;
}

#[test]
fn a_container_of_an_ordinary_user_cannot_reach_the_host() {
    run_as_ordinary_user("a_container_cannot_reach_the_host");
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_measured_and_the_end_is_clean() {
    let rig = Rig::new();
    let activity = ready(&rig, vec![]).await;
    activity.shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done").await;
    activity.unit.poll_usage();
    let deadline = std::time::Instant::now() + PATIENCE;
    let usage = loop {
        if let Some(usage) = activity.seen.lock().unwrap().usage {
            break usage;
        }
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(usage.cpu_sec > 0.0 && usage.memory > 0 && usage.duration_sec > 0.0, "{usage:?}");
    // A process that asks for time gets it; the container's process 1 needs none.
    activity
        .shell("(trap 'echo bye > /root/bye; exit' TERM; while true; do sleep 0.1; done) &")
        .await;
    activity.unit.terminate().await;
    assert!(!activity.workdir.exists());
}
