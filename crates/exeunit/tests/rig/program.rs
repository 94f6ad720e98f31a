//! The runtime that is a program, for tests.

use std::{
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::Rig;

impl Rig {
    /// The program that behaves in this way; see `programs/runtime.py`.
    pub fn runtime_program(&self, mode: &str) -> PathBuf {
        let script = self.path("runtime.py");
        if !script.exists() {
            write_script(&script);
        }
        let program = self.path(&format!("runtime-{mode}"));
        let _ = symlink(&script, &program);
        program
    }
}

/// Written by another process: what this one holds open for writing cannot be executed.
fn write_script(path: &Path) {
    let mut shell = Command::new("sh")
        .args(["-c", "cat > $0.new; chmod 755 $0.new; mv $0.new $0"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let script = include_bytes!("../programs/runtime.py");
    shell.stdin.take().unwrap().write_all(script).unwrap();
    assert!(shell.wait().unwrap().success());
}
