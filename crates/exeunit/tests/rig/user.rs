//! Running a test again as a user without any privilege.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Runs `test` of the present test program as an ordinary user with a TUN node of its own.
pub fn run_as_ordinary_user(test: &str) {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let tun = directory.path().join("tun");
    let made =
        Command::new("mknod").args(["-m", "666"]).arg(&tun).args(["c", "10", "200"]).status();
    assert!(made.unwrap().success());
    let copy = |from: &Path, name: &str| {
        let to = directory.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        to
    };
    let exeunit = copy(Path::new(env!("CARGO_BIN_EXE_gvpn-exeunit")), "exeunit");
    let program = copy(&std::env::current_exe().unwrap(), "test");
    let home = directory.path().join("home");
    fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(61234), Some(61234)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=61234", "--regid=61234", "--clear-groups"])
        .arg(program)
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env("GVPN_TEST_EXEUNIT", exeunit)
        .env("GVPN_TUN", tun)
        .env("TMPDIR", &home)
        .current_dir("/")
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
}
