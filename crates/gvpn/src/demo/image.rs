//! The payloads' image: a small root file system from programs of this machine.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use crate::failure::{Failure, Outcome};

/// Applets of busybox that the demo uses, and what a person expects in a shell.
const APPLETS: &[&str] = &[
    "sh",
    "ash",
    "awk",
    "cat",
    "chmod",
    "cp",
    "date",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "free",
    "grep",
    "head",
    "hostname",
    "httpd",
    "id",
    "ifconfig",
    "ip",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mount",
    "mv",
    "nc",
    "netstat",
    "nslookup",
    "ping",
    "ping6",
    "printf",
    "ps",
    "pwd",
    "rm",
    "route",
    "sed",
    "sha256sum",
    "sleep",
    "sort",
    "tail",
    "telnet",
    "test",
    "top",
    "touch",
    "traceroute",
    "true",
    "uname",
    "vi",
    "wc",
    "wget",
    "which",
    "whoami",
];

/// Where the ssh client finds its key.
pub(crate) struct Image {
    /// The image, a tar archive.
    pub(crate) file: PathBuf,
    /// The private key that payloads let in.
    pub(crate) ssh_key: PathBuf,
}

/// Builds the image in `dir`.
pub(crate) fn build(dir: &Path) -> Outcome<Image> {
    let root = dir.join("image-root");
    for sub in
        ["bin", "etc/ssh", "root/.ssh", "run/sshd", "tmp", "www", "proc", "dev", "sys", "var/empty"]
    {
        fs::create_dir_all(root.join(sub)).map_err(Failure::io("the image's directories"))?;
    }
    let busybox = program("busybox", "busybox-static")?;
    install(&root, &busybox, "bin/busybox")?;
    for applet in APPLETS {
        symlink("busybox", root.join("bin").join(applet)).map_err(Failure::io("an applet"))?;
    }
    for (name, package) in [("iperf3", "iperf3"), ("sshd", "openssh-server")] {
        let path = program(name, package)?;
        install(&root, &path, path.strip_prefix("/").unwrap_or(&path))?;
    }
    write(
        &root,
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:74:74:sshd:/run/sshd:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    )?;
    write(&root, "etc/group", "root:x:0:\nsshd:x:74:\nnogroup:x:65534:\n")?;
    write(&root, "etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")?;
    write(&root, "etc/ssh/sshd_config", SSHD_CONFIG)?;
    // sshd uses it for old password hashes; with keys only, never.
    write(&root, "etc/shadow", "root:*:19000:0:99999:7:::\n")?;
    let ssh_key = dir.join("ssh-key");
    keygen(&ssh_key)?;
    keygen(&root.join("etc/ssh/host_key"))?;
    let public = fs::read_to_string(dir.join("ssh-key.pub")).map_err(Failure::io("the ssh key"))?;
    write(&root, "root/.ssh/authorized_keys", &public)?;
    for private in
        ["root", "root/.ssh", "etc/ssh/host_key", "etc/shadow", "root/.ssh/authorized_keys"]
    {
        let mode = if root.join(private).is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(root.join(private), fs::Permissions::from_mode(mode))
            .map_err(Failure::io("the image's permissions"))?;
    }
    let file = dir.join("payload.tar");
    pack(&root, &file).map_err(Failure::io("packing the image"))?;
    fs::remove_dir_all(&root).map_err(Failure::io("the image's directory"))?;
    Ok(Image { file, ssh_key })
}

const SSHD_CONFIG: &str = "\
Port 22
HostKey /etc/ssh/host_key
PermitRootLogin prohibit-password
PasswordAuthentication no
UsePAM no
StrictModes no
PidFile /run/sshd.pid
";

/// A program of this machine, wherever it is.
fn program(name: &str, package: &str) -> Outcome<PathBuf> {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
        .ok_or_else(|| {
            Failure::new(format!("`{name}` is not on this machine"))
                .hint(format!("apt-get install {package}"))
        })
}

/// Copies a program with its shared libraries.
fn install(root: &Path, program: &Path, to: impl AsRef<Path>) -> Outcome {
    copy(root, program, to.as_ref())?;
    let output = Command::new("ldd").arg(program).output().map_err(Failure::io("ldd"))?;
    // A static program has none; ldd says so with an error.
    let text = String::from_utf8_lossy(&output.stdout);
    let libraries: BTreeSet<&str> =
        text.split_whitespace().filter(|word| word.starts_with('/')).collect();
    for library in libraries {
        copy(root, Path::new(library), Path::new(library.trim_start_matches('/')))?;
    }
    Ok(())
}

fn copy(root: &Path, from: &Path, to: &Path) -> Outcome {
    let to = root.join(to);
    if to.exists() {
        return Ok(());
    }
    let parent = to.parent().unwrap_or(root);
    fs::create_dir_all(parent).map_err(Failure::io("the image's directories"))?;
    fs::copy(from, &to).map(drop).map_err(Failure::io(format!("copying {}", from.display())))
}

fn write(root: &Path, path: &str, text: &str) -> Outcome {
    fs::write(root.join(path), text).map_err(Failure::io(format!("writing the image's {path}")))
}

fn keygen(path: &Path) -> Outcome {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "gvpn demo", "-f"])
        .arg(path)
        .status()
        .map_err(|e| {
            Failure::io("cannot start ssh-keygen")(e).hint("apt-get install openssh-client")
        })?;
    if made.success() { Ok(()) } else { Err(Failure::new(format!("ssh-keygen ended with {made}"))) }
}

/// Packs a directory as root's files.
fn pack(root: &Path, file: &Path) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::new(fs::File::create(file)?));
    archive.follow_symlinks(false);
    append(&mut archive, root, Path::new(""))?;
    archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    Ok(())
}

fn append<W: io::Write>(archive: &mut tar::Builder<W>, root: &Path, at: &Path) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(root.join(at))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = at.join(entry.file_name());
        let metadata = entry.path().symlink_metadata()?;
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&metadata);
        header.set_uid(0);
        header.set_gid(0);
        if metadata.is_dir() {
            archive.append_data(&mut header, &path, io::empty())?;
            append(archive, root, &path)?;
        } else if metadata.is_symlink() {
            archive.append_link(&mut header, &path, fs::read_link(entry.path())?)?;
        } else {
            archive.append_data(&mut header, &path, fs::File::open(entry.path())?)?;
        }
    }
    Ok(())
}
