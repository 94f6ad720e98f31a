//! What payloads may not do, whatever runs them.

pub(crate) mod fence;
pub(crate) mod filter;

use std::io;

use nix::sys::resource::{Resource, getrlimit};

use crate::{Limits, limits::PROCESSES};

/// Capabilities that a payload's root keeps, all of them over its own namespaces only, by number and
/// name. Not among them: those over mounts, interfaces, tracing and the kernel.
pub(crate) const CAPABILITIES: [(u32, &str); 13] = [
    (0, "CAP_CHOWN"),
    (1, "CAP_DAC_OVERRIDE"),
    (3, "CAP_FOWNER"),
    (4, "CAP_FSETID"),
    (5, "CAP_KILL"),
    (6, "CAP_SETGID"),
    (7, "CAP_SETUID"),
    (8, "CAP_SETPCAP"),
    (10, "CAP_NET_BIND_SERVICE"),
    (13, "CAP_NET_RAW"),
    (18, "CAP_SYS_CHROOT"),
    (29, "CAP_AUDIT_WRITE"),
    (31, "CAP_SETFCAP"),
];

/// Parts of `/proc` that speak of the host and are not to be written.
pub(crate) const PROC_READ_ONLY: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
/// Parts of `/proc` that are not to be read either.
pub(crate) const PROC_HIDDEN: [&str; 4] = ["kcore", "keys", "timer_list", "sched_debug"];
/// The group that terminals belong to on most systems.
pub(crate) const TTY_GROUP: u32 = 5;

const OPEN_FILES: u64 = 65_536;

/// The limits of each process, with their names; none above what the present process may have.
pub(crate) fn limits(limits: &Limits) -> Vec<(Resource, &'static str, u64)> {
    use Resource::{RLIMIT_CORE, RLIMIT_DATA, RLIMIT_FSIZE, RLIMIT_NOFILE, RLIMIT_NPROC};
    let mut all = vec![
        (RLIMIT_CORE, "RLIMIT_CORE", 0),
        (RLIMIT_NOFILE, "RLIMIT_NOFILE", limits.open_files.unwrap_or(OPEN_FILES)),
        (RLIMIT_NPROC, "RLIMIT_NPROC", limits.processes.unwrap_or(PROCESSES)),
    ];
    all.extend(limits.memory.map(|bytes| (RLIMIT_DATA, "RLIMIT_DATA", bytes)));
    all.extend(limits.storage.map(|bytes| (RLIMIT_FSIZE, "RLIMIT_FSIZE", bytes)));
    for (resource, _, wanted) in &mut all {
        if let Ok((_, most)) = getrlimit(*resource) {
            *wanted = most.min(*wanted);
        }
    }
    all
}

/// Takes all capabilities but these from what the present process will start.
///
/// # Errors
/// When the kernel does not do it.
pub(crate) fn keep_capabilities(kept: &[(u32, &str)]) -> io::Result<()> {
    for capability in 0..64 {
        if kept.iter().any(|(kept, _)| *kept == capability) {
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

/// System calls that no payload needs and kernels have been broken with.
pub(crate) const REFUSED_CALLS: &[(i64, &str)] = &[
    (libc::SYS_add_key, "add_key"),
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_delete_module, "delete_module"),
    (libc::SYS_finit_module, "finit_module"),
    (libc::SYS_fsconfig, "fsconfig"),
    (libc::SYS_fsmount, "fsmount"),
    (libc::SYS_fsopen, "fsopen"),
    (libc::SYS_fspick, "fspick"),
    (libc::SYS_init_module, "init_module"),
    (libc::SYS_io_uring_enter, "io_uring_enter"),
    (libc::SYS_io_uring_register, "io_uring_register"),
    (libc::SYS_io_uring_setup, "io_uring_setup"),
    (libc::SYS_kexec_file_load, "kexec_file_load"),
    (libc::SYS_kexec_load, "kexec_load"),
    (libc::SYS_keyctl, "keyctl"),
    (libc::SYS_lookup_dcookie, "lookup_dcookie"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_mount_setattr, "mount_setattr"),
    (libc::SYS_move_mount, "move_mount"),
    (libc::SYS_move_pages, "move_pages"),
    (libc::SYS_open_by_handle_at, "open_by_handle_at"),
    (libc::SYS_open_tree, "open_tree"),
    (libc::SYS_perf_event_open, "perf_event_open"),
    (libc::SYS_pivot_root, "pivot_root"),
    (libc::SYS_quotactl, "quotactl"),
    (libc::SYS_reboot, "reboot"),
    (libc::SYS_request_key, "request_key"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_swapoff, "swapoff"),
    (libc::SYS_swapon, "swapon"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_userfaultfd, "userfaultfd"),
];
