//! Requests for a file become frames of the client's WebSocket, and its frames their answers.

use std::{collections::HashMap, time::Duration};

use axum::extract::ws::{Message, WebSocket};
use gvpn_node::FileCall;
use tokio::{
    sync::{OwnedMutexGuard, mpsc, oneshot},
    time::{Instant, interval_at},
};

use super::frames::{self, Payload};

/// How often the client is pinged.
const PING: Duration = Duration::from_secs(10);

type Reply<T> = oneshot::Sender<Result<T, String>>;

/// A request that the client has not answered.
enum Pending {
    Size(Reply<u64>),
    Chunk(Reply<Vec<u8>>),
    Done(Reply<()>),
}

/// Serves until the client or the service is gone. Another WebSocket may take over then.
pub(super) async fn run(
    mut socket: WebSocket,
    mut calls: OwnedMutexGuard<mpsc::Receiver<FileCall>>,
) {
    let mut pending = HashMap::new();
    let mut count = 0_u64;
    let mut pings = interval_at(Instant::now() + PING, PING);
    loop {
        tokio::select! {
            call = calls.recv() => {
                let Some(call) = call else { break };
                count += 1;
                let id = count.to_string();
                let frame = ask(&id, call, &mut pending);
                if socket.send(Message::Binary(frame.into())).await.is_err() {
                    return;
                }
            }
            frame = socket.recv() => match frame {
                Some(Ok(Message::Binary(frame))) => take(&frame, &mut pending),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => {}
            },
            _ = pings.tick() => {
                if socket.send(Message::Ping(Default::default())).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = socket.send(Message::Close(None)).await;
}

fn ask(id: &str, call: FileCall, pending: &mut HashMap<String, Pending>) -> Vec<u8> {
    // Whoever asked and did not wait for the answer is forgotten.
    pending.retain(|_, p| !p.is_closed());
    let (frame, reply) = match call {
        FileCall::Size { reply } => (frames::metadata(id), Pending::Size(reply)),
        FileCall::Read { offset, size, reply } => {
            (frames::get_chunk(id, offset, size), Pending::Chunk(reply))
        }
        FileCall::Write { offset, content, reply } => {
            (frames::upload_chunk(id, offset, &content), Pending::Done(reply))
        }
        FileCall::Finish { hash, reply } => {
            (frames::upload_finished(id, &hash), Pending::Done(reply))
        }
    };
    pending.insert(id.to_owned(), reply);
    frame
}

fn take(frame: &[u8], pending: &mut HashMap<String, Pending>) {
    let Some(answer) = frames::answer(frame) else {
        tracing::debug!("a client's frame is no answer");
        return;
    };
    if let Some(pending) = pending.remove(&answer.id) {
        pending.settle(answer.result);
    }
}

impl Pending {
    fn is_closed(&self) -> bool {
        match self {
            Self::Size(reply) => reply.is_closed(),
            Self::Chunk(reply) => reply.is_closed(),
            Self::Done(reply) => reply.is_closed(),
        }
    }

    /// Whoever asked may have gone meanwhile.
    fn settle(self, result: Result<Payload, String>) {
        let missing = |what: &str| format!("the client's answer has no {what}");
        match self {
            Self::Size(reply) => {
                let size = result.and_then(|p| p.file_size.ok_or_else(|| missing("fileSize")));
                let _ = reply.send(size);
            }
            Self::Chunk(reply) => {
                let content = result.and_then(|p| p.content.ok_or_else(|| missing("content")));
                let _ = reply.send(content);
            }
            Self::Done(reply) => {
                let _ = reply.send(result.map(drop));
            }
        }
    }
}
