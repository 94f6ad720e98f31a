//! Running a test again as a user without any privilege.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

const USER: u32 = 61234;

/// Runs `test` of the present test program as an ordinary user with a TUN node of its own.
pub fn run_as_ordinary_user(test: &str) {
    run(test, "");
}

/// The same, for a user whom `/etc/subuid` gives a range of ids.
pub fn run_as_user_with_ids(test: &str) {
    run(
        test,
        "mount --bind $DIR/passwd /etc/passwd; mount --bind $DIR/subid /etc/subuid; \
         mount --bind $DIR/subid /etc/subgid;",
    );
}

/// The same, on a file system of so many MiB for everything that the test writes.
pub fn run_on_a_small_disk(test: &str, mib: u32) {
    let options = format!("size={mib}m,uid={USER},gid={USER},mode=755");
    run(test, &format!("mount -t tmpfs -o {options} small $DIR/home;"));
}

fn run(test: &str, mounts: &str) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let made = Command::new("mknod")
        .args(["-m", "666"])
        .arg(path("tun"))
        .args(["c", "10", "200"])
        .status();
    assert!(made.unwrap().success());
    let copy = |from: &Path, name: &str| {
        fs::copy(from, path(name)).unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    copy(Path::new(env!("CARGO_BIN_EXE_gvpn-exeunit")), "exeunit");
    copy(&std::env::current_exe().unwrap(), "test");
    fs::create_dir(path("home")).unwrap();
    chown(path("home"), Some(USER), Some(USER)).unwrap();
    fs::write(
        path("passwd"),
        format!("root:x:0:0::/root:/bin/sh\ntester:x:{USER}:{USER}::/:/bin/sh\n"),
    )
    .unwrap();
    fs::write(path("subid"), "tester:800000:65536\n").unwrap();
    let script = format!(
        "set -e; {mounts} exec setpriv --reuid={USER} --regid={USER} --clear-groups \
         $DIR/test --exact {test} --nocapture --include-ignored"
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env("DIR", directory.path())
        .env("GVPN_TEST_EXEUNIT", path("exeunit"))
        .env("GVPN_TUN", path("tun"))
        .env("TMPDIR", path("home"))
        .current_dir("/")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
}
