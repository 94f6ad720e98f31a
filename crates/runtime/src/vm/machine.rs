//! The programs that machines run in: user-mode Linux and QEMU.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use super::{
    card::{Plug, Wiring},
    image::{Disk, Kind},
    kernel::Kernel,
    monitor::BUS,
};
use crate::{Limits, cage::SCRATCH};

/// Memory of a machine without a limit of its own.
const MEMORY: u64 = 512 << 20;
/// The least that boots.
const LEAST_MEMORY: u64 = 128 << 20;
const QEMU: &str = "qemu-system-x86_64";
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
/// Where systems have libraries.
const LIBRARIES: [&str; 8] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/nix/store",
    "/gnu/store",
];
/// Where systems have what QEMU gives a machine before its kernel.
const FIRMWARE: [&str; 3] = ["/usr/share/qemu", "/usr/share/seabios", "/usr/share/qemu-kvm"];
/// The virtio port that leads to the agent.
const PORT: &str = "gvpn";

/// A way of running a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// User-mode Linux: the kernel as an ordinary program.
    UserMode,
    /// QEMU, its network cards as rings in the machine's memory (vhost-user), with super-packets.
    QemuVhost,
    /// QEMU, its network cards as Unix stream sockets.
    QemuStream,
    /// QEMU, its network cards as Unix datagram sockets.
    QemuDgram,
}

/// What runs the processor's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accelerator {
    Kvm,
    Tcg,
}

/// A machine to be started.
pub(super) struct Plan<'a> {
    pub(super) disk: &'a Disk,
    /// Where its process finds its kernel.
    pub(super) kernel: &'a Path,
    pub(super) limits: &'a Limits,
    /// The agent's line.
    pub(super) line: &'a OwnedFd,
    /// The cards' ends.
    pub(super) cards: &'a [Plug],
    /// Whether cards, these or later ones, are rings in the machine's memory.
    pub(super) shares_memory: bool,
    /// The end of the line to it that its monitor gets.
    pub(super) monitor: &'a OwnedFd,
}

/// A command line.
pub(super) struct Command {
    pub(super) program: PathBuf,
    pub(super) args: Vec<OsString>,
}

impl Machine {
    /// All of them, the fastest first.
    pub const ALL: [Self; 4] = [Self::QemuVhost, Self::QemuDgram, Self::QemuStream, Self::UserMode];

    /// The machine of this name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|machine| machine.name() == name)
    }

    /// Its name; `vm-` before it makes the name of the runtime that uses it and no other.
    pub fn name(self) -> &'static str {
        match self {
            Self::UserMode => "uml",
            Self::QemuVhost => "qemu-vhost",
            Self::QemuStream => "qemu-stream",
            Self::QemuDgram => "qemu-dgram",
        }
    }

    /// The machine that the runtime of this name uses: `vm` the best that there is, `vm-` and a machine's
    /// name that one.
    pub fn of_runtime(name: &str) -> Option<Self> {
        if name == "vm" { Self::best().ok() } else { Self::by_name(name.strip_prefix("vm-")?) }
    }

    /// What runs the processor's instructions: `kvm`, `tcg` (QEMU translates them) or `uml` (the host's
    /// kernel runs them as an ordinary program's).
    pub fn acceleration(self) -> &'static str {
        match (self, Accelerator::best()) {
            (Self::UserMode, _) => "uml",
            (_, Accelerator::Kvm) => "kvm",
            (_, Accelerator::Tcg) => "tcg",
        }
    }

    /// Whether this host can run it: how it would, or what is missing.
    ///
    /// # Errors
    /// What is missing, in words for a person.
    pub fn probe(self) -> Result<&'static str, String> {
        match self {
            Self::UserMode => Kernel::user_mode().map(|_| "user-mode Linux"),
            Self::QemuVhost | Self::QemuStream | Self::QemuDgram => {
                find(QEMU).ok_or(format!(
                    "there is no {QEMU} on this host (Debian: the package qemu-system-x86)"
                ))?;
                Kernel::for_machine()?;
                Ok(match Accelerator::best() {
                    Accelerator::Kvm => "QEMU with KVM",
                    Accelerator::Tcg => {
                        "QEMU without KVM: instructions are translated, many times slower"
                    }
                })
            }
        }
    }

    /// The best that this host has: with KVM QEMU, without it user-mode Linux before QEMU.
    ///
    /// # Errors
    /// What is missing, in words for a person.
    pub fn best() -> Result<Self, String> {
        let qemu = Self::QemuVhost.probe();
        if qemu.is_ok() && Accelerator::best() == Accelerator::Kvm {
            return Ok(Self::QemuVhost);
        }
        match (Self::UserMode.probe(), qemu) {
            (Ok(_), _) => Ok(Self::UserMode),
            (Err(_), Ok(_)) => Ok(Self::QemuVhost),
            (Err(uml), Err(qemu)) => {
                Err(format!("this host cannot run virtual machines: {qemu}; {uml}"))
            }
        }
    }

    /// The command that boots the same kernel with an initial file system of the caller's and nothing
    /// else: what booting costs without a payload. Its console is standard output.
    ///
    /// # Errors
    /// What is missing, in words for a person.
    pub fn kernel_alone(self, initramfs: &Path) -> Result<(PathBuf, Vec<OsString>), String> {
        let (kernel, memory) = (self.kernel()?, MEMORY >> 20);
        let (image, initramfs) = (kernel.image.display(), initramfs.display());
        let (program, words, last) = match self {
            Self::UserMode => {
                let words = "con=null con0=null,fd:1 quiet uml_dir=.";
                let words = format!("mem={memory}M initrd={initramfs} {words}");
                (kernel.image.clone(), words, None)
            }
            Self::QemuVhost | Self::QemuStream | Self::QemuDgram => {
                let (accelerator, processor) = Accelerator::best().words();
                let words = format!(
                    "-nodefaults -no-user-config -display none -no-reboot -machine q35 -accel \
                     {accelerator} -cpu {processor} -serial stdio -m {memory} -kernel {image} -initrd \
                     {initramfs} -append"
                );
                let program = find(QEMU).unwrap_or_else(|| QEMU.into());
                (program, words, Some("console=ttyS0 quiet panic=-1"))
            }
        };
        Ok((program, words.split(' ').chain(last).map(OsString::from).collect()))
    }

    pub(super) fn wiring(self) -> Wiring {
        match self {
            Self::UserMode | Self::QemuDgram => Wiring::Dgram,
            Self::QemuStream => Wiring::Stream,
            Self::QemuVhost => Wiring::Vhost,
        }
    }

    /// What its program needs of the host: files and directories, and devices.
    pub(super) fn needs(self, program: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let mut files = vec![program.to_owned()];
        match (self, Accelerator::best()) {
            (Self::UserMode, _) => {
                files.extend(libraries(program));
                (files, vec![])
            }
            (_, accelerator) => {
                // It loads parts of itself by name, and firmware.
                files.extend(LIBRARIES.iter().chain(&FIRMWARE).map(PathBuf::from));
                let own = program.parent().and_then(Path::parent);
                let own =
                    own.filter(|prefix| ![Path::new("/"), Path::new("/usr")].contains(prefix));
                files.extend(own.into_iter().flat_map(|own| [own.join("lib"), own.join("share")]));
                let kvm = (accelerator == Accelerator::Kvm).then(|| PathBuf::from("/dev/kvm"));
                (files, kvm.into_iter().collect())
            }
        }
    }

    /// Whether it takes network cards while it runs.
    pub(super) fn is_pluggable(self) -> bool {
        self != Self::UserMode
    }

    /// How many bytes its line to the agent holds.
    pub(super) fn line_room(self) -> usize {
        match self {
            // The buffer of a terminal has 4096.
            Self::UserMode => 2048,
            Self::QemuVhost | Self::QemuStream | Self::QemuDgram => 256 << 10,
        }
    }

    pub(super) fn kernel(self) -> Result<Kernel, String> {
        match self {
            Self::UserMode => Kernel::user_mode(),
            Self::QemuVhost | Self::QemuStream | Self::QemuDgram => Kernel::for_machine(),
        }
    }

    /// The command that runs it; `initramfs` is the initial file system.
    pub(super) fn command(self, kernel: &Kernel, initramfs: &Path, plan: &Plan<'_>) -> Command {
        match self {
            Self::UserMode => user_mode(kernel, initramfs, plan),
            Self::QemuVhost | Self::QemuStream | Self::QemuDgram => qemu(initramfs, plan),
        }
    }
}

impl Accelerator {
    /// KVM where it runs ordinary kernels: a device that may be opened, on a processor that says it can.
    /// (A paravirtual KVM has the device too, and boots no kernel but its own kind.)
    fn best() -> Self {
        let wanted = std::env::var("GVPN_VM_ACCEL").unwrap_or_default();
        let flags = || {
            let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with("flags")).map(str::to_owned);
            line.is_some_and(|line| line.split(' ').any(|flag| matches!(flag, "vmx" | "svm")))
        };
        let device = || OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
        match wanted.as_str() {
            "kvm" => Self::Kvm,
            "tcg" => Self::Tcg,
            _ if flags() && device() => Self::Kvm,
            _ => Self::Tcg,
        }
    }

    /// As QEMU's options `-accel` and `-cpu` take it.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Kvm => ("kvm", "host"),
            Self::Tcg => ("tcg,thread=multi", "max"),
        }
    }
}

impl Plan<'_> {
    /// MiB of the machine's memory.
    fn memory(&self) -> u64 {
        memory(self.limits) >> 20
    }

    /// What the agent reads on the kernel's command line.
    fn agent_words(&self, root: &str, line: &str) -> Vec<String> {
        let mut words = vec![
            format!("gvpn.root={root}"),
            format!("gvpn.fstype={}", self.disk.kind.name()),
            format!("gvpn.line={line}"),
        ];
        words.extend(self.limits.storage.map(|bytes| format!("gvpn.storage={bytes}")));
        words
    }
}

fn user_mode(kernel: &Kernel, initramfs: &Path, plan: &Plan<'_>) -> Command {
    let disk = plan.disk.path.display();
    let mut args = vec![
        format!("mem={}M", plan.memory()),
        format!("initrd={}", initramfs.display()),
        match plan.disk.kind {
            Kind::Squashfs => format!("ubd0r={disk}"),
            Kind::Ext4 => format!("ubd0={SCRATCH}/disk.cow,{disk}"),
        },
        // No directory of the host can be mounted but an empty one.
        "hostfs=empty".to_owned(),
        format!("uml_dir={SCRATCH}"),
        "umid=machine".to_owned(),
        "con=null".to_owned(),
        "con0=fd:0,fd:1".to_owned(),
        "ssl=null".to_owned(),
        format!("ssl0=fd:{0},fd:{0}", plan.line.as_raw_fd()),
        "quiet".to_owned(),
    ];
    for (number, card) in plan.cards.iter().enumerate() {
        if let Plug::Dgram(fd) = card {
            args.push(format!("vec{number}:transport=fd,fd={},depth=128", fd.as_raw_fd()));
        }
    }
    args.extend(plan.agent_words("/dev/ubda", "/dev/ttyS0"));
    Command { program: kernel.image.clone(), args: args.into_iter().map(OsString::from).collect() }
}

fn qemu(initramfs: &Path, plan: &Plan<'_>) -> Command {
    let (accelerator, processor) = Accelerator::best().words();
    let cores = plan.limits.cpu_cores.unwrap_or(1.0).ceil().max(1.0);
    let mut append = plan.agent_words("/dev/vda", PORT);
    append.extend(["console=ttyS0", "quiet", "panic=-1"].map(str::to_owned));
    let disk = escape(&plan.disk.path);
    let drive = match plan.disk.kind {
        Kind::Squashfs => format!("file={disk},format=raw,if=virtio,readonly=on"),
        Kind::Ext4 => format!("file={disk},format=raw,if=virtio,snapshot=on"),
    };
    let mut args: Vec<OsString> = vec![];
    let mut add = |words: &[&str]| args.extend(words.iter().map(OsString::from));
    add(&["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    add(&["-accel", accelerator, "-cpu", processor]);
    let memory = plan.memory();
    add(&["-smp", &cores.to_string(), "-m", &memory.to_string(), "-serial", "stdio"]);
    if plan.shares_memory {
        // Sealed against shrinking, which whoever serves the cards insists on.
        let shared = format!("memory-backend-memfd,id=memory,size={memory}M,share=on,seal=on");
        add(&["-object", &shared, "-machine", "q35,memory-backend=memory"]);
    } else {
        add(&["-machine", "q35"]);
    }
    add(&["-append", &append.join(" "), "-drive", &drive]);
    add(&["-device", "virtio-serial-pci"]);
    add(&["-chardev", &format!("socket,id=line,fd={}", plan.line.as_raw_fd())]);
    add(&["-device", &format!("virtserialport,chardev=line,name={PORT}")]);
    add(&["-device", "virtio-rng-pci"]);
    // For cards that come later: the bus of the machine itself takes none.
    add(&["-device", "pcie-root-port,id=door,chassis=1"]);
    add(&["-device", &format!("pcie-pci-bridge,id={BUS},bus=door")]);
    add(&["-chardev", &format!("socket,id=monitor,fd={}", plan.monitor.as_raw_fd())]);
    add(&["-mon", "chardev=monitor,mode=control"]);
    for (number, card) in plan.cards.iter().enumerate() {
        let mut device = format!("virtio-net-pci,netdev=net{number},romfile=");
        let netdev = match card {
            Plug::Dgram(fd) => {
                format!("dgram,id=net{number},local.type=fd,local.str={}", fd.as_raw_fd())
            }
            Plug::Stream(fd) => {
                format!("stream,id=net{number},addr.type=fd,addr.str={}", fd.as_raw_fd())
            }
            Plug::Vhost(name) => {
                add(&["-chardev", &format!("socket,id=card{number},path={name}")]);
                device.push_str(",rx_queue_size=1024,tx_queue_size=1024");
                format!("vhost-user,id=net{number},chardev=card{number}")
            }
        };
        add(&["-netdev", &netdev, "-device", &device]);
    }
    args.extend(["-kernel".into(), plan.kernel.as_os_str().to_owned()]);
    args.extend(["-initrd".into(), initramfs.as_os_str().to_owned()]);
    Command { program: find(QEMU).unwrap_or_else(|| QEMU.into()), args }
}

/// A path as QEMU's options take it: a comma is said twice.
fn escape(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// Bytes of memory of a machine with these limits.
pub(super) fn memory(limits: &Limits) -> u64 {
    limits.memory.unwrap_or(MEMORY).max(LEAST_MEMORY)
}

/// The libraries of a program, as its loader finds them; where it does not say, all that there are.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = std::process::Command::new(LOADER).arg("--list").arg(program).output();
    let listed = listed.map_or_else(|_| vec![], |output| output.stdout);
    let text = String::from_utf8_lossy(&listed);
    let paths = text.lines().filter_map(|line| line.split(' ').find_map(path_in));
    let paths: Vec<PathBuf> = paths.collect();
    if paths.is_empty() { LIBRARIES.map(PathBuf::from).to_vec() } else { paths }
}

fn path_in(word: &str) -> Option<PathBuf> {
    let word = word.trim();
    word.starts_with('/').then(|| word.into())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file())
}

impl Command {
    /// The arguments as bytes.
    pub(super) fn into_bytes(self) -> (PathBuf, Vec<Vec<u8>>) {
        (self.program, self.args.into_iter().map(OsString::into_vec).collect())
    }
}

/// The path of a descriptor for the program that it is passed to.
pub(super) fn path_of(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// Lets a descriptor pass to the program that is about to be started.
pub(super) fn pass_on(fds: Vec<OwnedFd>) -> impl FnMut() -> io::Result<()> + Send + Sync {
    move || {
        for fd in &fds {
            nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
        }
        Ok(())
    }
}
