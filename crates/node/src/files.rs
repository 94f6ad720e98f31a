//! Files between nodes: `gftp://NODE/NAME`, carried over the QUIC lane.
//!
//! A published file's name is the SHA3-256 of its content, so whoever fetches it can tell that it
//! got what was published. A receive slot's name is random and good for one file.

mod attached;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gvpn_model::NodeId;
use parking_lot::Mutex;
use sha3::{Digest, Sha3_256};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

pub use attached::FileCall;
use attached::is_given;

use crate::{
    ErrorKind, NodeError,
    core::Core,
    peers::{self, ANSWER_LIMIT, Call},
    proto::{self, FileReply, FileRequest},
};

const SCHEME: &str = "gftp://";
const BLOCK: usize = 256 << 10;
/// A transfer that does not move for this long has failed.
const STALL: Duration = Duration::from_secs(60);

/// The file service. Clones are handles of the same one.
#[derive(Clone)]
pub struct Files {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    published: Mutex<HashMap<String, PathBuf>>,
    slots: Mutex<HashMap<String, PathBuf>>,
    attached: Mutex<HashMap<String, mpsc::Sender<FileCall>>>,
}

impl Files {
    pub(crate) fn start(core: &Arc<Core>) -> Self {
        let inner = Inner {
            core: core.clone(),
            published: Mutex::default(),
            slots: Mutex::default(),
            attached: Mutex::default(),
        };
        let this = Self { inner: Arc::new(inner) };
        this.serve();
        this
    }

    /// Publishes a local file: whoever has the URL may fetch it from this node.
    ///
    /// # Errors
    /// `NotFound` or `Invalid` for a path that is not a readable file.
    pub async fn publish(&self, path: &Path) -> Result<String, NodeError> {
        let path = path.canonicalize().map_err(|e| unusable(path, &e))?;
        let mut file = File::open(&path).await.map_err(|e| unusable(&path, &e))?;
        if !file.metadata().await.is_ok_and(|data| data.is_file()) {
            return Err(NodeError::invalid(format!("{} is not a file", path.display())));
        }
        let mut hash = Sha3_256::new();
        let mut block = vec![0; BLOCK];
        loop {
            match file.read(&mut block).await.map_err(|e| unusable(&path, &e))? {
                0 => break,
                n => hash.update(&block[..n]),
            }
        }
        let name = hex::encode(hash.finalize());
        self.inner.published.lock().insert(name.clone(), path);
        Ok(self.url(&name))
    }

    /// Publishes a file whose URL is known already.
    pub(crate) fn publish_as(&self, url: &str, path: PathBuf) {
        if let Ok((_, name)) = parse(url) {
            self.inner.published.lock().insert(name.to_owned(), path);
        }
    }

    /// Ends a publication or a receive slot; unknown URLs are ignored.
    pub fn close(&self, url: &str) {
        if let Ok((node, name)) = parse(url)
            && node == self.inner.core.me
        {
            self.inner.published.lock().remove(name);
            self.inner.slots.lock().remove(name);
        }
    }

    /// A URL that one file may be sent to; it arrives in `path`, whole or not at all.
    ///
    /// # Errors
    /// `Invalid` for a path in a directory that does not exist.
    pub async fn receive(&self, path: &Path) -> Result<String, NodeError> {
        let path = std::path::absolute(path).map_err(|e| unusable(path, &e))?;
        let parent = path.parent().filter(|dir| dir.is_dir());
        if parent.is_none() || path.is_dir() {
            return Err(NodeError::invalid(format!("cannot write a file {}", path.display())));
        }
        let mut token = [0; 32];
        getrandom::fill(&mut token)
            .map_err(|e| NodeError::internal(format!("no randomness from the system: {e}")))?;
        let name = hex::encode(token);
        self.inner.slots.lock().insert(name.clone(), path);
        Ok(self.url(&name))
    }

    /// Fetches a published file of any node into a local one, checked against its name. Returns its size.
    ///
    /// # Errors
    /// `Invalid`, `NotFound`, `Unreachable`.
    pub async fn fetch(&self, url: &str, to: &Path) -> Result<u64, NodeError> {
        let file = File::create(to).await.map_err(|e| unusable(to, &e))?;
        self.fetch_into(url, file.into_std().await).await
    }

    /// As [`fetch`](Self::fetch), into an open file from its present position.
    pub(crate) async fn fetch_into(
        &self,
        url: &str,
        file: std::fs::File,
    ) -> Result<u64, NodeError> {
        let (node, name) = parse(url)?;
        let request = FileRequest::Get { name: name.to_owned() };
        let peers = &self.inner.core.peers;
        let (reply, mut channel) = peers.ask(node, proto::FILE, &request, ANSWER_LIMIT).await?;
        let FileReply::File { size } = reply else { return Err(no_answer(node)) };
        let mut file = File::from_std(file);
        let (got, hash) = copy(&mut channel, &mut file, size).await.map_err(|e| cut(url, &e))?;
        if got < size {
            return Err(cut(url, &format!("it ended after {got} of {size} bytes")));
        }
        if is_hash(name) && hash != name {
            return Err(NodeError::new(
                ErrorKind::Refused,
                format!("{url} is not what was published: the file there has changed"),
            ));
        }
        Ok(size)
    }

    /// Sends an open file, from its present position on, to a receive slot of any node.
    pub(crate) async fn store_from(
        &self,
        url: &str,
        mut file: std::fs::File,
    ) -> Result<(), NodeError> {
        use std::io::Seek;
        let (node, slot) = parse(url)?;
        let broken = |e: std::io::Error| NodeError::internal(format!("the file to send: {e}"));
        let size = file.metadata().map_err(broken)?.len();
        let size = size.saturating_sub(file.stream_position().map_err(broken)?);
        let request = FileRequest::Put { slot: slot.to_owned(), size };
        let peers = &self.inner.core.peers;
        let (reply, mut channel): (FileReply, _) =
            peers.ask(node, proto::FILE, &request, ANSWER_LIMIT).await?;
        if reply != FileReply::Ready {
            return Err(no_answer(node));
        }
        let mut file = File::from_std(file);
        let (sent, hash) = copy(&mut file, &mut channel, size).await.map_err(|e| cut(url, &e))?;
        if sent < size {
            return Err(cut(url, &"the file became shorter meanwhile"));
        }
        match timeout(STALL, peers::answer(node, &mut channel)).await {
            Ok(Ok(FileReply::Stored { hash: stored })) if stored == hash => Ok(()),
            Ok(Ok(_)) => Err(cut(url, &"it arrived damaged")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(cut(url, &"no answer")),
        }
    }

    fn url(&self, name: &str) -> String {
        format!("{SCHEME}{}/{name}", self.inner.core.me)
    }

    fn serve(&self) {
        let mut calls = self.inner.core.peers.serve(proto::FILE);
        let this = self.clone();
        self.inner.core.spawn(async move {
            while let Some(mut call) = calls.recv().await {
                let handler = this.clone();
                this.inner.core.spawn(async move {
                    let served = match call.request().await {
                        None => return,
                        Some(FileRequest::Get { name }) => handler.send(&mut call, &name).await,
                        Some(FileRequest::Put { slot, size }) => {
                            handler.take(&mut call, &slot, size).await
                        }
                    };
                    if let Err(error) = served {
                        call.answer::<FileReply>(Err(error)).await;
                    }
                });
            }
        });
    }

    async fn send(&self, call: &mut Call, name: &str) -> Result<(), NodeError> {
        if let Some(server) = self.attached_to(name) {
            return attached::send(call, &server).await;
        }
        let path = self.inner.published.lock().get(name).cloned();
        let path = path.ok_or_else(|| unpublished(name))?;
        let mut file = File::open(&path).await.map_err(|e| {
            tracing::warn!(path = %path.display(), error = %e, "a published file is gone");
            unpublished(name)
        })?;
        let size = file.metadata().await.map_err(|_| unpublished(name))?.len();
        let sent = async {
            call.reply(&Ok(FileReply::File { size })).await?;
            copy(&mut file, &mut call.channel, size).await?;
            call.channel.shutdown().await
        };
        if let Err(error) = sent.await {
            tracing::debug!(peer = %call.peer, %error, "a file was not sent to its end");
        }
        Ok(())
    }

    async fn take(&self, call: &mut Call, slot: &str, size: u64) -> Result<(), NodeError> {
        if let Some(server) = self.attached_to(slot) {
            return attached::take(call, &server, size).await;
        }
        let path = self.inner.slots.lock().remove(slot).ok_or_else(|| unpublished(slot))?;
        let part = path.with_file_name(format!(".gvpn-{slot}.part"));
        let taken = self.take_into(call, &part, size).await;
        let moved = match &taken {
            Ok(_) => tokio::fs::rename(&part, &path).await.map_err(|e| unusable(&path, &e)),
            Err(error) => Err(error.clone()),
        };
        match moved {
            Ok(()) => call.answer(Ok(FileReply::Stored { hash: taken? })).await,
            Err(error) => {
                let _ = tokio::fs::remove_file(&part).await;
                // The sender may try again.
                self.inner.slots.lock().insert(slot.to_owned(), path);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn take_into(
        &self,
        call: &mut Call,
        part: &Path,
        size: u64,
    ) -> Result<String, NodeError> {
        let mut file = File::create(part).await.map_err(|e| unusable(part, &e))?;
        let peer = call.peer;
        call.reply(&Ok(FileReply::Ready)).await.map_err(|e| peers::broken(peer, &e))?;
        let (got, hash) =
            copy(&mut call.channel, &mut file, size).await.map_err(|e| peers::broken(peer, &e))?;
        if got < size {
            return Err(peers::broken(peer, &format!("only {got} of {size} bytes arrived")));
        }
        Ok(hash)
    }
}

/// Copies up to `size` bytes, at a pace of at least a block a minute; returns their number and hash.
async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    size: u64,
) -> std::io::Result<(u64, String)> {
    let mut hash = Sha3_256::new();
    let mut block = vec![0; BLOCK];
    let mut done = 0;
    while done < size {
        let want = usize::try_from(size - done).unwrap_or(BLOCK).min(BLOCK);
        let n = timeout(STALL, from.read(&mut block[..want])).await??;
        if n == 0 {
            break;
        }
        hash.update(&block[..n]);
        timeout(STALL, to.write_all(&block[..n])).await??;
        done += n as u64;
    }
    timeout(STALL, to.flush()).await??;
    Ok((done, hex::encode(hash.finalize())))
}

/// Node and name of a URL.
fn parse(url: &str) -> Result<(NodeId, &str), NodeError> {
    let wrong = || {
        NodeError::invalid(format!("`{url}` is not a file of a node: expected {SCHEME}NODE/NAME"))
    };
    let (node, name) =
        url.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or_else(wrong)?;
    let known = is_hash(name) || is_given(name);
    Ok((node.parse().map_err(|_| wrong())?, known.then_some(name).ok_or_else(wrong)?))
}

/// A name that is the SHA3-256 of the content, or random in the same form.
fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

fn unpublished(name: &str) -> NodeError {
    NodeError::not_found(format!("no file {name} is published here: its publication has ended"))
}

fn unusable(path: &Path, error: &dyn std::fmt::Display) -> NodeError {
    NodeError::invalid(format!("file {}: {error}", path.display()))
}

fn cut(url: &str, error: &dyn std::fmt::Display) -> NodeError {
    NodeError::new(ErrorKind::Unreachable, format!("the transfer of {url} failed: {error}"))
}

fn no_answer(node: NodeId) -> NodeError {
    NodeError::internal(format!("node {node} gave no proper answer"))
}
