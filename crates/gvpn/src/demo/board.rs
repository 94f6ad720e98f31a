//! The lines of the demo and their count.

use std::{
    fmt::Display,
    io::{IsTerminal, Write},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use crate::failure::{Failure, Outcome};

/// Prints a line for each check and counts them.
#[derive(Debug)]
pub(crate) struct Board {
    passed: AtomicU32,
    failed: AtomicU32,
    color: bool,
}

impl Board {
    pub(crate) fn new() -> Self {
        let color = std::io::stdout().is_terminal();
        Self { passed: AtomicU32::new(0), failed: AtomicU32::new(0), color }
    }

    pub(crate) fn title(&self, text: &str) {
        self.line(text);
    }

    /// A check that held, with what was measured.
    pub(crate) fn pass(&self, what: &str, measured: impl Display) {
        self.passed.fetch_add(1, Relaxed);
        self.line(&format!("{}  {what:<44} {measured}", self.mark("ok  ", 32)));
    }

    /// A check that did not hold.
    pub(crate) fn fail(&self, what: &str, why: impl Display) {
        self.failed.fetch_add(1, Relaxed);
        self.line(&format!("{}  {what:<44} {why}", self.mark("FAIL", 31)));
    }

    /// Prints the check by its outcome; whether it held.
    pub(crate) fn check(&self, what: &str, outcome: Outcome<impl Display>) -> bool {
        match outcome {
            Ok(measured) => self.pass(what, measured),
            Err(failure) => {
                self.fail(what, failure);
                return false;
            }
        }
        true
    }

    /// The last line; failed checks are a failure of the demo.
    pub(crate) fn finish(&self, took: Duration) -> Outcome {
        let (passed, failed) = (self.passed.load(Relaxed), self.failed.load(Relaxed));
        self.line(&format!("\n{passed} passed, {failed} failed  ({:.0} s)", took.as_secs_f32()));
        if failed == 0 { Ok(()) } else { Err(Failure::silent(1)) }
    }

    fn mark(&self, text: &str, color: u8) -> String {
        if self.color { format!("\x1b[{color}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // Nobody reads any more: the count still decides how the demo ends.
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }
}
