//! Where the parts of a container image are: files of a directory, or entries of an archive.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, BufReader, Read, Seek, Write},
    path::{Component, Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use nix::fcntl::OFlag;
use serde::de::DeserializeOwned;
use tar::EntryType;

use super::{Blob, Kind};
use crate::rooted::Root;

/// Largest JSON document that is read.
const DOCUMENT: u64 = 4 << 20;
/// Most entries of an archive.
const ENTRIES: usize = 100_000;
/// How many links are followed.
const LINKS: usize = 8;

/// The parts of a container image by their names.
#[derive(Debug)]
pub(super) enum Layout {
    Directory(Root),
    Archive { file: File, entries: HashMap<String, Place> },
}

/// Where an archive's entry is.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Here {
        first: u64,
        length: u64,
    },
    /// At another name: `docker save` links equal layers to each other.
    Link(String),
}

impl Layout {
    /// `None`: no container image.
    pub(super) fn open(path: &Path, scratch: &Path, bytes: u64) -> io::Result<Option<Self>> {
        if fs::metadata(path)?.is_dir() {
            let layout = Self::Directory(Root::at(path)?);
            return Ok(layout.is_container().then_some(layout));
        }
        let mut file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut head = vec![];
        (&mut file).take(Kind::HEAD as u64).read_to_end(&mut head)?;
        file.rewind()?;
        let file = match Kind::of(&head) {
            Some(Kind::Tar) => file,
            Some(kind @ (Kind::TarGz | Kind::TarZstd)) => {
                match uncompressed(file, kind, scratch, bytes)? {
                    Some(file) => file,
                    None => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let (entries, outcome) = list(&file)?;
        // One that breaks off is an archive of a root file system unless it has shown otherwise.
        let is_container = entries.keys().any(|name| is_telling(name));
        match outcome {
            Err(e) if is_container => return Err(e),
            Err(_) => return Ok(None),
            Ok(()) => {}
        }
        let has_parts = is_container && entries.keys().all(|name| is_telling(name));
        let layout = Self::Archive { file, entries };
        match layout.is_container() {
            true => Ok(Some(layout)),
            false if has_parts => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it has parts of a container image, but not what leads to them (index.json, \
                 manifest.json): is it whole?",
            )),
            false => Ok(None),
        }
    }

    pub(super) fn holds(&self, name: &str) -> bool {
        self.blob(name).is_ok()
    }

    /// The part of this name.
    pub(super) fn blob(&self, name: &str) -> Result<Blob, String> {
        match self {
            Self::Directory(root) => {
                let open = || -> io::Result<Blob> {
                    let file = root.regular(name, OFlag::O_RDONLY)?;
                    let length = file.metadata()?.len();
                    Ok(Blob { file, first: 0, length })
                };
                open().map_err(|e| format!("`{name}`: {e}"))
            }
            Self::Archive { file, entries } => {
                let (first, length) = find(entries, name)?;
                let file = file.try_clone().map_err(|e| e.to_string())?;
                Ok(Blob { file, first, length })
            }
        }
    }

    /// The JSON document of this name.
    pub(super) fn document<T: DeserializeOwned>(&self, name: &str) -> Result<T, String> {
        let blob = self.blob(name)?;
        if blob.length > DOCUMENT {
            return Err(format!("`{name}` is larger than {DOCUMENT} bytes"));
        }
        let mut text = vec![];
        let read = blob.reader().and_then(|mut reader| reader.read_to_end(&mut text));
        read.map_err(|e| format!("`{name}`: {e}"))?;
        serde_json::from_slice(&text).map_err(|e| format!("`{name}` is not understood: {e}"))
    }

    fn is_container(&self) -> bool {
        let layout = self.holds("oci-layout") && self.holds("index.json");
        layout || self.document::<Vec<super::DockerManifest>>("manifest.json").is_ok()
    }
}

fn find(entries: &HashMap<String, Place>, name: &str) -> Result<(u64, u64), String> {
    let mut wanted = plain(Path::new(name)).ok_or_else(|| format!("`{name}` is no plain name"))?;
    for _ in 0..LINKS {
        match entries.get(&wanted) {
            Some(Place::Here { first, length }) => return Ok((*first, *length)),
            Some(Place::Link(to)) => wanted.clone_from(to),
            None => return Err(format!("`{name}` is not there")),
        }
    }
    Err(format!("`{name}` is linked in a circle"))
}

type Entries = HashMap<String, Place>;

/// Where every file of an archive is, as far as it can be read, and whether it could be to its end.
fn list(file: &File) -> io::Result<(Entries, io::Result<()>)> {
    let end = file.metadata()?.len();
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut all = HashMap::new();
    for entry in archive.entries_with_seek()? {
        match entry.and_then(|entry| place(&entry)) {
            Ok(Some((_, Place::Here { first, length }))) if first.saturating_add(length) > end => {
                let text = format!("it breaks off: it has {end} bytes, and should have more");
                return Ok((all, Err(io::Error::new(io::ErrorKind::UnexpectedEof, text))));
            }
            Ok(Some((name, place))) => drop(all.insert(name, place)),
            Ok(None) => {}
            Err(e) => return Ok((all, Err(e))),
        }
        if all.len() > ENTRIES {
            // A root file system, then.
            all.clear();
            break;
        }
    }
    Ok((all, Ok(())))
}

fn place(entry: &tar::Entry<'_, impl Read>) -> io::Result<Option<(String, Place)>> {
    let path = entry.path()?;
    let place = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            Some(Place::Here { first: entry.raw_file_position(), length: entry.size() })
        }
        EntryType::Symlink => {
            let target = entry.link_name()?;
            let beside = target.map(|to| path.parent().unwrap_or(Path::new("")).join(to));
            beside.and_then(|to| plain(&to)).map(Place::Link)
        }
        EntryType::Link => entry.link_name()?.and_then(|to| plain(&to)).map(Place::Link),
        _ => None,
    };
    Ok(plain(&path).zip(place))
}

/// A relative path without `.` and `..`; `None` when it leads out.
fn plain(path: &Path) -> Option<String> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                if !plain.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    plain.to_str().map(str::to_owned)
}

/// A compressed archive of a container image, uncompressed into `scratch`; `None` when it seems to be
/// one of something else.
fn uncompressed(file: File, kind: Kind, scratch: &Path, bytes: u64) -> io::Result<Option<File>> {
    if !begins_as_container(decoder(file.try_clone()?, kind)?) {
        return Ok(None);
    }
    let mut file = file;
    file.rewind()?;
    let mut plain = tempfile::tempfile_in(scratch)?;
    let mut reader = decoder(file, kind)?.take(bytes.saturating_add(1));
    let length = io::copy(&mut reader, &mut plain)?;
    if length > bytes {
        let text = format!("it unpacks to more than {bytes} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    plain.flush()?;
    plain.rewind()?;
    Ok(Some(plain))
}

fn decoder(file: File, kind: Kind) -> io::Result<Box<dyn Read>> {
    Ok(match kind {
        Kind::TarZstd => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(MultiGzDecoder::new(BufReader::with_capacity(256 << 10, file))),
    })
}

fn begins_as_container(reader: Box<dyn Read>) -> bool {
    let mut archive = tar::Archive::new(reader);
    let Ok(entries) = archive.entries() else { return false };
    let names = entries.take(2).filter_map(|entry| plain(&entry.ok()?.path().ok()?));
    let Some(name) = names.into_iter().find(|name| !name.is_empty()) else { return false };
    is_telling(&name)
}

/// Whether a name is one that an archive of a container image has and others have not.
fn is_telling(name: &str) -> bool {
    let first = name.split('/').next().unwrap_or_default();
    let is_known = ["blobs", "oci-layout", "index.json", "manifest.json", "repositories"];
    is_known.contains(&first) || super::document::is_sha256(first.trim_end_matches(".json"))
}
