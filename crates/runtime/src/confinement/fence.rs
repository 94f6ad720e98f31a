//! Landlock: what a payload reaches beyond its root is refused by the kernel even if it finds a way there.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope,
};

/// The newest version that is asked for; kernels with an older one do what they can.
const VERSION: ABI = ABI::V6;

/// Fences the present thread, and all that it will start, in for good: files below `root` only, no
/// device nodes made, device controls below `devices` only, no mounts, and no signals or abstract
/// sockets to processes outside. What `files` lead to may be read, wherever it is. Says whether the
/// kernel does any of it.
pub(crate) fn fence(root: &Path, devices: &Path, files: &[PathBuf]) -> Result<bool, RulesetError> {
    let everything = AccessFs::from_all(VERSION);
    let of_devices = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let mut rules =
        Ruleset::default().handle_access(everything)?.scope(Scope::from_all(VERSION))?.create()?;
    if let Ok(root) = PathFd::new(root) {
        rules = rules.add_rule(PathBeneath::new(root, everything & !of_devices))?;
    }
    if let Ok(devices) = PathFd::new(devices) {
        rules = rules.add_rule(PathBeneath::new(devices, AccessFs::IoctlDev))?;
    }
    for file in files {
        if let Ok(file) = PathFd::new(file) {
            rules = rules.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
        }
    }
    Ok(rules.restrict_self()?.ruleset != RulesetStatus::NotEnforced)
}

#[cfg(test)]
mod tests {
    use std::{fs, io, os::fd::AsFd};

    use nix::{
        errno::Errno,
        fcntl::{OFlag, openat},
        sys::stat::{Mode, SFlag, mknod},
    };

    use super::*;

    /// What one thread saw, before and after it was fenced in.
    fn attempts(root: &Path, outside: &Path) -> Vec<Result<(), Errno>> {
        let node = |kind: SFlag, name: &str| mknod(&root.join(name), kind, Mode::S_IRWXU, 0);
        let read = |path: &Path| {
            let read = fs::read(path).map(drop);
            read.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))
        };
        let leaked = fs::File::open(outside).unwrap();
        let through = openat(leaked.as_fd(), "secret", OFlag::O_RDONLY, Mode::empty()).map(drop);
        let all = vec![
            read(&outside.join("secret")),
            through,
            // A character device 0:0 is the one that anybody may make.
            node(SFlag::S_IFCHR, "device"),
            read(&root.join("file")),
            node(SFlag::S_IFIFO, "pipe"),
            fs::rename(root.join("file"), root.join("dir/file")).map_err(|_| Errno::EIO),
            fs::rename(root.join("dir/file"), root.join("file")).map_err(|_| Errno::EIO),
        ];
        let _: Vec<io::Result<()>> =
            ["device", "pipe"].map(|name| fs::remove_file(root.join(name))).into();
        all
    }

    #[test]
    fn nothing_outside_is_reached_and_no_device_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("dir")).unwrap();
        fs::create_dir(root.join("dev")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "").unwrap();
        fs::write(root.join("file"), "").unwrap();
        assert_eq!(attempts(&root, &outside), vec![Ok(()); 7], "unfenced, all of it goes");
        // A fence holds for its thread alone.
        let seen = std::thread::spawn(move || {
            // Opened before, as a descriptor that leaks would be.
            let leaked = fs::File::open(&outside).unwrap();
            nix::sys::prctl::set_no_new_privs().unwrap();
            if !fence(&root, &root.join("dev"), &[]).unwrap() {
                return None;
            }
            let through = openat(leaked.as_fd(), "secret", OFlag::O_RDONLY, Mode::empty());
            let mount = nix::mount::mount(
                None::<&str>,
                &root,
                None::<&str>,
                nix::mount::MsFlags::MS_PRIVATE,
                None::<&str>,
            );
            let read = |path: &Path| fs::read(path).map(drop).map_err(|e| e.kind());
            let node = |kind, name: &str| mknod(&root.join(name), kind, Mode::S_IRWXU, 0);
            Some((
                [through.map(drop), mount, node(SFlag::S_IFCHR, "device")],
                read(&outside.join("secret")),
                [node(SFlag::S_IFIFO, "pipe"), read(&root.join("file")).map_err(|_| Errno::EIO)],
                fs::rename(root.join("file"), root.join("dir/file")).is_ok(),
            ))
        });
        let Some((refused, read, allowed, moved)) = seen.join().unwrap() else {
            eprintln!("not tested: this kernel has no Landlock");
            return;
        };
        assert_eq!(refused, [Err(Errno::EACCES), Err(Errno::EPERM), Err(Errno::EACCES)]);
        assert_eq!(read, Err(io::ErrorKind::PermissionDenied));
        assert_eq!((allowed, moved), ([Ok(()), Ok(())], true));
    }
}
