//! Messages of the net's own protocols: frames of postcard.

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use crate::{NetError, StreamReader, StreamWriter, stream::bad_message};

/// The largest message in bytes.
const MAX_BYTES: usize = 64 << 10;
/// How many messages may wait to be handled.
const BACKLOG: usize = 32;

/// Sends a message.
///
/// # Errors
/// [`NetError`] if the stream has ended.
pub async fn send<T: Serialize>(stream: &mut StreamWriter, message: &T) -> Result<(), NetError> {
    let body = postcard::to_stdvec(message).map_err(|e| bad_message(stream.peer(), &e))?;
    stream.send_frame(&body).await
}

/// Receives the messages of a stream in a task of their own: a receiver that may be polled beside
/// others without losing half of a message. The channel ends after an error or the stream's end.
pub fn inbox<T: DeserializeOwned + Send + 'static>(
    mut stream: StreamReader,
) -> mpsc::Receiver<Result<T, NetError>> {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                message = receive(&mut stream) => message.transpose(),
                () = sender.closed() => None,
            };
            let Some(message) = message else { return };
            let last = message.is_err();
            if sender.send(message).await.is_err() || last {
                return;
            }
        }
    });
    receiver
}

async fn receive<T: DeserializeOwned>(stream: &mut StreamReader) -> Result<Option<T>, NetError> {
    let Some(body) = stream.recv_frame(MAX_BYTES).await? else { return Ok(None) };
    postcard::from_bytes(&body).map(Some).map_err(|e| bad_message(stream.peer(), &e))
}
