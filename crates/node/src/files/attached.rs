//! Files that something else than this node's file system holds: a client serves them, call by call.

use sha3::{Digest, Sha3_256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{Files, STALL};
use crate::{
    ErrorKind, NodeError,
    peers::{self, Call},
    proto::FileReply,
};

/// Bytes in one call.
const CHUNK: u64 = 256 << 10;

/// A request to who serves an attached file. Without an answer within a minute it has failed.
#[derive(Debug)]
pub enum FileCall {
    /// How large is it?
    Size {
        /// For the answer.
        reply: oneshot::Sender<Result<u64, String>>,
    },
    /// A part of it, please.
    Read {
        /// From here.
        offset: u64,
        /// So much; less only at the end.
        size: u64,
        /// For the answer.
        reply: oneshot::Sender<Result<Vec<u8>, String>>,
    },
    /// Take this part. Parts come in order.
    Write {
        /// At this place.
        offset: u64,
        /// The bytes.
        content: Vec<u8>,
        /// For the answer.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// That was all of it.
    Finish {
        /// SHA3-256 of all of it, hexadecimal.
        hash: String,
        /// For the answer.
        reply: oneshot::Sender<Result<(), String>>,
    },
}

impl Files {
    /// The file `name` of this node is served, or received, by whoever has the other end of `calls`.
    ///
    /// # Errors
    /// `Invalid` for a name that a URL cannot hold; `Conflict` for one in use.
    pub fn attach(&self, name: &str, calls: mpsc::Sender<FileCall>) -> Result<(), NodeError> {
        if !is_given(name) {
            return Err(NodeError::invalid(format!(
                "`{name}` is not a file's name: use 1 to 128 letters, digits, `-` and `_`"
            )));
        }
        let mut attached = self.inner.attached.lock();
        if attached.get(name).is_some_and(|calls| !calls.is_closed()) {
            return Err(NodeError::conflict(format!("there is a file `{name}` already")));
        }
        attached.insert(name.to_owned(), calls);
        Ok(())
    }

    /// Nobody serves that file any more.
    pub fn detach(&self, name: &str) {
        self.inner.attached.lock().remove(name);
    }

    pub(super) fn attached_to(&self, name: &str) -> Option<mpsc::Sender<FileCall>> {
        self.inner.attached.lock().get(name).cloned()
    }
}

/// A name that a client chose.
pub(super) fn is_given(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    (1..=128).contains(&name.len()) && name.bytes().all(plain)
}

/// Sends the file to who called.
pub(super) async fn send(
    call: &mut Call,
    server: &mpsc::Sender<FileCall>,
) -> Result<(), NodeError> {
    let size = ask(server, |reply| FileCall::Size { reply }).await?;
    let broken = |peer, e: std::io::Error| peers::broken(peer, &e);
    call.reply(&Ok(FileReply::File { size })).await.map_err(|e| broken(call.peer, e))?;
    let mut offset = 0;
    while offset < size {
        let want = CHUNK.min(size - offset);
        let read = ask(server, |reply| FileCall::Read { offset, size: want, reply }).await;
        let content = match read {
            Ok(content) if !content.is_empty() && content.len() as u64 <= want => content,
            // The answer is under way: all that can be done is to end it too early.
            _ => return Ok(()),
        };
        offset += content.len() as u64;
        let written = timeout(STALL, call.channel.write_all(&content)).await;
        written.map_err(|e| peers::broken(call.peer, &e))?.map_err(|e| broken(call.peer, e))?;
    }
    call.channel.shutdown().await.map_err(|e| broken(call.peer, e))
}

/// Receives the file from who called.
pub(super) async fn take(
    call: &mut Call,
    server: &mpsc::Sender<FileCall>,
    size: u64,
) -> Result<(), NodeError> {
    let peer = call.peer;
    call.reply(&Ok(FileReply::Ready)).await.map_err(|e| peers::broken(peer, &e))?;
    let mut hash = Sha3_256::new();
    let mut offset = 0;
    while offset < size {
        let want = usize::try_from(CHUNK.min(size - offset)).map_err(NodeError::internal)?;
        let mut content = vec![0; want];
        let read = timeout(STALL, call.channel.read_exact(&mut content)).await;
        read.map_err(|e| peers::broken(peer, &e))?.map_err(|e| peers::broken(peer, &e))?;
        hash.update(&content);
        ask(server, |reply| FileCall::Write { offset, content, reply }).await?;
        offset += want as u64;
    }
    let hash = hex::encode(hash.finalize());
    ask(server, |reply| FileCall::Finish { hash: hash.clone(), reply }).await?;
    call.answer(Ok(FileReply::Stored { hash })).await;
    Ok(())
}

async fn ask<T>(
    server: &mpsc::Sender<FileCall>,
    call: impl FnOnce(oneshot::Sender<Result<T, String>>) -> FileCall,
) -> Result<T, NodeError> {
    let (reply, answer) = oneshot::channel();
    let gone = || {
        let message = "the client that serves this file is gone";
        NodeError::new(ErrorKind::Unavailable, message)
    };
    let exchange = async {
        server.send(call(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?.map_err(|e| NodeError::new(ErrorKind::Refused, e))
    };
    match timeout(STALL, exchange).await {
        Ok(result) => result,
        Err(_) => {
            let message = "the client that serves this file does not answer";
            Err(NodeError::new(ErrorKind::Timeout, message))
        }
    }
}
