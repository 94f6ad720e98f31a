//! Interfaces and names.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use gvpn_link::{Interface, Netlink, quiet_ipv6};

/// How long a card that was plugged in is waited for at a time.
const APPEARANCE: Duration = Duration::from_secs(1);

/// The machine's interfaces.
pub(super) struct Network {
    netlink: Netlink,
    names: Vec<String>,
}

impl Network {
    /// Brings up loopback and names the cards `eth0`, `eth1`, ...
    pub(super) fn open() -> Result<Self, String> {
        let text = |e: std::io::Error| format!("netlink: {e}");
        let mut netlink = Netlink::open().map_err(text)?;
        for scope in ["all", "default"] {
            quiet_ipv6(scope);
            let _ = fs::write(format!("/proc/sys/net/ipv4/conf/{scope}/promote_secondaries"), "1");
        }
        let _ = fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647");
        netlink.set_up("lo").map_err(text)?;
        let mut cards: Vec<String> = fs::read_dir("/sys/class/net")
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().join("device").exists() || is_vector(entry))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        cards.sort_by_key(|name| (name.len(), name.clone()));
        let mut names = vec![];
        for (number, card) in cards.iter().enumerate() {
            let name = format!("eth{number}");
            if *card != name {
                netlink.rename(card, &name).map_err(|e| format!("rename {card}: {e}"))?;
            }
            prepare(&name);
            names.push(name);
        }
        Ok(Self { netlink, names })
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    pub(super) fn configure(&mut self, interface: &Interface) -> Result<(), String> {
        let name = &interface.name;
        let refused = self.netlink.configure(interface);
        quiet_ipv6(name);
        refused.map_err(|e| format!("cannot {}: {}", e.what, e.source))
    }

    /// Names a card that was plugged in; waits for it a little.
    pub(super) fn adopt(&mut self, name: &str, mac: &str) -> Result<(), String> {
        let start = Instant::now();
        let found = loop {
            match with_address(mac) {
                Some(found) => break found,
                None if start.elapsed() > APPEARANCE => {
                    return Err(format!("there is no card {mac}"));
                }
                None => thread::sleep(Duration::from_millis(10)),
            }
        };
        if found != name {
            self.netlink.rename(&found, name).map_err(|e| format!("rename {found}: {e}"))?;
        }
        prepare(name);
        Ok(())
    }

    pub(super) fn clear(&mut self, name: &str) -> Result<(), String> {
        let mtu = fs::read_to_string(format!("/sys/class/net/{name}/mtu")).unwrap_or_default();
        let empty = Interface {
            name: name.to_owned(),
            addresses: vec![],
            routes: vec![],
            mtu: mtu.trim().parse().unwrap_or(1500),
        };
        // It stays up: user-mode Linux brings a card up once only.
        self.configure(&empty)
    }
}

fn prepare(name: &str) {
    quiet_ipv6(name);
    // The switch lets no link-local address pass but the member's own.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{name}/addr_gen_mode"), "1");
}

fn with_address(mac: &str) -> Option<String> {
    let entries = fs::read_dir("/sys/class/net").ok()?.flatten();
    let is_it = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("address")).is_ok_and(|text| text.trim() == mac)
    };
    let found = entries.into_iter().find(is_it)?;
    Some(found.file_name().to_string_lossy().into_owned())
}

/// User-mode Linux's cards have no device behind them.
fn is_vector(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with("vec")
}

pub(super) fn rename(hostname: &str, hosts: &str, resolv_conf: &str) -> Result<(), String> {
    nix::unistd::sethostname(hostname).map_err(|e| format!("cannot set the host name: {e}"))?;
    for (file, text) in [
        ("/etc/hosts", hosts),
        ("/etc/resolv.conf", resolv_conf),
        ("/etc/hostname", &format!("{hostname}\n")),
    ] {
        // It may be a link to a place of a service that does not run here.
        if fs::symlink_metadata(file).is_ok_and(|there| there.is_symlink()) {
            let _ = fs::remove_file(file);
        }
        fs::write(file, text).map_err(|e| format!("cannot write {file}: {e}"))?;
    }
    Ok(())
}
