//! Container images that are damaged or hostile, and what is left of them: nothing.
//!
//! Needs runc or crun, busybox-static, and user namespaces; the full disk also root.

mod rig;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use gvpn_exeunit::ExeUnitConfig;
use gvpn_model::{NetworkId, ResultKind};
use nix::sys::{
    signal::{Signal, kill},
    stat::Mode,
};
use rig::{
    Rig, assert_ok, deploy_and_start,
    family::{family, wait_until_gone},
    network,
    oci::{Image, Layer, Packing, archive, sha256},
    user::{run_as_ordinary_user, run_as_user_with_ids, run_on_a_small_disk},
};
use serde_json::{Value, json};
use tar::EntryType;

const FILE: (u64, u32) = (0, 0o644);

fn config(rig: &Rig, image: &Path) -> ExeUnitConfig {
    ExeUnitConfig { runtime: "container".to_owned(), ..rig.config(image) }
}

/// Expects that an image is refused, twice for the same reason, and that nothing of it stays.
async fn refused(rig: &Rig, config: ExeUnitConfig, reason: &str) {
    let image = config.image.clone().unwrap();
    let kept = stored(rig);
    let activity = rig.spawn(config).await;
    let results = activity.script(&deploy_and_start(&[]), vec![]).await;
    let message = results[0].message.clone().unwrap_or_default();
    assert!(
        results.len() == 1 && results[0].result == ResultKind::Error && message.contains(reason),
        "{reason}: {results:#?}"
    );
    assert!(message.contains(&image), "the image is named: {message}");
    let again = activity.script(&deploy_and_start(&[]), vec![]).await;
    assert_eq!(again[0].message, results[0].message, "a second attempt fails for the same reason");
    activity.unit.terminate().await;
    assert!(!activity.workdir.exists(), "{reason}");
    assert_eq!(stored(rig), kept, "{reason}: nothing is stored");
}

fn stored(rig: &Rig) -> Vec<PathBuf> {
    let entries = fs::read_dir(rig.path("images")).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    all.sort();
    all
}

fn small() -> Image {
    Image::new(json!({})).layer(Layer::new().file("etc/motd", "hello"), Packing::Gzip)
}

#[tokio::test(flavor = "multi_thread")]
async fn images_whose_parts_do_not_fit_are_refused() {
    let rig = Rig::new();
    type Spoil = fn(&mut Image);
    let cases: [(Spoil, &str); 15] = [
        (|image| image.spoil_layer = |bytes| bytes[20] ^= 1, "digest of its layer is wrong"),
        (|image| image.spoil_layer = |bytes| bytes.truncate(30), "bytes, not"),
        (|image| image.spoil_layer = |bytes| bytes.extend([0; 9]), "bytes, not"),
        (
            |image| image.spoil_config = |c| c["rootfs"]["diff_ids"][0] = wrong_digest(),
            "digest of its unpacked layer is wrong",
        ),
        (|image| image.spoil_config = |c| c["rootfs"]["diff_ids"] = json!([]), "has 1 layers"),
        (|image| image.spoil_config = |c| c["rootfs"] = Value::Null, "names no layers"),
        (|image| image.spoil_config = |c| c["architecture"] = json!("s390x"), "linux/s390x"),
        (|image| image.spoil_config = |c| c["os"] = json!("plan9"), "plan9"),
        (|image| image.spoil_manifest = |m| m["config"] = Value::Null, "no configuration"),
        (
            |image| image.spoil_manifest = |m| m["config"]["digest"] = wrong_digest(),
            "its configuration is missing",
        ),
        (
            |image| image.spoil_manifest = |m| m["config"]["mediaType"] = json!("x/wasm"),
            "media type that is not known here: `x/wasm`",
        ),
        (
            |image| {
                image.spoil_manifest =
                    |m| m["layers"][0]["mediaType"] = json!("application/x-lzip");
            },
            "media type that is not known here: `application/x-lzip`",
        ),
        (
            |image| image.spoil_manifest = |m| m["layers"][0]["digest"] = json!("md5:00"),
            "not a SHA-256 digest",
        ),
        (
            |image| {
                image.spoil_index =
                    |i| i["manifests"][0]["digest"] = json!("sha256:../../../etc/passwd");
            },
            "not a SHA-256 digest",
        ),
        (|image| image.spoil_index = |i| i["manifests"] = json!([]), "holds no image"),
    ];
    for (n, (spoil, reason)) in cases.into_iter().enumerate() {
        let mut image = small();
        spoil(&mut image);
        let layout = rig.path(&format!("image-{n}"));
        image.write_layout(&layout);
        refused(&rig, config(&rig, &layout), reason).await;
        // As an archive it is no better.
        let packed = rig.path(&format!("image-{n}.tar"));
        archive(&layout, &packed, Packing::Plain);
        refused(&rig, config(&rig, &packed), reason).await;
    }
}

fn wrong_digest() -> Value {
    json!(format!("sha256:{}", "0".repeat(64)))
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_that_reach_out_are_refused() {
    let rig = Rig::new();
    let file = |name: &str| Layer::new().entry(EntryType::Regular, name, "", b"x", FILE);
    let link = |name: &str, to: &str| Layer::new().entry(EntryType::Link, name, to, b"", FILE);
    let cases = [
        (file("../outside"), "leads out"),
        (file("etc/../../outside"), "leads out"),
        (file("etc/.wh.."), "removes no name"),
        (file("../.wh.passwd"), "leads out"),
        (link("l", "../../etc/passwd"), "links to"),
        (link("l", "/etc/shadow"), "not there"),
        (Layer::new().entry(EntryType::Block, "disk", "", b"", FILE), "device"),
        // What overlayfs takes for a removed name is not for an image to make.
        (Layer::new().entry(EntryType::Char, "etc/passwd", "", b"", FILE), "device"),
    ];
    for (n, (layer, reason)) in cases.into_iter().enumerate() {
        let layout = rig.path(&format!("image-{n}"));
        Image::new(json!({})).layer(layer, Packing::Plain).write_layout(&layout);
        refused(&rig, config(&rig, &layout), reason).await;
    }
    // Links out of the tree, and files through them: they lead nowhere outside.
    let outside = rig.path("outside");
    let target = outside.to_str().unwrap();
    let hostile = Layer::new()
        .entry(EntryType::Symlink, "out", "/", b"", FILE)
        .entry(EntryType::Symlink, "up", target, b"", FILE)
        .entry(EntryType::Regular, &format!("out{target}"), "", b"x", FILE)
        .entry(EntryType::Symlink, "relative", "../../../../../../../..", b"", FILE)
        .entry(EntryType::Regular, &format!("relative{target}"), "", b"x", FILE);
    let mounts = Layer::new()
        .entry(EntryType::Symlink, "proc", "/etc", b"", FILE)
        .entry(EntryType::Symlink, "dev", target, b"", FILE)
        .entry(EntryType::Symlink, "etc/hosts", target, b"", FILE);
    for (name, layer) in [("hostile", hostile), ("mounts", mounts)] {
        let layout = rig.path(name);
        let image = Image::new(json!({ "WorkingDir": "/up/../../made" }));
        image.layer(layer, Packing::Plain).write_layout(&layout);
        let activity = rig.spawn(config(&rig, &layout)).await;
        activity.script(&deploy_and_start(&[]), vec![]).await;
        activity.unit.terminate().await;
        assert!(!outside.exists() && !Path::new("/made").exists(), "{name}");
        assert!(!activity.workdir.exists());
    }
}

#[test]
fn layers_that_reach_out_of_an_ordinary_users_store_are_refused() {
    run_as_ordinary_user("layers_that_reach_out_are_refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_no_files_are_refused() {
    let rig = Rig::new();
    let layout = rig.path("links");
    small().write_layout(&layout);
    let blobs = layout.join("blobs/sha256");
    // The digests are right; the bytes are not the layout's.
    for blob in fs::read_dir(&blobs).unwrap().flatten() {
        let elsewhere = rig.path(blob.file_name().to_str().unwrap());
        fs::rename(blob.path(), &elsewhere).unwrap();
        symlink(elsewhere, blob.path()).unwrap();
    }
    refused(&rig, config(&rig, &layout), "its manifest is missing").await;
    let layout = rig.path("pipe");
    let mut image = small();
    image.spoil_index = |i| i["manifests"][0]["size"] = json!(0);
    image.write_layout(&layout);
    let index: Value =
        serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    let blob = layout.join("blobs/sha256").join(digest);
    fs::remove_file(&blob).unwrap();
    nix::unistd::mkfifo(&blob, Mode::from_bits_truncate(0o644)).unwrap();
    refused(&rig, config(&rig, &layout), "not a regular file").await;
    let layout = rig.path("large");
    small().write_layout(&layout);
    fs::File::create(layout.join("index.json")).unwrap().set_len(1 << 40).unwrap();
    refused(&rig, config(&rig, &layout), "larger than").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_that_break_off_are_refused() {
    let rig = Rig::new();
    let docker = rig.path("docker.tar");
    small().write_docker(&docker);
    let good = fs::read(&docker).unwrap();
    let bad = rig.path("bad.tar");
    for length in [good.len() - 1024 - 600, good.len() / 2, 700] {
        fs::write(&bad, &good[..length]).unwrap();
        refused(&rig, config(&rig, &bad), "refused").await;
    }
    // The configuration is named by its digest.
    let at = good.windows(5).position(|bytes| bytes == b"linux").unwrap();
    let mut changed = good.clone();
    changed[at..at + 5].copy_from_slice(b"LINUX");
    fs::write(&bad, &changed).unwrap();
    refused(&rig, config(&rig, &bad), "digest of its configuration is wrong").await;
    let at = good.windows(5).position(|bytes| bytes == b"hello").unwrap();
    let mut changed = good.clone();
    changed[at] ^= 1;
    fs::write(&bad, &changed).unwrap();
    refused(&rig, config(&rig, &bad), "digest of its unpacked layer is wrong").await;
    let zst = zstd::encode_all(good.as_slice(), 1).unwrap();
    fs::write(&bad, &zst[..zst.len() / 2]).unwrap();
    refused(&rig, config(&rig, &bad), "bad.tar").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_do_not_fill_the_disk() {
    let rig = Rig::new();
    let zeros = |mib: usize| {
        let content = vec![0; mib << 20];
        Layer::new().entry(EntryType::Regular, "zeros", "", &content, FILE)
    };
    let limited = |image: &Path| {
        let mut config = config(&rig, image);
        config.limits.storage = Some(64 << 20);
        config
    };
    for (name, packing) in [("gzip", Packing::Gzip), ("zstd", Packing::Zstd)] {
        let layout = rig.path(name);
        Image::new(json!({})).layer(zeros(100), packing).write_layout(&layout);
        refused(&rig, limited(&layout), "more than").await;
    }
    // Each layer fits, both do not.
    let layout = rig.path("two");
    let second = Layer::new().entry(EntryType::Regular, "more", "", &vec![0; 40 << 20], FILE);
    Image::new(json!({}))
        .layer(second, Packing::Gzip)
        .layer(zeros(50), Packing::Gzip)
        .write_layout(&layout);
    let activity = rig.spawn(limited(&layout)).await;
    let results = activity.script(&deploy_and_start(&[]), vec![]).await;
    assert!(results[0].message.as_ref().unwrap().contains("more than"), "{results:#?}");
    activity.unit.terminate().await;
    // An archive that is one itself.
    let plain = rig.path("plain");
    Image::new(json!({})).layer(zeros(100), Packing::Plain).write_layout(&plain);
    for (name, packing) in [("bomb.tgz", Packing::Gzip), ("bomb.tzst", Packing::Zstd)] {
        let bomb = rig.path(name);
        archive(&plain, &bomb, packing);
        assert!(fs::metadata(&bomb).unwrap().len() < 4 << 20);
        refused(&rig, limited(&bomb), "more than").await;
    }
    // What follows a layer's end counts too.
    let mut trailing = zeros(1).bytes();
    trailing.resize(trailing.len() + (100 << 20), 0);
    let layout = rig.path("trailing");
    Image::raw(trailing, Packing::Gzip).write_layout(&layout);
    refused(&rig, limited(&layout), "more").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_shared_only_when_they_are_the_same() {
    let rig = Rig::new();
    let busybox = || Layer::new().tree(&rig.busybox_image());
    let image = |mark: &str| {
        Image::new(json!({}))
            .layer(busybox(), Packing::Gzip)
            .layer(Layer::new().file("root/mark", mark), Packing::Gzip)
    };
    let (one, two) = (rig.path("one"), rig.path("two"));
    image("one").write_layout(&one);
    image("two").write_layout(&two);
    let first = rig.spawn(config(&rig, &one)).await;
    let second = rig.spawn(config(&rig, &two)).await;
    for activity in [&first, &second] {
        assert_ok(&activity.script(&deploy_and_start(&[]), vec![]).await);
    }
    assert_eq!(stored(&rig).len(), 3);
    let digest = sha256(&busybox().bytes());
    assert!(stored(&rig).iter().any(|path| path.to_str().unwrap().contains(&digest)));
    first.shell("echo mine > /root/mark; rm /bin/vi; echo x >> /bin/busybox || true").await;
    assert_eq!(second.shell("cat /root/mark; ls /bin/vi").await, "two/bin/vi\n");
    for activity in [&first, &second] {
        activity.unit.terminate().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_exeunit_leaves_nothing_of_a_container() {
    let rig = Rig::new();
    let layout = rig.path("layout");
    Image::new(json!({ "Cmd": ["/bin/sleep", "1000"] }))
        .layer(Layer::new().tree(&rig.busybox_image()), Packing::Plain)
        .write_layout(&layout);
    let net = NetworkId::random();
    let mut both = vec![];
    for n in [2, 3] {
        let activity = rig.spawn(config(&rig, &layout)).await;
        let networks = vec![network(net, n)];
        assert_ok(&activity.script(&deploy_and_start(&networks), networks).await);
        both.push(activity);
    }
    let (bystander, victim) = (both.pop().unwrap(), both.pop().unwrap());
    victim
        .shell("for i in 1 2 3; do setsid sh -c 'trap \"\" TERM HUP INT; sleep 1000' & done")
        .await;
    victim
        .shell("mkdir -p /secret/dir; chmod 000 /secret; dd if=/dev/zero of=/big bs=1M count=4")
        .await;
    let pids = family(victim.unit.pid());
    assert!(pids.len() >= 9, "{pids:?}");
    kill(nix::unistd::Pid::from_raw(victim.unit.pid() as i32), Signal::SIGKILL).unwrap();
    assert!(victim.gone().await.unwrap().contains("killed"));
    wait_until_gone(&pids);
    assert!(!victim.workdir.exists());
    // Nobody sees its directories any more, and the OCI runtime keeps no state of it.
    let activity = victim.workdir.file_name().unwrap().to_str().unwrap();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let seen = fs::read_to_string(process.path().join("mountinfo")).unwrap_or_default();
        assert!(!seen.contains(activity), "{:?}: {seen}", process.path());
    }
    for place in ["/run/runc", "/run/crun"] {
        assert!(fs::read_dir(place).map_or(0, Iterator::count) == 0, "{place}");
    }
    bystander.shell("ping -c 1 -W 5 10.20.0.3").await;
    bystander.unit.terminate().await;
    assert_eq!(fs::read_dir(rig.path("activities")).unwrap().count(), 0);
}

#[test]
fn a_killed_exeunit_of_a_user_with_ids_leaves_nothing_of_a_container() {
    run_as_user_with_ids("a_killed_exeunit_leaves_nothing_of_a_container");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the next test runs it, on a small disk"]
async fn on_a_small_disk() {
    let rig = Rig::new();
    let layout = rig.path("busybox-layout");
    Image::new(json!({}))
        .layer(Layer::new().tree(&rig.busybox_image()), Packing::Gzip)
        .write_layout(&layout);
    let bystander = rig.spawn(config(&rig, &layout)).await;
    assert_ok(&bystander.script(&deploy_and_start(&[]), vec![]).await);
    let large = rig.path("large");
    let zeros = Layer::new().entry(EntryType::Regular, "zeros", "", &vec![0; 60 << 20], FILE);
    Image::new(json!({})).layer(zeros, Packing::Gzip).write_layout(&large);
    refused(&rig, config(&rig, &large), "No space left on device").await;
    for runtime in ["container", "sandbox"] {
        let activity =
            rig.spawn(ExeUnitConfig { runtime: runtime.into(), ..config(&rig, &layout) }).await;
        assert_ok(&activity.script(&deploy_and_start(&[]), vec![]).await);
        let result = activity.shell_fails("dd if=/dev/zero of=/big bs=1M count=100").await;
        assert!(result.stderr.unwrap().contains("No space left"));
        // Full as it is, everything that runs can be asked, and ended.
        assert_eq!(bystander.shell("echo fine").await, "fine\n");
        assert_eq!(activity.shell("echo fine; rm /big").await, "fine\n");
        activity.unit.terminate().await;
        assert!(!activity.workdir.exists());
    }
    bystander.unit.terminate().await;
}

#[test]
fn a_full_disk_is_told_and_touches_nobody_else() {
    run_on_a_small_disk("on_a_small_disk", 48);
}
