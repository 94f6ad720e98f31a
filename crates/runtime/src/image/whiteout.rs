//! What a layer removes from those below it (OCI image specification, "Whiteouts"), made into the form
//! that overlayfs knows.

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::layers::{mark_opaque, mark_removed};

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that some storage drivers keep for themselves.
const RESERVED: &[u8] = b".wh..wh.";

/// What an entry's name means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The entry is what it is.
    Plain,
    /// This path is removed from the layers below.
    Removes(PathBuf),
    /// This directory hides those of its name in the layers below.
    Hides(PathBuf),
    /// The entry means nothing.
    Nothing,
}

impl Name {
    /// What `path`, an absolute one, means.
    pub(super) fn of(path: &Path) -> Result<Self, &'static str> {
        let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
            return Ok(Self::Plain);
        };
        let name = name.as_bytes();
        if name == OPAQUE {
            return Ok(Self::Hides(parent.to_owned()));
        }
        if name.starts_with(RESERVED) {
            return Ok(Self::Nothing);
        }
        match name.strip_prefix(PREFIX) {
            None => Ok(Self::Plain),
            Some(b"" | b"." | b"..") => Err("removes no name that could be"),
            Some(name) => Ok(Self::Removes(parent.join(OsStr::from_bytes(name)))),
        }
    }
}

/// All that a layer removes.
#[derive(Debug, Default)]
pub(super) struct Whiteouts {
    removed: Vec<PathBuf>,
    hiding: Vec<PathBuf>,
}

impl Whiteouts {
    pub(super) fn note(&mut self, name: Name) {
        match name {
            Name::Removes(path) => self.removed.push(path),
            Name::Hides(path) => self.hiding.push(path),
            Name::Plain | Name::Nothing => {}
        }
    }

    /// Makes the marks. A name that the layer both removes and brings hides what is below it.
    pub(super) fn make(self) -> io::Result<()> {
        for path in self.removed {
            match fs::symlink_metadata(&path) {
                Ok(there) if there.is_dir() => named(&path, mark_opaque(&path))?,
                Ok(_) => {}
                Err(_) => {
                    if let Some(parent) = path.parent() {
                        fs::create_dir_all(parent)?;
                    }
                    named(&path, mark_removed(&path))?;
                }
            }
        }
        for path in self.hiding {
            fs::create_dir_all(&path)?;
            named(&path, mark_opaque(&path))?;
        }
        Ok(())
    }
}

fn named(path: &Path, outcome: io::Result<()>) -> io::Result<()> {
    outcome.map_err(|e| {
        let text =
            format!("this host cannot note that the layer removes `{}`: {e}", path.display());
        io::Error::new(e.kind(), text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let of = |path: &str| Name::of(Path::new(path));
        assert_eq!(of("/etc/passwd"), Ok(Name::Plain));
        assert_eq!(of("/"), Ok(Name::Plain));
        assert_eq!(of("/etc/.wh.passwd"), Ok(Name::Removes("/etc/passwd".into())));
        assert_eq!(of("/etc/.wh..wh..opq"), Ok(Name::Hides("/etc".into())));
        assert_eq!(of("/.wh..wh.plnk"), Ok(Name::Nothing));
        for path in ["/etc/.wh.", "/etc/.wh..", "/etc/.wh..."] {
            assert!(of(path).is_err(), "{path}");
        }
    }
}
