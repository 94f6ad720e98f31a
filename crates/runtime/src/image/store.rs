//! The store of unpacked images.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::fs::{PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use gvpn_vnic::{Namespace, channel};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

use super::{
    Bounds, ImageError, Kind, directory,
    unpack::{Job, Outcome},
};
use crate::Helper;

/// Unpacked images, each under the digest of its content.
#[derive(Debug, Clone)]
pub struct ImageStore {
    directory: PathBuf,
}

/// An unpacked image. As long as this is held, the image is not removed.
#[derive(Debug)]
pub struct Image {
    root: PathBuf,
    _in_use: Flock<File>,
}

impl Image {
    /// The root of its file system; not to be written to.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl ImageStore {
    /// The store in `directory`, which is made when it is absent.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn open(directory: &Path) -> Result<Self, ImageError> {
        let store = Self { directory: directory.to_owned() };
        fs::create_dir_all(directory).map_err(|e| store.error(e))?;
        // Payloads' users reach unpacked images through here; names are digests and tell nothing.
        fs::set_permissions(directory, fs::Permissions::from_mode(0o711))
            .map_err(|e| store.error(e))?;
        Ok(store)
    }

    /// The image at `path`, unpacked now unless it has been before. `namespace` is where the payload
    /// shall live; the unpacking is done there, in `scratch`. It may unpack to at most `bytes`.
    ///
    /// # Errors
    /// [`ImageError`].
    pub async fn unpack(
        &self,
        path: &Path,
        namespace: &Namespace,
        helper: &Helper,
        scratch: &Path,
        bytes: Option<u64>,
    ) -> Result<Image, ImageError> {
        let source = {
            let path = path.to_owned();
            tokio::task::spawn_blocking(move || Source::open(&path)).await
        };
        let source = source.map_err(|e| self.error(io::Error::other(e)))??;
        let (root, _) = namespace.root();
        let place = self.directory.join(format!("{}-{root}-{}", source.digest, namespace.ids()));
        let root = place.join("rootfs");
        let mut source = Some(source);
        loop {
            let in_use = self.lock(&place, FlockArg::LockShared).await?;
            if root.exists() {
                return Ok(Image { root, _in_use: in_use });
            }
            drop(in_use);
            let _making = self.lock(&place, FlockArg::LockExclusive).await?;
            if !root.exists()
                && let Some(source) = source.take()
            {
                let unpacked = fresh(scratch);
                self.unpack_into(&unpacked, path, source, namespace, helper, bytes).await?;
                fs::create_dir_all(&place).map_err(|e| self.error(e))?;
                fs::rename(&unpacked, &root).map_err(|e| self.error(e))?;
            }
        }
    }

    async fn unpack_into(
        &self,
        target: &Path,
        path: &Path,
        source: Source,
        namespace: &Namespace,
        helper: &Helper,
        bytes: Option<u64>,
    ) -> Result<(), ImageError> {
        let (uid, gid) = namespace.root();
        fs::create_dir(target)
            .and_then(|()| chown(target, Some(uid), Some(gid)))
            .map_err(|e| self.error(e))?;
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        let refuse = |reason| ImageError::Contents { path: path.to_owned(), reason };
        let mut bounds = Bounds::default();
        bounds.bytes = bytes.unwrap_or(bounds.bytes).min(bounds.bytes);
        let job = Job { kind: source.kind, bounds, own_ids: namespace.ids() > 1 };
        let (image, feeder) = source.into_reader().map_err(read)?;
        let (mut process, socket) = helper
            .spawn("unpack", |command| {
                command.current_dir(target);
                namespace.enter(command, false)
            })
            .await
            .map_err(|e| self.error(e))?;
        let (sender, mut receiver) = channel::open(socket).map_err(|e| self.error(e))?;
        sender.post(&job, vec![image]).map_err(|e| self.error(e))?;
        let outcome = receiver.receive::<Outcome>().await.map_err(|e| self.error(e))?;
        let status = process.wait().await.map_err(|e| self.error(e))?;
        let fed = match feeder {
            Some(feeder) => tokio::task::spawn_blocking(move || feeder.join()).await.ok(),
            None => None,
        };
        match (outcome, fed) {
            (_, Some(Ok(Err(e)))) if e.kind() != io::ErrorKind::BrokenPipe => Err(read(e)),
            (Some((Ok(_), _)), _) => Ok(()),
            (Some((Err(reason), _)), _) => Err(refuse(reason)),
            (None, _) => Err(refuse(format!("unpacking it ended with {status}"))),
        }
    }

    async fn lock(&self, place: &Path, kind: FlockArg) -> Result<Flock<File>, ImageError> {
        let path = place.with_extension("lock");
        let locked = tokio::task::spawn_blocking(move || {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
            Flock::lock(file, kind).map_err(|(_, e)| io::Error::from(e))
        });
        let locked = locked.await.map_err(|e| self.error(io::Error::other(e)))?;
        locked.map_err(|e| self.error(e))
    }

    fn error(&self, source: io::Error) -> ImageError {
        ImageError::Store { path: self.directory.clone(), source }
    }
}

/// A name that no earlier attempt has left behind.
fn fresh(scratch: &Path) -> PathBuf {
    let names = (0_u32..).map(|n| scratch.join(format!("image-{n}")));
    names.into_iter().find(|path| !path.exists()).unwrap_or_else(|| scratch.join("image"))
}

/// An image on its way into the store.
struct Source {
    digest: String,
    kind: Kind,
    from: From,
}

enum From {
    File(File),
    Directory(PathBuf),
}

/// The thread that streams a directory.
type Feeder = std::thread::JoinHandle<io::Result<()>>;

impl Source {
    fn open(path: &Path) -> Result<Self, ImageError> {
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        if fs::metadata(path).map_err(read)?.is_dir() {
            let digest = directory::fingerprint(path).map_err(read)?;
            let from = From::Directory(path.to_owned());
            return Ok(Self {
                digest: format!("tree-{}", hex::encode(digest)),
                kind: Kind::Tar,
                from,
            });
        }
        let mut file = File::open(path).map_err(read)?;
        if !file.metadata().map_err(read)?.is_file() {
            return Err(ImageError::Kind(path.to_owned()));
        }
        let mut head = vec![];
        (&mut file).take(Kind::HEAD as u64).read_to_end(&mut head).map_err(read)?;
        let kind = Kind::of(&head).ok_or_else(|| ImageError::Kind(path.to_owned()))?;
        let digest = digest(&mut file, &head).map_err(read)?;
        Ok(Self { digest, kind, from: From::File(file) })
    }

    fn into_reader(self) -> io::Result<(OwnedFd, Option<Feeder>)> {
        match self.from {
            From::File(mut file) => {
                io::Seek::rewind(&mut file)?;
                Ok((file.into(), None))
            }
            From::Directory(path) => {
                let (reader, writer) = io::pipe()?;
                let feed = move || {
                    directory::archive(&path, io::BufWriter::with_capacity(256 << 10, writer))
                };
                Ok((reader.into(), Some(std::thread::spawn(feed))))
            }
        }
    }
}

fn digest(file: &mut File, head: &[u8]) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(head);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            n => hash.update(&buffer[..n]),
        }
    }
}
