//! Counting by callgrind, so that the count depends on the program and its compiler only.

use std::{io, process::Command};

use crate::operations::CASES;

/// Calls that are counted.
const TIMES: u64 = 100;
/// Calls before them: what is made or looked up once is there then.
const WARM_UP: u64 = 20;

/// The argument that has this program do a case, to be counted.
pub(crate) const DO: &str = "--do";

/// Does a case as the counted program.
pub(crate) fn perform(case: usize) {
    let mut operation = CASES[case].1();
    for _ in 0..WARM_UP {
        operation();
    }
    counted_loop(&mut *operation);
}

/// Callgrind counts what happens in here, and knows it by its name.
#[inline(never)]
fn counted_loop(operation: &mut dyn FnMut()) {
    for _ in 0..TIMES {
        operation();
    }
}

/// Whether valgrind shows programs the processor for which the baseline was counted. On hosts with
/// AVX2 it is the same one everywhere, without AVX-512; ciphers and copying choose their code by it.
pub(crate) fn comparable() -> Result<(), &'static str> {
    #[cfg(target_arch = "x86_64")]
    return if std::is_x86_feature_detected!("avx2") {
        Ok(())
    } else {
        Err("the baseline is for processors with AVX2, and this one lacks it")
    };
    #[cfg(not(target_arch = "x86_64"))]
    Err("the baseline is for x86-64")
}

/// Instructions that a case takes each time.
pub(crate) fn count(case: usize) -> Result<u64, String> {
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=*counted_loop*"])
        .arg(me)
        .args([DO, &case.to_string()])
        // The environment lies on the stack, and what libraries read there changes what they do.
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .output()
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => "valgrind is not there: install Debian's valgrind".into(),
            _ => format!("valgrind does not start: {e}"),
        })?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find_map(|line| line.split_once("Collected : "));
    let total: Option<u64> = line.and_then(|(_, number)| number.trim().parse().ok());
    match total {
        Some(total @ 1..) if output.status.success() => Ok((total + TIMES / 2) / TIMES),
        _ => Err(format!("valgrind counted nothing: {said}")),
    }
}
