//! System calls that are refused.

use std::{collections::BTreeMap, io, sync::OnceLock};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::REFUSED_CALLS;

/// Refuses the present process, and all that it will start, what nobody's payload needs, for good.
///
/// # Errors
/// When the kernel takes no filter.
pub(crate) fn refuse_calls() -> io::Result<()> {
    let filters = filters().as_ref().map_err(|e| io::Error::other(e.clone()))?;
    filters.iter().try_for_each(|f| seccompiler::apply_filter(f).map_err(io::Error::other))
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
