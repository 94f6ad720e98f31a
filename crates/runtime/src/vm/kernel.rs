//! Kernels of the host's packages, and the modules that a machine needs of them.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::{cpio::Archive, image::Kind};

/// The guest agent.
const AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest-agent"));
/// A kernel to boot in QEMU.
const KERNEL: &str = "GVPN_VM_KERNEL";
/// The directory of its modules.
const MODULES: &str = "GVPN_VM_MODULES";
/// What every machine may need that a kernel may have as a module.
const WANTED: &[&str] =
    &["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_console", "ipv6"];

/// A kernel and its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) image: PathBuf,
    /// Where modules are looked for.
    modules: PathBuf,
}

impl Kernel {
    /// User-mode Linux, which is a program.
    pub(super) fn user_mode() -> Result<Self, String> {
        let path = env::var_os("PATH").unwrap_or_default();
        let names = ["linux.uml", "linux"];
        let mut found = env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
        let image = found
            .find(|path| path.is_file())
            .ok_or("there is no linux.uml on this host (Debian: the package user-mode-linux)")?;
        Ok(Self { image, modules: newest("/usr/lib/uml/modules").unwrap_or_default() })
    }

    /// A kernel for a machine of its own.
    pub(super) fn for_machine() -> Result<Self, String> {
        if let Some(image) = env::var_os(KERNEL) {
            let modules = env::var_os(MODULES).map(PathBuf::from).unwrap_or_default();
            return Ok(Self { image: image.into(), modules });
        }
        let kernels = fs::read_dir("/boot").into_iter().flatten().flatten();
        let mut kernels: Vec<PathBuf> = kernels
            .map(|entry| entry.path())
            .filter(|path| path.to_string_lossy().starts_with("/boot/vmlinuz-"))
            .collect();
        kernels.sort();
        let image = kernels.pop().filter(|path| fs::File::open(path).is_ok()).ok_or(format!(
            "there is no kernel under /boot that may be read; name one with {KERNEL}, and the \
             directory of its modules with {MODULES}"
        ))?;
        let release = image.to_string_lossy().replacen("/boot/vmlinuz-", "", 1);
        Ok(Self { image, modules: Path::new("/lib/modules").join(release) })
    }

    /// Writes the initial file system: the agent and the modules in their order of loading, those for this
    /// kind of disk among them.
    pub(super) fn write_initramfs(&self, to: &Path, disk: Kind) -> io::Result<()> {
        let mut archive = Archive::new(BufWriter::new(fs::File::create(to)?));
        for directory in ["dev", "proc", "sys", "root", "lower", "layer", "modules"] {
            archive.directory(directory)?;
        }
        archive.device("dev/console", 5, 1)?;
        archive.program("init", AGENT)?;
        for (number, (name, contents)) in self.wanted_modules(disk)?.into_iter().enumerate() {
            archive.program(&format!("modules/{number:03}-{name}.ko"), &contents)?;
        }
        archive.finish()?.flush()
    }

    fn wanted_modules(&self, disk: Kind) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut files = BTreeMap::new();
        if self.modules.is_dir() {
            find_modules(&self.modules, &mut files)?;
        }
        let mut loaded = vec![];
        for name in WANTED.iter().chain(disk.modules()) {
            add(name, &files, &mut loaded)?;
        }
        Ok(loaded)
    }
}

/// Adds a module after those that it depends on.
fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    loaded: &mut Vec<(String, Vec<u8>)>,
) -> io::Result<()> {
    let name = name.replace('-', "_");
    let Some(path) = files.get(&name) else { return Ok(()) };
    if loaded.iter().any(|(other, _)| *other == name) {
        return Ok(());
    }
    let contents = fs::read(path)?;
    for dependency in dependencies(&contents) {
        add(&dependency, files, loaded)?;
    }
    loaded.push((name, contents));
    Ok(())
}

/// What a module says it depends on: `depends=a,b` in its `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    let key = b"\0depends=";
    let Some(at) = module.windows(key.len()).position(|window| window == key) else {
        return vec![];
    };
    let text = module[at + key.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn find_modules(directory: &Path, into: &mut BTreeMap<String, PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_dir() {
            find_modules(&path, into)?;
        } else if path.extension().is_some_and(|ending| ending == "ko")
            && let Some(name) = path.file_stem()
        {
            into.insert(name.to_string_lossy().replace('-', "_"), path);
        }
    }
    Ok(())
}

fn newest(directory: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_a_module() {
        let module = b"\x7fELF..license=GPL\0depends=crc-ccitt,libcrc32c\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["crc-ccitt", "libcrc32c"]);
        assert!(dependencies(b"license=GPL\0depends=\0").is_empty());
        assert!(dependencies(b"nothing").is_empty());
    }
}
