//! What a payload process may not do.

use std::{collections::BTreeMap, io, sync::OnceLock};

use nix::sys::{
    resource::setrlimit,
    signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask},
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::{
    Limits,
    confinement::{CAPABILITIES, REFUSED_CALLS, limits},
};

/// Confines the present process for good; it then becomes a program of the payload.
pub(super) fn confine(limits: &Limits) -> io::Result<()> {
    set_limits(limits)?;
    // Short of memory, the kernel is to end a program of the payload, not its init.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    // SAFETY: the default action is no handler of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    drop_capabilities()?;
    nix::sys::prctl::set_no_new_privs()?;
    let filters = filters().as_ref().map_err(|e| io::Error::other(e.clone()))?;
    filters.iter().try_for_each(|f| seccompiler::apply_filter(f).map_err(io::Error::other))
}

fn set_limits(wanted: &Limits) -> io::Result<()> {
    for (resource, _, most) in limits(wanted) {
        setrlimit(resource, most, most)?;
    }
    Ok(())
}

fn drop_capabilities() -> io::Result<()> {
    for capability in 0..64 {
        if CAPABILITIES.iter().any(|(kept, _)| *kept == capability) {
            continue;
        }
        // SAFETY: plain system call.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::EINVAL) => break,
                e => return Err(e),
            }
        }
    }
    Ok(())
}

/// Made once; children inherit it.
fn filters() -> &'static Result<[BpfProgram; 2], String> {
    static FILTERS: OnceLock<Result<[BpfProgram; 2], String>> = OnceLock::new();
    FILTERS.get_or_init(|| build_filters().map_err(|e| e.to_string()))
}

/// Refuses what no payload needs and kernels have been broken with. Everything else is allowed: what
/// counts is the namespaces.
fn build_filters() -> Result<[BpfProgram; 2], seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for (call, _) in REFUSED_CALLS {
        rules.insert(*call, vec![]);
    }
    let masked = |argument, mask: u64, value: u64| {
        let equal = SeccompCmpOp::MaskedEq(mask);
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Qword, equal, value)?;
        SeccompRule::new(vec![condition])
    };
    let users = libc::CLONE_NEWUSER as u64;
    rules.insert(libc::SYS_clone, vec![masked(0, users, users)?]);
    rules.insert(libc::SYS_unshare, vec![masked(0, users, users)?]);
    let is = |argument, value: u64| {
        let condition =
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)?;
        SeccompRule::new(vec![condition])
    };
    // Typing into the terminal of somebody else.
    rules.insert(libc::SYS_ioctl, vec![is(1, libc::TIOCSTI)?, is(1, libc::TIOCLINUX)?]);
    rules
        .insert(libc::SYS_socket, vec![is(0, libc::AF_VSOCK as u64)?, is(0, libc::AF_ALG as u64)?]);
    let arch = std::env::consts::ARCH.try_into()?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let refused = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?;
    // `clone3` hides its flags from the filter: callers fall back to `clone` on "not implemented".
    let hidden: BTreeMap<_, _> = [(libc::SYS_clone3, vec![])].into();
    let missing = SeccompAction::Errno(libc::ENOSYS as u32);
    let hidden = SeccompFilter::new(hidden, SeccompAction::Allow, missing, arch)?;
    Ok([refused.try_into()?, hidden.try_into()?])
}
