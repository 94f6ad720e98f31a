//! Ctrl-C and SIGTERM: the demo ends early and still clears everything away.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::failure::{Failure, Outcome};

/// How often it is looked whether the demo shall end.
const LOOK: Duration = Duration::from_millis(50);

static WANTED: AtomicBool = AtomicBool::new(false);

/// From now on the signals that ask for an end are noted; they end nothing by themselves. There is
/// no thread for it: hosts need a process that has none.
pub(crate) fn watch() -> Outcome {
    let flags = SaFlags::SA_RESTART;
    let action = SigAction::new(SigHandler::Handler(note), flags, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which a signal handler may do.
        unsafe { sigaction(signal, &action) }
            .map_err(|e| Failure::io("cannot handle signals")(e.into()))?;
    }
    Ok(())
}

/// Whether the demo shall end.
pub(crate) fn wanted() -> bool {
    WANTED.load(Relaxed)
}

/// An error once the demo shall end, for loops.
pub(crate) fn check() -> Outcome {
    if wanted() { Err(Failure::new("interrupted")) } else { Ok(()) }
}

/// Completes when the demo shall end.
pub(crate) async fn requested() {
    while !wanted() {
        tokio::time::sleep(LOOK).await;
    }
}

extern "C" fn note(_: i32) {
    WANTED.store(true, Relaxed);
}
