//! Images: what a payload's root file system is made from.
//!
//! An image is unpacked once, by a process in the user namespace of the payload that is shut in its
//! target directory, and shared read-only by every activity that uses it.

mod config;
pub(crate) mod directory;
mod oci;
mod pack;
mod store;
mod unpack;
mod whiteout;

use std::{io, path::PathBuf};

pub use config::ImageConfig;
pub use pack::{ImageKind, build_image, directory_size, image_kind, pack_directory};
pub use store::{ImageStore, RootFs};
pub(crate) use unpack::unpack_main;

/// Why an image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such file, or it cannot be read.
    #[error("cannot read image {path}: {source}")]
    Read {
        /// The image.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not an image of a known kind.
    #[error(
        "{0} is not an image: expected an OCI image layout, an archive of `docker save`, a root file \
         system as directory or tar archive (plain, gzip, zstd), or a squashfs"
    )]
    Kind(PathBuf),
    /// Its contents are damaged or not to be trusted.
    #[error("image {path} is refused: {reason}")]
    Contents {
        /// The image.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store of unpacked images cannot be used.
    #[error("cannot store an image under {path}: {source}")]
    Store {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What an image file is, told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum Kind {
    Tar,
    TarGz,
    TarZstd,
    Squashfs,
}

impl Kind {
    /// Length of the head that [`of`](Self::of) wants to see.
    pub(crate) const HEAD: usize = 512;

    pub(crate) fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x1f, 0x8b, 0x08, ..] => Some(Self::TarGz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::TarZstd),
            [b'h', b's', b'q', b's', ..] => Some(Self::Squashfs),
            _ if head.get(257..262) == Some(b"ustar") => Some(Self::Tar),
            _ if is_old_tar(head) => Some(Self::Tar),
            _ => None,
        }
    }
}

/// A tar header from before `ustar` is known by its checksum.
fn is_old_tar(head: &[u8]) -> bool {
    let Some(header) = head.first_chunk::<512>() else { return false };
    let field = String::from_utf8_lossy(&header[148..156]);
    let Ok(told) = u32::from_str_radix(field.trim_matches([' ', '\0']), 8) else { return false };
    let sum =
        |range: std::ops::Range<usize>| header[range].iter().map(|b| u32::from(*b)).sum::<u32>();
    header[0] != 0 && told == sum(0..148) + 8 * u32::from(b' ') + sum(156..512)
}

/// How much an image may unpack to.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(crate) struct Bounds {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { bytes: 32 << 30, entries: 4_000_000 }
    }
}
