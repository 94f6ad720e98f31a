//! What a payload process may not do.

use std::io;

use nix::sys::{
    resource::setrlimit,
    signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask},
};

use crate::{
    Limits,
    confinement::{CAPABILITIES, filter::refuse_calls, keep_capabilities, limits},
};

/// Confines the present process for good; it then becomes a program of the payload.
pub(super) fn confine(limits: &Limits) -> io::Result<()> {
    set_limits(limits)?;
    // Short of memory, the kernel is to end a program of the payload, not its init.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    // SAFETY: the default action is no handler of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    keep_capabilities(&CAPABILITIES)?;
    nix::sys::prctl::set_no_new_privs()?;
    refuse_calls()
}

fn set_limits(wanted: &Limits) -> io::Result<()> {
    for (resource, _, most) in limits(wanted) {
        setrlimit(resource, most, most)?;
    }
    Ok(())
}
