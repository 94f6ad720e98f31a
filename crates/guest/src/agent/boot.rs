//! From the kernel's initial file system into the image.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::symlink},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

/// Where modules lie in the initial file system, named in the order of loading.
const MODULES: &str = "/modules";
/// How long devices may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the host says on the kernel's command line, as `gvpn.NAME=VALUE`.
#[derive(Debug, Default)]
pub(super) struct Settings {
    /// The device of the image.
    pub(super) root: String,
    /// Its file system.
    pub(super) fstype: String,
    /// The device that leads to the host.
    pub(super) line: String,
    /// Bytes that the payload may write.
    pub(super) storage: Option<u64>,
}

impl Settings {
    pub(super) fn read() -> Result<Self, String> {
        let text =
            fs::read_to_string("/proc/cmdline").map_err(|e| format!("/proc/cmdline: {e}"))?;
        let mut settings = Self::default();
        for word in text.split_ascii_whitespace() {
            let Some((name, value)) = word.strip_prefix("gvpn.").and_then(|w| w.split_once('='))
            else {
                continue;
            };
            match name {
                "root" => settings.root = value.to_owned(),
                "fstype" => settings.fstype = value.to_owned(),
                "line" => settings.line = value.to_owned(),
                "storage" => settings.storage = value.parse().ok(),
                _ => {}
            }
        }
        Ok(settings)
    }
}

pub(super) fn mount_basics() -> Result<(), String> {
    for (kind, place) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        mount_new(kind, kind, place, "")?;
    }
    Ok(())
}

/// Loads what the host put there; a module that this kernel has built in, or does not take, is not
/// missed here but where its device is.
pub(super) fn load_modules() {
    let mut names: Vec<_> = fs::read_dir(MODULES).into_iter().flatten().flatten().collect();
    names.sort_by_key(|entry| entry.file_name());
    for entry in names {
        let Ok(file) = File::open(entry.path()) else { continue };
        let nothing = c"";
        // SAFETY: plain system call on an open descriptor and a constant string.
        let loaded =
            unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), nothing.as_ptr(), 0) };
        if loaded != 0 {
            let error = std::io::Error::last_os_error();
            eprintln!("gvpn-guest: module {}: {error}", entry.file_name().display());
        }
    }
}

/// Mounts the image, a layer over it where it cannot be written, and makes it the root.
pub(super) fn enter_root(settings: &Settings) -> Result<(), String> {
    wait_for(&settings.root)?;
    let written = settings.fstype != "squashfs";
    let size = settings.storage.map(|bytes| format!("size={bytes}")).unwrap_or_default();
    if written {
        mount_image(settings, "/root", MsFlags::empty())?;
    } else {
        mount_image(settings, "/lower", MsFlags::MS_RDONLY)?;
        mount_new("tmpfs", "tmpfs", "/layer", &size)?;
        for part in ["/layer/upper", "/layer/work"] {
            fs::create_dir(part).map_err(|e| format!("{part}: {e}"))?;
        }
        let layers = "lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work";
        mount_new("overlay", "overlay", "/root", layers)?;
    }
    for place in ["dev", "proc", "sys", "tmp", "run", "etc", "root"] {
        let _ = fs::create_dir(Path::new("/root").join(place));
    }
    for place in ["/dev", "/proc", "/sys"] {
        let to = format!("/root{place}");
        mount(Some(place), to.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .map_err(|e| format!("move {place}: {e}"))?;
    }
    let _ = fs::remove_dir_all(MODULES);
    std::env::set_current_dir("/root").map_err(|e| format!("enter the image: {e}"))?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .map_err(|e| format!("move the image: {e}"))?;
    nix::unistd::chroot(".").map_err(|e| format!("enter the image: {e}"))?;
    std::env::set_current_dir("/").map_err(|e| format!("enter the image: {e}"))?;
    furnish();
    Ok(())
}

/// What programs expect of a running system.
fn furnish() {
    let _ = fs::create_dir("/dev/pts");
    let _ = fs::create_dir("/dev/shm");
    let _ = mount_new("devpts", "devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666");
    let _ = mount_new("tmpfs", "tmpfs", "/dev/shm", "");
    if !Path::new("/dev/fd").exists() {
        let _ = symlink("/proc/self/fd", "/dev/fd");
    }
}

fn mount_image(settings: &Settings, place: &str, flags: MsFlags) -> Result<(), String> {
    let Settings { root, fstype, .. } = settings;
    let _ = fs::create_dir_all(place);
    mount(Some(root.as_str()), place, Some(fstype.as_str()), flags, None::<&str>)
        .map_err(|e| format!("mount the image {root} as {fstype}: {e}"))
}

fn mount_new(source: &str, kind: &str, place: &str, options: &str) -> Result<(), String> {
    let _ = fs::create_dir_all(place);
    match mount(Some(source), place, Some(kind), MsFlags::empty(), Some(options)) {
        Ok(()) | Err(nix::Error::EBUSY) => Ok(()),
        Err(e) => Err(format!("mount {kind} at {place}: {e}")),
    }
}

/// Waits for a device that the kernel may still be looking for.
pub(super) fn wait_for(device: &str) -> Result<(), String> {
    let start = Instant::now();
    while !Path::new(device).exists() {
        if start.elapsed() > PATIENCE {
            return Err(format!("there is no device {device}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Ends the machine.
pub(super) fn power_off() -> ! {
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_POWER_OFF);
    loop {
        thread::park();
    }
}
