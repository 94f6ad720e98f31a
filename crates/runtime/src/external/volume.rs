//! Directories that a runtime shares with its payload: the way of files in and out.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};

use crate::Access;

/// A directory of the working directory and where the payload sees it.
#[derive(Debug, Clone, serde::Deserialize)]
pub(super) struct Volume {
    name: String,
    path: String,
}

/// A runtime's volumes.
#[derive(Debug)]
pub(super) struct Volumes(Vec<(PathBuf, PathBuf)>);

impl Volumes {
    /// Makes the directories.
    pub(super) fn new(workdir: &Path, volumes: Vec<Volume>) -> Result<Self, String> {
        let place = |volume: Volume| {
            let name = Path::new(&volume.name);
            let parts: Vec<Component<'_>> = name.components().collect();
            let is_below =
                parts.iter().all(|p| matches!(p, Component::Normal(_) | Component::CurDir));
            if !is_below {
                return Err(format!("a volume must lie in the working directory: {}", volume.name));
            }
            let directory = workdir.join(name);
            fs::create_dir_all(&directory)
                .map_err(|e| format!("cannot make volume {}: {e}", volume.name))?;
            Ok((PathBuf::from(volume.path), directory))
        };
        volumes.into_iter().map(place).collect::<Result<_, _>>().map(Self)
    }

    /// Opens a file by the payload's path to it. The payload may have put links there: they lead
    /// nowhere.
    pub(super) fn open(&self, path: &str, access: Access) -> Result<File, String> {
        let path = Path::new(path);
        let of = |(seen, directory): &(PathBuf, PathBuf)| {
            let rest = path.strip_prefix(seen).ok()?.to_owned();
            Some((seen.components().count(), directory.clone(), rest))
        };
        let found = self.0.iter().filter_map(of).max_by_key(|(depth, ..)| *depth);
        let Some((_, directory, rest)) = found.filter(|(.., rest)| !rest.as_os_str().is_empty())
        else {
            let volumes: Vec<_> =
                self.0.iter().map(|(seen, _)| seen.display().to_string()).collect();
            return Err(format!("it is in none of the volumes ({})", volumes.join(", ")));
        };
        open_below(&directory, &rest, access).map_err(|e| match e.raw_os_error() {
            Some(libc::ELOOP | libc::EXDEV) => "a link is in the way".to_owned(),
            _ => e.to_string(),
        })
    }
}

fn open_below(directory: &Path, rest: &Path, access: Access) -> io::Result<File> {
    let how = |flags: OFlag| {
        OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS)
    };
    let mut at = OwnedFd::from(File::open(directory)?);
    if access == Access::Write {
        let parents = rest.parent().into_iter().flat_map(Path::components);
        for part in parents {
            let made =
                nix::sys::stat::mkdirat(&at, part.as_os_str(), Mode::from_bits_retain(0o755));
            if !matches!(made, Ok(()) | Err(nix::Error::EEXIST)) {
                made?;
            }
            at = openat2(at.as_fd(), part.as_os_str(), how(OFlag::O_DIRECTORY))?;
        }
        let name = rest.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NONBLOCK;
        let how = how(flags).mode(Mode::from_bits_retain(0o644));
        return regular(openat2(at, name, how)?);
    }
    regular(openat2(at, rest, how(OFlag::O_RDONLY | OFlag::O_NONBLOCK))?)
}

fn regular(file: OwnedFd) -> io::Result<File> {
    let file = File::from(file);
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::fs::symlink,
    };

    use super::*;

    #[test]
    fn files_stay_in_their_volumes() {
        let directory = tempfile::tempdir().unwrap();
        let volume = |name: &str, path: &str| Volume { name: name.into(), path: path.into() };
        let volumes = vec![volume("vol-a", "/work"), volume("vol-b", "/work/deep")];
        let volumes = Volumes::new(directory.path(), volumes).unwrap();
        volumes.open("/work/x/y", Access::Write).unwrap().write_all(b"one").unwrap();
        volumes.open("/work/deep/z", Access::Write).unwrap();
        assert!(directory.path().join("vol-a/x/y").exists());
        assert!(directory.path().join("vol-b/z").exists());
        let mut text = String::new();
        volumes.open("/work/x/y", Access::Read).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one");
        symlink("/etc", directory.path().join("vol-a/link")).unwrap();
        for path in
            ["/work/link/passwd", "/work/../../etc/passwd", "/etc/passwd", "/work", "/work/x"]
        {
            volumes.open(path, Access::Read).unwrap_err();
        }
        volumes.open("/work/link/evil", Access::Write).unwrap_err();
        Volumes::new(directory.path(), vec![volume("../up", "/up")]).unwrap_err();
    }
}
