//! A reliable stream of bytes between two nodes.
//!
//! A stream begins with the name of the service it is for: its length (one byte) and the name.
//! The other end answers with one byte, 0; or with 1, the length of a reason (one byte) and the
//! reason, and ends the stream.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use gvpn_dataplane::Hop;
use gvpn_model::NodeId;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    sync::watch,
};

use crate::{NetError, connection::Conn};

/// The largest message of [`Stream::send_msg`] and [`Stream::recv_msg`], in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;
/// How often a stream that is kept alive is tried.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How long each end waits for the other while a stream is opened.
const OPEN: Duration = Duration::from_secs(10);
const ACCEPTED: u8 = 0;
const REFUSED: u8 = 1;

/// A reliable, ordered stream of bytes to one service of a peer, with half-close.
///
/// Dropping it sends what was written, tells the peer that nothing more will be, and to send no
/// more itself.
#[derive(Debug)]
pub struct Stream {
    writer: StreamWriter,
    reader: StreamReader,
}

/// The half of a [`Stream`] that sends.
#[derive(Debug)]
pub struct StreamWriter {
    peer: NodeId,
    send: quinn::SendStream,
    conn: Arc<Conn>,
    keep: Option<Arc<KeepAlive>>,
}

/// The half of a [`Stream`] that receives.
#[derive(Debug)]
pub struct StreamReader {
    peer: NodeId,
    recv: quinn::RecvStream,
    conn: Arc<Conn>,
    keep: Option<Arc<KeepAlive>>,
}

#[derive(Debug)]
struct KeepAlive(Arc<Conn>, Duration);

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.0.release(self.1);
    }
}

impl Stream {
    pub(crate) fn new(conn: &Arc<Conn>, send: quinn::SendStream, recv: quinn::RecvStream) -> Self {
        let (peer, conn) = (conn.node, Arc::clone(conn));
        let writer = StreamWriter { peer, send, conn: Arc::clone(&conn), keep: None };
        Self { writer, reader: StreamReader { peer, recv, conn, keep: None } }
    }

    /// Opens a stream to a service; returns once the peer has accepted it.
    pub(crate) async fn open(conn: &Arc<Conn>, service: &str) -> Result<Self, NetError> {
        let opened = async {
            let (send, recv) = conn.quic.open_bi().await.map_err(|e| conn.error(&e.to_string()))?;
            let mut stream = Self::new(conn, send, recv);
            let length = u8::try_from(service.len())
                .map_err(|_| stream.message(&"a service's name has at most 255 bytes"))?;
            let header = [&[length], service.as_bytes()].concat();
            stream.write_all(&header).await.map_err(|e| stream.closed(&e))?;
            let answer = stream.read_u8().await.map_err(|e| stream.closed(&e))?;
            match answer {
                ACCEPTED => Ok(stream),
                _ => {
                    let reason = stream.short_text().await?;
                    let (node, service) = (conn.node, service.to_owned());
                    Err(NetError::Refused { node, service, reason })
                }
            }
        };
        match tokio::time::timeout(OPEN, opened).await {
            Ok(result) => result,
            Err(_) => {
                let reason = format!("no answer within {OPEN:?} when opening `{service}`");
                Err(NetError::Unreachable { node: conn.node, reason })
            }
        }
    }

    /// The node at the other end.
    pub fn peer(&self) -> NodeId {
        self.writer.peer
    }

    /// Keeps the connection under this stream alive while the stream exists, and ends it within
    /// ten seconds when the peer no longer answers. Without this a silent stream may end when
    /// its connection has been idle for half a minute.
    pub fn keep_alive(&mut self) {
        self.keep_alive_every(KEEP_ALIVE);
    }

    /// As [`keep_alive`](Self::keep_alive), with a sign of life every `interval`; the peer is
    /// given up after four of them without an answer.
    pub fn keep_alive_every(&mut self, interval: Duration) {
        if self.writer.keep.is_none() {
            let conn = Arc::clone(&self.writer.conn);
            conn.keep(interval);
            let keep = Arc::new(KeepAlive(conn, interval));
            self.reader.keep = Some(Arc::clone(&keep));
            self.writer.keep = Some(keep);
        }
    }

    /// Ends [`keep_alive`](Self::keep_alive).
    pub fn let_idle(&mut self) {
        self.writer.keep = None;
        self.reader.keep = None;
    }

    /// Says that nothing more will be written; reading goes on.
    ///
    /// # Errors
    /// [`NetError::Closed`] if the stream was reset before.
    pub fn finish(&mut self) -> Result<(), NetError> {
        self.writer.finish()
    }

    /// Sends one message: its length (4 bytes, big-endian) and its JSON.
    ///
    /// # Errors
    /// [`NetError`] if it is larger than [`MAX_MESSAGE`] or the stream has ended.
    pub async fn send_msg<T: Serialize>(&mut self, message: &T) -> Result<(), NetError> {
        self.writer.send_msg(message).await
    }

    /// Receives one message; `None` when the peer finished between messages.
    ///
    /// # Errors
    /// [`NetError`] if it is too large, not JSON of a `T`, or the stream ended within it.
    pub async fn recv_msg<T: DeserializeOwned>(&mut self) -> Result<Option<T>, NetError> {
        self.reader.recv_msg().await
    }

    /// Sends one frame of raw bytes: its length (4 bytes, big-endian) and the bytes.
    ///
    /// # Errors
    /// As [`send_msg`](Self::send_msg).
    pub async fn send_frame(&mut self, body: &[u8]) -> Result<(), NetError> {
        self.writer.send_frame(body).await
    }

    /// Receives one frame of at most `limit` bytes; `None` when the peer finished between frames.
    ///
    /// # Errors
    /// As [`recv_msg`](Self::recv_msg).
    pub async fn recv_frame(&mut self, limit: usize) -> Result<Option<Vec<u8>>, NetError> {
        self.reader.recv_frame(limit).await
    }

    /// The two directions, to be used by two tasks.
    pub fn split(self) -> (StreamWriter, StreamReader) {
        (self.writer, self.reader)
    }

    pub(crate) fn closed(&self, reason: &impl ToString) -> NetError {
        closed(&self.writer.conn, reason)
    }

    pub(crate) fn message(&self, reason: &impl ToString) -> NetError {
        bad_message(self.writer.peer, reason)
    }

    /// One byte of length and as many of text.
    async fn short_text(&mut self) -> Result<String, NetError> {
        let length = self.read_u8().await.map_err(|e| self.closed(&e))?;
        let mut text = vec![0; usize::from(length)];
        self.read_exact(&mut text).await.map_err(|e| self.closed(&e))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Tells the opener that nobody serves this.
    pub(crate) async fn refuse(mut self, reason: &str) {
        let reason = &reason.as_bytes()[..reason.len().min(255)];
        let mut answer = vec![REFUSED, u8::try_from(reason.len()).unwrap_or(u8::MAX)];
        answer.extend_from_slice(reason);
        // If the opener is gone it needs no answer.
        let _ = self.writer.send.write_all(&answer).await;
    }

    /// Tells the opener that the stream is in good hands.
    pub(crate) async fn accept(&mut self) -> Result<(), NetError> {
        self.write_all(&[ACCEPTED]).await.map_err(|e| self.closed(&e))
    }
}

/// Reads for which service a stream is.
pub(crate) async fn welcome(mut stream: Stream) -> Result<(String, Stream), NetError> {
    match tokio::time::timeout(OPEN, stream.short_text()).await {
        Ok(service) => Ok((service?, stream)),
        Err(_) => Err(stream.message(&"the stream names no service")),
    }
}

impl StreamWriter {
    /// The node at the other end.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// The way to the peer that is in use: where the peer is, as this node sees it. The receiver
    /// tells when that changes.
    pub fn route(&self) -> watch::Receiver<Option<Hop>> {
        self.conn.path.watch()
    }

    /// As [`Stream::finish`].
    ///
    /// # Errors
    /// As [`Stream::finish`].
    pub fn finish(&mut self) -> Result<(), NetError> {
        self.send.finish().map_err(|e| closed(&self.conn, &e))
    }

    /// As [`Stream::send_msg`].
    ///
    /// # Errors
    /// As [`Stream::send_msg`].
    pub async fn send_msg<T: Serialize>(&mut self, message: &T) -> Result<(), NetError> {
        let body = serde_json::to_vec(message).map_err(|e| bad_message(self.peer, &e))?;
        self.send_frame(&body).await
    }

    /// As [`Stream::send_frame`].
    ///
    /// # Errors
    /// As [`Stream::send_frame`].
    pub async fn send_frame(&mut self, body: &[u8]) -> Result<(), NetError> {
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_MESSAGE);
        let Some(length) = length else {
            let reason = format!("{} bytes are more than {MAX_MESSAGE}", body.len());
            return Err(bad_message(self.peer, &reason));
        };
        let mut frame = Vec::with_capacity(4 + body.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(body);
        self.send.write_all(&frame).await.map_err(|e| closed(&self.conn, &e))
    }
}

impl StreamReader {
    /// The node at the other end.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// As [`Stream::recv_msg`].
    ///
    /// # Errors
    /// As [`Stream::recv_msg`].
    pub async fn recv_msg<T: DeserializeOwned>(&mut self) -> Result<Option<T>, NetError> {
        let Some(body) = self.recv_frame(MAX_MESSAGE).await? else { return Ok(None) };
        serde_json::from_slice(&body).map(Some).map_err(|e| bad_message(self.peer, &e))
    }

    /// As [`Stream::recv_frame`].
    ///
    /// # Errors
    /// As [`Stream::recv_frame`].
    pub async fn recv_frame(&mut self, limit: usize) -> Result<Option<Vec<u8>>, NetError> {
        let mut length = [0; 4];
        let mut have = 0;
        while have < length.len() {
            let read = AsyncReadExt::read(self, &mut length[have..]).await;
            match read.map_err(|e| closed(&self.conn, &e))? {
                0 if have == 0 => return Ok(None),
                0 => return Err(closed(&self.conn, &"the stream ended within a message")),
                n => have += n,
            }
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > limit {
            let reason = format!("{length} bytes are more than {limit}");
            return Err(bad_message(self.peer, &reason));
        }
        // The length is only a claim: memory is taken as bytes arrive.
        let mut body = Vec::with_capacity(length.min(1 << 16));
        let mut limited = AsyncReadExt::take(&mut *self, length as u64);
        let read = limited.read_to_end(&mut body).await;
        if read.map_err(|e| closed(&self.conn, &e))? < length {
            return Err(closed(&self.conn, &"the stream ended within a message"));
        }
        Ok(Some(body))
    }
}

fn closed(conn: &Conn, reason: &impl ToString) -> NetError {
    conn.error(&reason.to_string())
}

/// A message that does not fit, or is not what the protocol says.
pub(crate) fn bad_message(node: NodeId, reason: &impl ToString) -> NetError {
    NetError::Message { node, reason: reason.to_string() }
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf)
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.reader), cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.writer), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.writer), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.writer), cx)
    }
}
