//! Streams and frames through the gate.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use futures::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        http::{HeaderValue, header},
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

use crate::{Error, http::Http, http::message};

/// The subprotocol in which an empty text message ends one direction, as TCP's FIN does.
const EOF_PROTOCOL: &str = "gvpn.eof";
/// The largest frame that is sent.
const FRAME_MAX: usize = 256 << 10;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A TCP connection to a payload, through the gate. `shutdown` ends the sending direction only.
#[derive(Debug)]
pub struct GateStream {
    socket: Socket,
    half_close: bool,
    received: Bytes,
    read_ended: bool,
    write_ended: bool,
}

impl GateStream {
    pub(crate) async fn open(http: &Http, path: &str) -> Result<Self, Error> {
        let (socket, protocol) = dial(http, path, Some(EOF_PROTOCOL)).await?;
        Ok(Self {
            socket,
            half_close: protocol.as_deref() == Some(EOF_PROTOCOL),
            received: Bytes::new(),
            read_ended: false,
            write_ended: false,
        })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, message: Message) -> Poll<io::Result<()>> {
        ready!(self.socket.poll_ready_unpin(cx)).map_err(broken)?;
        Poll::Ready(self.socket.start_send_unpin(message).map_err(broken))
    }

    /// What a Close frame says of the payload's end.
    fn closed(frame: Option<CloseFrame>) -> io::Result<()> {
        match frame {
            Some(frame) if frame.code == CloseCode::Error => {
                Err(io::Error::new(io::ErrorKind::ConnectionReset, frame.reason.to_string()))
            }
            _ => Ok(()),
        }
    }
}

impl AsyncRead for GateStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.received.is_empty() && !this.read_ended {
            match ready!(this.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Binary(data))) => this.received = data,
                Some(Ok(Message::Text(text))) if text.is_empty() && this.half_close => {
                    this.read_ended = true;
                }
                Some(Ok(Message::Text(text))) => this.received = text.into(),
                Some(Ok(Message::Close(frame))) => {
                    this.read_ended = true;
                    this.write_ended = true;
                    Self::closed(frame)?;
                }
                Some(Ok(_)) => {}
                None => this.read_ended = true,
                Some(Err(e)) => return Poll::Ready(Err(broken(e))),
            }
        }
        let n = this.received.len().min(buf.remaining());
        buf.put_slice(&this.received[..n]);
        this.received.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GateStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.write_ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let piece = &buf[..buf.len().min(FRAME_MAX)];
        ready!(self.socket.poll_ready_unpin(cx)).map_err(broken)?;
        let message = Message::Binary(Bytes::copy_from_slice(piece));
        self.socket.start_send_unpin(message).map_err(broken)?;
        // Sent at once, as a TCP socket does; what does not fit now goes with the next call.
        if let Poll::Ready(sent) = self.socket.poll_flush_unpin(cx) {
            sent.map_err(broken)?;
        }
        Poll::Ready(Ok(piece.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_flush_unpin(cx).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.write_ended {
            let last =
                if self.half_close { Message::Text("".into()) } else { Message::Close(None) };
            ready!(self.poll_send(cx, last))?;
            self.write_ended = true;
        }
        match ready!(self.socket.poll_flush_unpin(cx)) {
            // Closed by the other end already: then there is nothing left to say.
            Ok(()) | Err(tungstenite::Error::ConnectionClosed) => Poll::Ready(Ok(())),
            Err(e) => Poll::Ready(Err(broken(e))),
        }
    }
}

/// Ethernet frames to and from a payload, through the gate.
#[derive(Debug)]
pub struct RawFrames {
    socket: Socket,
}

impl RawFrames {
    pub(crate) async fn open(http: &Http, path: &str) -> Result<Self, Error> {
        let (socket, _) = dial(http, path, None).await?;
        Ok(Self { socket })
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// [`Error::Io`] when the connection is gone.
    pub async fn send(&mut self, frame: &[u8]) -> Result<(), Error> {
        let message = Message::Binary(Bytes::copy_from_slice(frame));
        self.socket.send(message).await.map_err(|e| Error::io("the gate")(broken(e)))
    }

    /// The next frame; `None` when the connection has ended.
    ///
    /// # Errors
    /// [`Error::Io`] when it broke.
    pub async fn receive(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Binary(frame))) => return Ok(Some(frame)),
                Some(Ok(Message::Close(_))) | None => return Ok(None),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(Error::io("the gate")(broken(e))),
            }
        }
    }
}

async fn dial(
    http: &Http,
    path: &str,
    protocol: Option<&'static str>,
) -> Result<(Socket, Option<String>), Error> {
    let url = format!("{}{path}", http.base()).replacen("http", "ws", 1);
    let mut request = url.into_client_request().map_err(|e| Error::answer(path, e))?;
    let headers = request.headers_mut();
    if let Some(key) = http.key() {
        let value = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| Error::Unauthorized("it has characters that no key has".into()))?;
        headers.insert(header::AUTHORIZATION, value);
    }
    if let Some(protocol) = protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
    let config = WebSocketConfig::default()
        .read_buffer_size(FRAME_MAX)
        .write_buffer_size(FRAME_MAX)
        .max_message_size(None)
        .max_frame_size(None);
    match connect_async_with_config(request, Some(config), true).await {
        Ok((socket, response)) => {
            let protocol = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
            Ok((socket, protocol.and_then(|p| p.to_str().ok()).map(str::to_owned)))
        }
        Err(tungstenite::Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            Err(Error::from_status(response.status().as_u16(), message(body)))
        }
        Err(tungstenite::Error::Io(e)) => {
            Err(Error::Unreachable { url: http.base().to_owned(), reason: e.to_string() })
        }
        Err(e) => Err(Error::answer(path, e)),
    }
}

fn broken(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(e) => e,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::BrokenPipe.into()
        }
        other => io::Error::other(other),
    }
}
