//! Other tunnels, from Debian and crates.io (and, in [`crate::easytier`], from PyPI).

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use gvpn_lab::Host;

use crate::{
    bed::{self, Bed},
    easytier::EasyTier,
    system::{BenchError, Layout, Peer, System, Tunnel, io},
};

/// The link itself, without any tunnel.
pub(crate) struct Bare;

impl System for Bare {
    fn name(&self) -> &str {
        "no tunnel"
    }

    fn is_others(&self) -> bool {
        true
    }

    fn available(&self) -> Result<(), String> {
        Ok(())
    }

    fn up(&self, bed: &Bed, _: Layout) -> Result<Tunnel, BenchError> {
        Ok(tunnel(bed, [10, 99, 0, 2], vec![]))
    }
}

/// Every peer that a registry has.
pub(crate) fn all(built: &Path) -> Vec<Box<dyn System>> {
    let cargo = |name, krate, version| -> Box<dyn System> {
        Box::new(WireGuard {
            name,
            source: Source::Crate { krate, version, root: built.to_owned() },
        })
    };
    vec![
        Box::new(WireGuard { name: "wireguard-go", source: Source::Debian("wireguard-go") }),
        cargo("gotatun", "gotatun-cli", "0.10.2"),
        cargo("boringtun", "boringtun-cli", "0.7.1"),
        Box::new(Nebula),
        Box::new(EasyTier::new(built)),
    ]
}

/// A userspace WireGuard, configured by `wg`.
struct WireGuard {
    name: &'static str,
    source: Source,
}

enum Source {
    Debian(&'static str),
    Crate { krate: &'static str, version: &'static str, root: PathBuf },
}

impl System for WireGuard {
    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> Option<String> {
        match &self.source {
            Source::Debian(package) => installed(package),
            Source::Crate { version, .. } => Some(format!("{version} (crates.io)")),
        }
    }

    fn available(&self) -> Result<(), String> {
        debian("wg", "wireguard-tools")?;
        match &self.source {
            Source::Debian(program) => newest(program, program),
            Source::Crate { krate, version, root } => cargo_install(krate, version, root),
        }
    }

    fn up(&self, bed: &Bed, _: Layout) -> Result<Tunnel, BenchError> {
        let program = match &self.source {
            Source::Debian(program) => PathBuf::from(program),
            Source::Crate { root, .. } => fs::canonicalize(root.join("bin").join(self.name))
                .or_else(|_| fs::canonicalize(root.join("bin").join(format!("{}-cli", self.name))))
                .map_err(io("finding the peer's binary"))?,
        };
        // Configuration sockets share one directory, so names must differ between runs.
        let tag = std::process::id() % 100_000;
        let ends = [
            (&bed.a, format!("wa{tag}"), "10.98.0.1", bed::B, "10.98.0.2"),
            (&bed.b, format!("wb{tag}"), "10.98.0.2", bed::A, "10.98.0.1"),
        ];
        let keys = [key_pair()?, key_pair()?];
        let mut guards: Vec<Box<dyn std::any::Any>> = Vec::new();
        for (at, (host, name, address, remote, peer)) in ends.iter().enumerate() {
            let mut command = host.command(&program);
            command.arg("--foreground").arg(name).env("WG_PROCESS_FOREGROUND", "1");
            if self.name != "wireguard-go" {
                command.arg("--disable-drop-privileges");
            }
            command.inner().stdout(Stdio::null()).stderr(Stdio::null());
            guards.push(Box::new(command.spawn()?));
            configure(host, name, &keys[at].0, &keys[1 - at].1, remote, peer)?;
            host.ip(["addr", "add", &format!("{address}/24"), "dev", name])?;
            host.ip(["link", "set", name, "mtu", "1420", "up"])?;
        }
        Ok(tunnel(bed, [10, 98, 0, 2], guards))
    }
}

fn configure(
    host: &Host,
    name: &str,
    key: &str,
    peer_key: &str,
    remote: &str,
    peer: &str,
) -> Result<(), BenchError> {
    let file = tempfile::NamedTempFile::new().map_err(io("making a key file"))?;
    let text = format!(
        "[Interface]\nListenPort = 51820\nPrivateKey = {key}\n[Peer]\nPublicKey = {peer_key}\nEndpoint = {remote}:51820\nAllowedIPs = {peer}/32\n"
    );
    fs::write(file.path(), text).map_err(io("writing a key file"))?;
    let path = file.path().display().to_string();
    let mut last = host.run("wg", ["setconf", name, &path]);
    for _ in 0..100 {
        if last.is_ok() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
        last = host.run("wg", ["setconf", name, &path]);
    }
    last?;
    Ok(())
}

fn key_pair() -> Result<(String, String), BenchError> {
    let secret = shell("wg genkey")?;
    let public = shell(&format!("echo '{secret}' | wg pubkey"))?;
    Ok((secret, public))
}

/// Nebula, with certificates made for the occasion.
struct Nebula;

impl System for Nebula {
    fn name(&self) -> &str {
        "nebula"
    }

    fn version(&self) -> Option<String> {
        installed("nebula")
    }

    fn available(&self) -> Result<(), String> {
        newest("nebula", "nebula")
    }

    fn up(&self, bed: &Bed, _: Layout) -> Result<Tunnel, BenchError> {
        let dir = tempfile::tempdir().map_err(io("making a directory"))?;
        let at = dir.path().display().to_string();
        shell(&format!(
            "cd {at} && nebula-cert ca -name bench && nebula-cert sign -name a -ip 10.98.0.1/24 && nebula-cert sign -name b -ip 10.98.0.2/24"
        ))?;
        let mut guards: Vec<Box<dyn std::any::Any>> = Vec::new();
        for (host, name) in [(&bed.a, "a"), (&bed.b, "b")] {
            let config = nebula_config(&at, name);
            let path = format!("{at}/{name}.yml");
            fs::write(&path, config).map_err(io("writing a configuration"))?;
            let mut command = host.command("nebula");
            command.args(["-config", &path]);
            command.inner().stdout(Stdio::null()).stderr(Stdio::null());
            guards.push(Box::new(command.spawn()?));
        }
        guards.push(Box::new(dir));
        Ok(tunnel(bed, [10, 98, 0, 2], guards))
    }
}

fn nebula_config(at: &str, name: &str) -> String {
    format!(
        "pki: {{ca: {at}/ca.crt, cert: {at}/{name}.crt, key: {at}/{name}.key}}\n\
         static_host_map: {{'10.98.0.1': ['{}:4242'], '10.98.0.2': ['{}:4242']}}\n\
         lighthouse: {{am_lighthouse: false, hosts: []}}\nlisten: {{host: 0.0.0.0, port: 4242}}\n\
         tun: {{dev: neb-{name}, mtu: 1420}}\n\
         firewall: {{outbound: [{{port: any, proto: any, host: any}}], inbound: [{{port: any, proto: any, host: any}}]}}\n",
        bed::A,
        bed::B
    )
}

pub(crate) fn tunnel(bed: &Bed, address: [u8; 4], guards: Vec<Box<dyn std::any::Any>>) -> Tunnel {
    Tunnel {
        client: Box::new(bed.a.clone()),
        servers: vec![Peer { side: Box::new(bed.b.clone()), address: address.into() }],
        gate: None,
        keys_age: None,
        _guards: guards,
    }
}

/// Installs the newest version of a Debian package that apt's lists name, backports included,
/// unless it is there; what is there serves where that fails.
fn newest(program: &str, package: &str) -> Result<(), String> {
    let listed = shell(&format!("apt-cache madison {package}")).unwrap_or_default();
    let versions = listed.lines().filter_map(|line| line.split('|').nth(1).map(str::trim));
    let highest = versions.reduce(|best, other| if is_newer(other, best) { other } else { best });
    if let Some(version) = highest
        && dpkg_version(package).is_none_or(|there| is_newer(version, &there))
    {
        debian_install(&format!("{package}={version}"));
    }
    debian(program, package)
}

fn is_newer(version: &str, than: &str) -> bool {
    let compare = Command::new("dpkg").args(["--compare-versions", version, "gt", than]).status();
    compare.is_ok_and(|status| status.success())
}

fn dpkg_version(package: &str) -> Option<String> {
    shell(&format!("dpkg-query -W -f='${{Version}}' {package}")).ok().filter(|v| !v.is_empty())
}

fn installed(package: &str) -> Option<String> {
    Some(format!("{} (Debian)", dpkg_version(package)?))
}

fn debian_install(package: &str) {
    println!("installing {package}");
    let _ = Command::new("apt-get")
        .args(["install", "-y", "-q", "--no-install-recommends", package])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output();
}

/// Installs a Debian package unless its program is there.
pub(crate) fn debian(program: &str, package: &str) -> Result<(), String> {
    let there = || {
        Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if there() {
        return Ok(());
    }
    debian_install(package);
    if there() {
        Ok(())
    } else {
        Err(format!("apt-get install {package} did not bring `{program}`"))
    }
}

/// Builds a crate's binary unless it is there.
fn cargo_install(krate: &str, version: &str, root: &Path) -> Result<(), String> {
    let stamp = root.join(format!("{krate}-{version}"));
    if stamp.exists() {
        return Ok(());
    }
    println!("building {krate} {version}");
    let output = Command::new("cargo")
        .args(["install", krate, "--version", version, "--locked", "--root"])
        .arg(root)
        .output()
        .map_err(|error| format!("cargo install: {error}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!(
            "cargo install {krate} failed: {}",
            stderr.lines().last().unwrap_or_default()
        ));
    }
    fs::write(stamp, "").map_err(|error| error.to_string())
}

fn shell(line: &str) -> Result<String, BenchError> {
    let output = Command::new("sh").args(["-c", line]).output().map_err(io("running a shell"))?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        Ok(text)
    } else {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(BenchError::Figure { program: line.into(), output })
    }
}
