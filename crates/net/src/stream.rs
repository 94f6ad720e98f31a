//! A reliable stream of bytes between two nodes.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use gvpn_model::NodeId;
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::NetError;

/// The largest message of [`Stream::send_msg`] and [`Stream::recv_msg`], in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;

/// A reliable, ordered stream of bytes to one service of a peer, with half-close.
///
/// Dropping it resets what was not yet sent and tells the peer to send no more.
#[derive(Debug)]
pub struct Stream {
    pub(crate) peer: NodeId,
    pub(crate) send: quinn::SendStream,
    pub(crate) recv: quinn::RecvStream,
}

impl Stream {
    /// The node at the other end.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// Says that nothing more will be written; reading goes on.
    ///
    /// # Errors
    /// [`NetError::Closed`] if the stream was reset before.
    pub fn finish(&mut self) -> Result<(), NetError> {
        self.send.finish().map_err(|e| self.closed(&e))
    }

    /// Sends one message: its length (4 bytes, big-endian) and its JSON.
    ///
    /// # Errors
    /// [`NetError`] if it is larger than [`MAX_MESSAGE`] or the stream has ended.
    pub async fn send_msg<T: Serialize>(&mut self, message: &T) -> Result<(), NetError> {
        let body = serde_json::to_vec(message).map_err(|e| self.message(&e))?;
        if body.len() > MAX_MESSAGE {
            return Err(self.message(&format!("{} bytes are more than {MAX_MESSAGE}", body.len())));
        }
        let length = u32::try_from(body.len()).map_err(|e| self.message(&e))?;
        let mut frame = length.to_be_bytes().to_vec();
        frame.extend_from_slice(&body);
        self.send.write_all(&frame).await.map_err(|e| self.closed(&e))
    }

    /// Receives one message; `None` when the peer finished between messages.
    ///
    /// # Errors
    /// [`NetError`] if it is too large, not JSON of a `T`, or the stream ended within it.
    pub async fn recv_msg<T: DeserializeOwned>(&mut self) -> Result<Option<T>, NetError> {
        let Some(body) = self.recv_frame(MAX_MESSAGE).await? else { return Ok(None) };
        serde_json::from_slice(&body).map(Some).map_err(|e| self.message(&e))
    }

    /// Sends one frame of raw bytes: its length (4 bytes, big-endian) and the bytes.
    ///
    /// # Errors
    /// As [`send_msg`](Self::send_msg).
    pub async fn send_frame(&mut self, body: &[u8]) -> Result<(), NetError> {
        if body.len() > MAX_MESSAGE {
            return Err(self.message(&format!("{} bytes are more than {MAX_MESSAGE}", body.len())));
        }
        let length = u32::try_from(body.len()).map_err(|e| self.message(&e))?;
        self.write_all(&length.to_be_bytes()).await.map_err(|e| self.closed(&e))?;
        self.write_all(body).await.map_err(|e| self.closed(&e))
    }

    /// Receives one frame of at most `limit` bytes; `None` when the peer finished between frames.
    ///
    /// # Errors
    /// As [`recv_msg`](Self::recv_msg).
    pub async fn recv_frame(&mut self, limit: usize) -> Result<Option<Vec<u8>>, NetError> {
        let mut length = [0; 4];
        let mut have = 0;
        while have < 4 {
            match self.read(&mut length[have..]).await.map_err(|e| self.closed(&e))? {
                0 if have == 0 => return Ok(None),
                0 => return Err(self.closed(&"the stream ended within a message")),
                n => have += n,
            }
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > limit {
            return Err(self.message(&format!("{length} bytes are more than {limit}")));
        }
        let mut body = Vec::with_capacity(length.min(1 << 16));
        let mut limited = (&mut self.recv).take(length as u64);
        let read = limited.read_to_end(&mut body).await.map_err(|e| self.closed(&e))?;
        if read < length {
            return Err(self.closed(&"the stream ended within a message"));
        }
        Ok(Some(body))
    }

    fn closed(&self, reason: &impl ToString) -> NetError {
        NetError::Closed { node: self.peer, reason: reason.to_string() }
    }

    fn message(&self, reason: &impl ToString) -> NetError {
        NetError::Message { node: self.peer, reason: reason.to_string() }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}
