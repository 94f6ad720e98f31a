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
    Bounds, ImageConfig, ImageError, Kind, directory, oci,
    unpack::{Contents, Job, Outcome},
};
use crate::{Helper, Payload, RuntimeError};

/// Unpacked images and layers, each under the digest of its content.
#[derive(Debug, Clone)]
pub struct ImageStore {
    directory: PathBuf,
}

/// The root file system of an image. As long as this is held, what it is made of stays in the store.
#[derive(Debug, Default)]
pub struct RootFs {
    layers: Vec<Stored>,
    config: ImageConfig,
}

/// An unpacked tree; not removed as long as this is held.
#[derive(Debug)]
struct Stored {
    root: PathBuf,
    bytes: u64,
    _in_use: Flock<File>,
}

impl RootFs {
    /// The directories that it is made of, lowest first; not to be written to.
    pub fn layers(&self) -> Vec<PathBuf> {
        self.layers.iter().map(|layer| layer.root.clone()).collect()
    }

    /// How the image wants its programs to be run.
    pub fn config(&self) -> &ImageConfig {
        &self.config
    }
}

/// For whom an image is unpacked, and with what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unpacking<'a> {
    /// Where the payload shall live: the unpacking is done there.
    pub(crate) namespace: &'a Namespace,
    /// How to start the unpacking process.
    pub(crate) helper: &'a Helper,
    /// A directory for what is not finished, on the store's file system.
    pub(crate) scratch: &'a Path,
    /// How much it may unpack to.
    pub(crate) bytes: Option<u64>,
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

    /// The root file system of a payload's image.
    ///
    /// # Errors
    /// [`RuntimeError`]: there is no image, or it cannot be used.
    pub async fn image_of(payload: &Payload) -> Result<RootFs, RuntimeError> {
        let config = payload.config();
        let Some(path) = payload.image() else {
            let text = "this runtime needs an image: name one in the agreement or the demand";
            return Err(RuntimeError::Failed(text.to_owned()));
        };
        let unpacking = Unpacking {
            namespace: payload.namespace().await?,
            helper: &config.helper,
            scratch: &config.directory,
            bytes: config.limits.storage,
        };
        Ok(Self::open(&config.images)?.unpack(&path, unpacking).await?)
    }

    /// The image at `path`: what of it was not unpacked before is now.
    ///
    /// # Errors
    /// [`ImageError`].
    pub(crate) async fn unpack(
        &self,
        path: &Path,
        unpacking: Unpacking<'_>,
    ) -> Result<RootFs, ImageError> {
        let mut bounds = Bounds::default();
        bounds.bytes = unpacking.bytes.unwrap_or(bounds.bytes).min(bounds.bytes);
        let opened = {
            let (path, scratch) = (path.to_owned(), unpacking.scratch.to_owned());
            let open = move || match oci::read(&path, &scratch, bounds.bytes)? {
                Some(container) => Ok(Opened::Container(container)),
                None => Source::open(&path).map(Opened::Tree),
            };
            tokio::task::spawn_blocking(open).await
        };
        let (sources, config) = match opened.map_err(|e| self.error(io::Error::other(e)))?? {
            Opened::Tree(source) => (vec![source], ImageConfig::default()),
            Opened::Container(container) => {
                let layers = container.layers.into_iter().map(Source::layer);
                (layers.collect(), container.config)
            }
        };
        let mut root = RootFs { layers: vec![], config };
        for source in sources {
            let layer = self.keep(path, source, unpacking, bounds).await?;
            let Some(left) = bounds.bytes.checked_sub(layer.bytes) else {
                return Err(ImageError::Contents {
                    path: path.to_owned(),
                    reason: "it unpacks to more than the activity's storage".to_owned(),
                });
            };
            bounds.bytes = left;
            root.layers.push(layer);
        }
        if root.layers.is_empty() {
            let reason = "it has no layers".to_owned();
            return Err(ImageError::Contents { path: path.to_owned(), reason });
        }
        Ok(root)
    }

    /// One tree of an image, unpacked unless it has been before.
    async fn keep(
        &self,
        path: &Path,
        source: Source,
        unpacking: Unpacking<'_>,
        bounds: Bounds,
    ) -> Result<Stored, ImageError> {
        let namespace = unpacking.namespace;
        let (root, _) = namespace.root();
        let place = self.directory.join(format!("{}-{root}-{}", source.digest, namespace.ids()));
        let root = place.join("rootfs");
        let mut source = Some(source);
        loop {
            let in_use = self.lock(&place, FlockArg::LockShared).await?;
            if root.exists() {
                let bytes = fs::read_to_string(place.join("bytes")).unwrap_or_default();
                let bytes = bytes.trim().parse().unwrap_or(0);
                return Ok(Stored { root, bytes, _in_use: in_use });
            }
            drop(in_use);
            let _making = self.lock(&place, FlockArg::LockExclusive).await?;
            if !root.exists()
                && let Some(source) = source.take()
            {
                let unpacked = fresh(unpacking.scratch);
                let contents = self.unpack_into(&unpacked, path, source, unpacking, bounds).await?;
                fs::create_dir_all(&place)
                    .and_then(|()| fs::write(place.join("bytes"), contents.bytes.to_string()))
                    .and_then(|()| fs::rename(&unpacked, &root))
                    .map_err(|e| self.error(e))?;
            }
        }
    }

    async fn unpack_into(
        &self,
        target: &Path,
        path: &Path,
        source: Source,
        unpacking: Unpacking<'_>,
        bounds: Bounds,
    ) -> Result<Contents, ImageError> {
        let namespace = unpacking.namespace;
        let (uid, gid) = namespace.root();
        fs::create_dir(target)
            .and_then(|()| chown(target, Some(uid), Some(gid)))
            .map_err(|e| self.error(e))?;
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        let refuse = |reason| ImageError::Contents { path: path.to_owned(), reason };
        let job = Job {
            kind: source.kind,
            bounds,
            own_ids: namespace.ids() > 1,
            is_layer: source.diff_id.is_some(),
            part: source.part,
        };
        let diff_id = source.diff_id.clone();
        let (image, feeder) = source.into_reader().map_err(read)?;
        let (mut process, socket) = unpacking
            .helper
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
        let contents = match (outcome, fed) {
            (_, Some(Ok(Err(e)))) if e.kind() != io::ErrorKind::BrokenPipe => return Err(read(e)),
            (Some((Ok(contents), _)), _) => contents,
            (Some((Err(reason), _)), _) => return Err(refuse(reason)),
            (None, _) => return Err(refuse(format!("unpacking it ended with {status}"))),
        };
        match diff_id {
            Some(told) if told != contents.diff_id => {
                Err(refuse(oci::mismatch("unpacked layer", &told, &contents.diff_id)))
            }
            _ => Ok(contents),
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

/// An image, opened.
enum Opened {
    Tree(Source),
    Container(oci::Container),
}

/// A tree on its way into the store.
struct Source {
    digest: String,
    kind: Kind,
    from: From,
    /// Where in the file it is: first byte and length.
    part: Option<(u64, u64)>,
    /// Of a layer: what its unpacked archive must hash to.
    diff_id: Option<String>,
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
                part: None,
                diff_id: None,
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
        Ok(Self { digest, kind, from: From::File(file), part: None, diff_id: None })
    }

    fn layer(layer: oci::Layer) -> Self {
        Self {
            digest: format!("layer-{}", layer.diff_id),
            kind: layer.kind,
            from: From::File(layer.blob.file),
            part: Some((layer.blob.first, layer.blob.length)),
            diff_id: Some(layer.diff_id),
        }
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
