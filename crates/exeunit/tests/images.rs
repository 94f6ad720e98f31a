//! Images of every kind, good and bad.

mod rig;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use flate2::{Compression, write::GzEncoder};
use gvpn_model::ResultKind;
use rig::{
    Rig, assert_ok, deploy_and_start,
    user::{run_as_ordinary_user, run_as_user_with_ids},
};
use tar::{Builder, EntryType, Header};

fn tool(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}

async fn deploys(rig: &Rig, image: &Path) {
    let activity = rig.spawn(rig.config(image)).await;
    assert_ok(&activity.script(&deploy_and_start(&[]), vec![]).await);
    assert_eq!(activity.shell("id -u; cat /root/mark").await, "0\nhere\n");
    assert_eq!(activity.shell("stat -c '%a %u %g' /root/odd").await, "4711 0 0\n");
    activity.shell("echo x > /root/mark; rm -r /etc; touch /new; chown 0:0 /root/mark").await;
    activity.unit.terminate().await;
}

async fn refused(rig: &Rig, image: &Path) -> String {
    let activity = rig.spawn(rig.config(image)).await;
    let results = activity.script(&deploy_and_start(&[]), vec![]).await;
    assert_eq!((results.len(), results[0].result), (1, ResultKind::Error), "{}", image.display());
    let again = activity.script(&deploy_and_start(&[]), vec![]).await;
    assert_eq!(again[0].message, results[0].message, "a second attempt fails for the same reason");
    activity.unit.terminate().await;
    assert!(!activity.workdir.exists());
    results[0].message.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_unpacked_once_and_shared() {
    let rig = Rig::new();
    let root = rig.busybox_image();
    fs::write(root.join("root/mark"), "here\n").unwrap();
    fs::write(root.join("root/odd"), "").unwrap();
    tool("chmod", &["4711", root.join("root/odd").to_str().unwrap()]);
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let (tar, gz, squashfs) = (rig.path("i.tar"), rig.path("i.tgz"), rig.path("i.squashfs"));
    let owner = ["--owner=0", "--group=0", "--numeric-owner"];
    tool("tar", &[&["-C", &text(&root)][..], &owner, &["-cf", &text(&tar), "."]].concat());
    tool("tar", &[&["-C", &text(&root)][..], &owner, &["-czf", &text(&gz), "."]].concat());
    tool("mksquashfs", &[&text(&root), &text(&squashfs), "-all-root", "-no-progress"]);
    for image in [&root, &tar, &gz, &squashfs] {
        deploys(&rig, image).await;
    }
    // Again, and two at once: what one payload does to its root is not seen by another.
    tokio::join!(deploys(&rig, &tar), deploys(&rig, &squashfs), deploys(&rig, &tar));
    let stored = fs::read_dir(rig.path("images")).unwrap().flatten();
    assert_eq!(stored.filter(|entry| entry.path().is_dir()).count(), 4);
}

#[test]
fn every_kind_is_unpacked_for_an_ordinary_user() {
    run_as_ordinary_user("every_kind_is_unpacked_once_and_shared");
}

/// A tar archive made by hand: names that the `tar` crate would not write.
struct Hostile(Vec<u8>);

impl Hostile {
    fn entry(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn write(mut self, to: &Path) {
        self.0.extend_from_slice(&[0; 1024]);
        fs::write(to, self.0).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_images_are_refused() {
    let rig = Rig::new();
    let image = rig.path("hostile.tar");
    let outside = rig.path("outside");
    let start = || Hostile(vec![]).entry(EntryType::Directory, "etc/", "", b"");
    let cases = [
        (start().entry(EntryType::Regular, "../outside", "", b"x"), "leads out"),
        (start().entry(EntryType::Regular, "etc/../../outside", "", b"x"), "leads out"),
        (start().entry(EntryType::Link, "l", "../../etc/passwd", b""), "links to"),
        (start().entry(EntryType::Link, "l", "/etc/shadow", b""), "not there"),
        (start().entry(EntryType::Block, "disk", "", b""), "device"),
        (start().entry(EntryType::Char, "etc/mem", "", b""), "device"),
        (start().entry(EntryType::Link, "d", "etc", b""), "directory"),
    ];
    for (archive, reason) in cases {
        archive.write(&image);
        let message = refused(&rig, &image).await;
        assert!(message.contains(reason), "{reason}: {message}");
    }
    // A link out of the tree and a file through it: the link leads nowhere outside.
    let target = outside.to_str().unwrap();
    let through = start()
        .entry(EntryType::Symlink, "out", "/", b"")
        .entry(EntryType::Symlink, "up", target, b"")
        .entry(EntryType::Regular, "up", "", b"x")
        .entry(EntryType::Regular, &format!("out{target}"), "", b"x");
    through.write(&image);
    let activity = rig.spawn(rig.config(&image)).await;
    activity.script(&deploy_and_start(&[]), vec![]).await;
    activity.unit.terminate().await;
    assert!(!outside.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_images_are_refused() {
    let rig = Rig::new();
    let root = rig.busybox_image();
    let squashfs = rig.path("i.squashfs");
    tool("mksquashfs", &[root.to_str().unwrap(), squashfs.to_str().unwrap(), "-no-progress"]);
    let good = fs::read(&squashfs).unwrap();
    let bad = rig.path("bad");
    let mut cases = vec![
        ("empty", vec![]),
        ("noise", vec![7; 5000]),
        ("zeros", vec![0; 5000]),
        ("cut squashfs", good[..good.len() / 2].to_vec()),
        ("a squashfs head", good[..96].to_vec()),
        ("cut gzip", gzip(&[1; 100_000])[..50].to_vec()),
        ("gzip of noise", gzip(&[9; 5000])),
    ];
    let mut broken = good.clone();
    for byte in &mut broken[200..good.len() - 200] {
        *byte ^= 0x5a;
    }
    cases.push(("broken squashfs", broken));
    let mut header = good;
    header[8..96].fill(0xff);
    cases.push(("squashfs with a wild head", header));
    for (name, bytes) in cases {
        fs::write(&bad, bytes).unwrap();
        let message = refused(&rig, &bad).await;
        assert!(message.contains("image") || message.contains("bad"), "{name}: {message}");
    }
    refused(&rig, &rig.path("nothing-here")).await;
    refused(&rig, Path::new("/dev/zero")).await;
    refused(&rig, Path::new(&format!("hash:sha3:{}:{}", "0".repeat(56), squashfs.display()))).await;
    refused(&rig, Path::new("hash:md5:00:x")).await;
    let left = fs::read_dir(rig.path("images")).unwrap().flatten();
    assert_eq!(left.filter(|entry| entry.path().is_dir()).count(), 0);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(vec![], Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_does_not_fill_the_disk() {
    let rig = Rig::new();
    let bomb = rig.path("bomb.tgz");
    let mut archive =
        Builder::new(GzEncoder::new(File::create(&bomb).unwrap(), Compression::best()));
    let mut header = Header::new_gnu();
    header.set_size(300 << 20);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    archive
        .append_data(&mut header, "zeros", std::io::Read::take(std::io::repeat(0), 300 << 20))
        .unwrap();
    archive.into_inner().unwrap().finish().unwrap();
    assert!(fs::metadata(&bomb).unwrap().len() < 4 << 20);
    let mut config = rig.config(&bomb);
    config.limits.storage = Some(64 << 20);
    let activity = rig.spawn(config).await;
    let results = activity.script(&deploy_and_start(&[]), vec![]).await;
    let message = results[0].message.clone().unwrap();
    assert!(message.contains("more than"), "{message}");
    activity.unit.terminate().await;
}

#[test]
fn every_kind_is_unpacked_for_a_user_with_ids() {
    run_as_user_with_ids("every_kind_is_unpacked_once_and_shared");
}
