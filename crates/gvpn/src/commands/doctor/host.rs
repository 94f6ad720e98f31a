//! Checks of the machine itself.

use std::{
    fs::OpenOptions,
    net::UdpSocket,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use gvpn_runtime::Machine;
use gvpn_vnic::{AgentCommand, IdRange, Namespace, NamespaceError, TunSpec};
use nix::{
    errno::Errno,
    sys::socket::{getsockopt, setsockopt, sockopt},
};

use super::Check;
use crate::config::Config;

/// No clock is before the day when this was written (2026-01-01, in seconds).
const NOT_BEFORE: Duration = Duration::from_secs(1_767_225_600);
/// How long a namespace may take.
const NAMESPACE: Duration = Duration::from_secs(10);
/// Bytes that a daemon's UDP sockets may have waiting: below that, fast flows lose packets whenever
/// its threads have to wait for a processor.
const BUFFER: usize = 4 << 20;

/// Clock, namespaces, TUN device, offloads, socket buffers, virtual machines.
pub(super) async fn checks(config: &Config) -> Vec<Check> {
    let tun = config.net.tun_device.clone().unwrap_or_else(|| {
        std::env::var_os("GVPN_TUN").map_or_else(|| PathBuf::from("/dev/net/tun"), PathBuf::from)
    });
    let mut checks = vec![clock()];
    checks.extend(namespaces(tun).await);
    checks.push(offloads());
    checks.push(buffers());
    checks.push(machines(&config.provider.runtimes));
    checks
}

fn clock() -> Check {
    const NAME: &str = "clock";
    const ADVICE: &str = "set the clock and let it follow a time server (timedatectl set-ntp true): \
                          offers, agreements and records carry times";
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if now < NOT_BEFORE {
        return Check::fail(NAME, "this machine's clock is years behind", ADVICE);
    }
    // SAFETY: an all-zero timex asks for nothing to be changed; the call fills it in.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&raw mut timex), timex)
    };
    match state {
        (-1, _) => Check::ok(NAME, "plausible; the kernel does not say whether it is synchronized"),
        (_, timex) if timex.status & libc::STA_UNSYNC != 0 => {
            Check::warn(NAME, "plausible, but nothing keeps it right", ADVICE)
        }
        _ => Check::ok(NAME, "synchronized"),
    }
}

async fn namespaces(tun: PathBuf) -> Vec<Check> {
    const NAME: &str = "namespaces";
    let path = tun.display().to_string();
    let opened = OpenOptions::new().read(true).write(true).open(&tun);
    let command = AgentCommand {
        exe: PathBuf::from("/proc/self/exe"),
        tun_device: tun,
        ids: IdRange::Single,
        ..AgentCommand::default()
    };
    let made = async {
        let namespace = Namespace::spawn(command).await?;
        namespace.create_tun(TunSpec::new("doctor0", 1280)).await.map(drop)
    };
    let made = tokio::time::timeout(NAMESPACE, made).await;
    let advice = "without it gates are slower (a TCP stack of the daemon's own) and a provider can \
                  run no payload";
    match made {
        Ok(Ok(())) => vec![
            Check::ok(NAME, "user and network namespaces can be made"),
            Check::ok("tun", format!("{path} works inside them")),
        ],
        Ok(Err(error @ NamespaceError::Tun { .. })) => vec![
            Check::ok(NAME, "user and network namespaces can be made"),
            Check::fail("tun", error.to_string(), advice),
        ],
        Ok(Err(error)) => {
            let mut checks = vec![Check::fail(NAME, error.to_string(), advice)];
            if let Err(error) = opened {
                let make =
                    format!("load the module (modprobe tun) and allow it (chmod 666 {path})");
                checks.push(Check::fail("tun", format!("{path}: {error}"), make));
            }
            checks
        }
        Err(_) => {
            let found = format!("none within {NAMESPACE:?}");
            vec![Check::fail(NAME, found, "look at the machine's load and its security modules")]
        }
    }
}

fn offloads() -> Check {
    const NAME: &str = "offloads";
    const ADVICE: &str = "it works, with more CPU for each packet; a Linux kernel of 5.0 or newer \
                          has them (in a sandbox such as gVisor they may be missing)";
    let socket = match UdpSocket::bind(("127.0.0.1", 0)) {
        Ok(socket) => socket,
        Err(error) => return Check::fail(NAME, format!("no UDP socket: {error}"), ADVICE),
    };
    let gso = getsockopt(&socket, sockopt::UdpGsoSegment).is_ok();
    let gro = setsockopt(&socket, sockopt::UdpGroSegment, &true).is_ok();
    match (gso, gro) {
        (true, true) => Check::ok(NAME, "UDP segmentation and coalescing (GSO, GRO)"),
        _ => Check::warn(NAME, format!("UDP GSO: {gso}, UDP GRO: {gro}"), ADVICE),
    }
}

fn buffers() -> Check {
    const NAME: &str = "buffers";
    let advice = format!(
        "many fast flows at once lose packets whenever the daemon waits for a processor; more is \
         permitted by `sysctl net.core.rmem_max={0} net.core.wmem_max={0}` (root; in a file in \
         /etc/sysctl.d to last)",
        4 * BUFFER
    );
    let room = UdpSocket::bind(("127.0.0.1", 0))
        .map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))
        .and_then(|socket| {
            if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
                setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
            }
            // The kernel's figure is twice what is asked for.
            Ok(getsockopt(&socket, sockopt::RcvBuf)? / 2)
        });
    match room {
        Ok(room) if room >= BUFFER => {
            Check::ok(NAME, format!("UDP sockets hold {} KiB and more", room >> 10))
        }
        Ok(room) => Check::warn(NAME, format!("UDP sockets hold only {} KiB", room >> 10), advice),
        Err(error) => Check::fail(NAME, format!("no UDP socket: {error}"), advice),
    }
}

/// Whether a provider could offer virtual machines, and whether one that wants to can.
fn machines(offered: &[String]) -> Check {
    const NAME: &str = "machines";
    let wanted = offered.iter().find(|name| *name == "vm" || name.starts_with("vm-"));
    match (Machine::best().and_then(|best| best.probe().map(|how| (best, how))), wanted) {
        (Ok((_, how)), Some(name)) => Check::ok(NAME, format!("`{name}` is offered; {how}")),
        (Ok((best, how)), None) => {
            let more = "a provider offers them when `vm` is among the runtimes of its config.toml";
            Check::ok(NAME, format!("{how} ({}); {more}", best.name()))
        }
        (Err(why), None) => Check::ok(NAME, format!("none: {why}")),
        (Err(why), Some(name)) => {
            let advice =
                "install QEMU or user-mode Linux, or take it off the runtimes of config.toml";
            Check::fail(NAME, format!("`{name}` cannot be offered: {why}"), advice)
        }
    }
}
