//! Frames on a stream.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The largest frame that is sent or read.
pub const MAX_FRAME: usize = 32 << 20;

/// Sends one message as JSON.
///
/// # Errors
/// When the stream is gone, or the message too large.
pub async fn send<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> io::Result<()> {
    send_frame(stream, &serde_json::to_vec(message)?).await
}

/// Receives one message; `None` when the stream ended before it.
///
/// # Errors
/// When the stream is gone or ends within the message, or it is not a `T`.
pub async fn receive<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<T>> {
    let Some(frame) = receive_frame(stream).await? else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&frame)?))
}

/// Sends one frame of bytes.
///
/// # Errors
/// When the stream is gone, or the frame too large.
pub async fn send_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    let length = u32::try_from(frame.len()).ok().filter(|n| *n as usize <= MAX_FRAME);
    let length = length.ok_or_else(|| too_large(frame.len()))?;
    let mut bytes = Vec::with_capacity(4 + frame.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(frame);
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Receives one frame of bytes; `None` when the stream ended before it.
///
/// # Errors
/// When the stream is gone or ends within the frame, or the frame is too large.
pub async fn receive_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(too_large(length));
    }
    // Memory follows what arrives, not what was announced.
    let mut frame = Vec::with_capacity(length.min(64 << 10));
    stream.take(length as u64).read_to_end(&mut frame).await?;
    if frame.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(frame))
}

fn too_large(length: usize) -> io::Error {
    let reason = format!("a frame of {length} bytes is larger than {MAX_FRAME}");
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_arrive_whole_or_not_at_all() {
        let (mut a, mut b) = tokio::io::duplex(16);
        let text = "x".repeat(1000);
        let (sent, received) = tokio::join!(send(&mut a, &text), receive::<String>(&mut b));
        sent.unwrap();
        assert_eq!(received.unwrap().unwrap(), text);
        drop(a);
        assert!(receive::<String>(&mut b).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn broken_frames_are_errors() {
        for bytes in [&[0, 0][..], &[0, 0, 0, 9, 1], &[255, 255, 255, 255], &[0, 0, 0, 1, b'{']] {
            let mut stream = bytes;
            assert!(receive::<String>(&mut stream).await.is_err(), "{bytes:?}");
        }
    }
}
