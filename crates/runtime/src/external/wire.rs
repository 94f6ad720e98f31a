//! A socket that carries a runtime's Ethernet frames.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpStream, UdpSocket, UnixDatagram, UnixStream},
};

use super::message::Endpoint;

/// Largest frame: an Ethernet header and the largest IP packet.
pub(super) const MAX_FRAME: usize = 14 + 65_535;

/// How long a frame may be in front of it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Prefix {
    /// Two bytes of native order.
    Two,
    /// Four bytes, big-endian.
    Four,
}

/// Where frames come from.
pub(super) enum Source {
    Stream(Box<dyn AsyncRead + Send + Unpin>, Prefix),
    Udp(std::sync::Arc<UdpSocket>),
    Unix(std::sync::Arc<UnixDatagram>),
}

/// Where frames go.
pub(super) enum Sink {
    Stream(Box<dyn AsyncWrite + Send + Unpin>, Prefix),
    Udp(std::sync::Arc<UdpSocket>),
    Unix(std::sync::Arc<UnixDatagram>),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}

/// Connects to what a runtime named; `udp` is the socket whose address it was told, if it was.
pub(super) async fn connect(
    endpoint: &Endpoint,
    udp: Option<UdpSocket>,
) -> io::Result<(Source, Sink)> {
    Ok(match endpoint {
        Endpoint::UnixStream(path) => split(UnixStream::connect(path).await?, Prefix::Two),
        Endpoint::TcpStream(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            split(stream, Prefix::Four)
        }
        Endpoint::UdpDatagram(address) => {
            let socket = match udp {
                Some(socket) => socket,
                None => UdpSocket::bind("127.0.0.1:0").await?,
            };
            socket.connect(address).await?;
            // A runtime that was told no address learns it from this: nothing, which is no frame.
            let _ = socket.send(&[]).await;
            let socket = std::sync::Arc::new(socket);
            (Source::Udp(socket.clone()), Sink::Udp(socket))
        }
        Endpoint::UnixDatagram(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            let socket = std::sync::Arc::new(socket);
            (Source::Unix(socket.clone()), Sink::Unix(socket))
        }
        Endpoint::TcpListener(_) => {
            let text = "an endpoint of kind `tcp_listener`, which is not known here";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
    })
}

fn split(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    prefix: Prefix,
) -> (Source, Sink) {
    let (reader, writer) = tokio::io::split(stream);
    let reader = BufReader::with_capacity(4 * MAX_FRAME, reader);
    (Source::Stream(Box::new(reader), prefix), Sink::Stream(Box::new(writer), prefix))
}

impl Source {
    /// The next frame, put into `frame`; its length. An error says what the runtime did wrong.
    pub(super) async fn receive(&mut self, frame: &mut [u8]) -> Result<usize, String> {
        match self {
            Self::Udp(socket) => loop {
                match socket.recv(frame).await {
                    // The runtime has no socket there yet, or none any more: its end tells.
                    Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
                    received => return received.map_err(|e| e.to_string()),
                }
            },
            Self::Unix(socket) => socket.recv(frame).await.map_err(|e| e.to_string()),
            Self::Stream(stream, prefix) => {
                receive(stream, *prefix, frame).await.map_err(|e| match e.kind() {
                    _ if is_end(&e) => "it closed the socket".to_owned(),
                    io::ErrorKind::InvalidData => e.to_string(),
                    _ => format!("the socket broke: {e}"),
                })
            }
        }
    }
}

/// A socket that is closed with something unread is reset.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
}

async fn receive(
    stream: &mut (dyn AsyncRead + Send + Unpin),
    prefix: Prefix,
    frame: &mut [u8],
) -> io::Result<usize> {
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let mut head = [0; 4];
    let head = match prefix {
        Prefix::Two => &mut head[..2],
        Prefix::Four => &mut head[..],
    };
    stream.read_exact(head).await?;
    let length = match *head {
        [a, b] => usize::from(u16::from_ne_bytes([a, b])),
        [a, b, c, d] => u32::from_be_bytes([a, b, c, d]) as usize,
        _ => 0,
    };
    let Some(frame) = frame.get_mut(..length) else {
        return Err(invalid(format!("it sent a frame of {length} bytes; {MAX_FRAME} are allowed")));
    };
    match stream.read_exact(frame).await {
        Err(e) if is_end(&e) => {
            Err(invalid("it closed the socket in the middle of a frame".to_owned()))
        }
        read => read.map(|_| length),
    }
}

impl Sink {
    /// Sends a frame; datagrams that find no room are lost, as on any wire.
    pub(super) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket) => {
                let _ = socket.send(frame).await;
                Ok(())
            }
            Self::Unix(socket) => socket.send(frame).await.map(drop),
            Self::Stream(stream, prefix) => {
                let mut bytes = Vec::with_capacity(4 + frame.len());
                match prefix {
                    // Longer ones cannot be said, nor be the network's.
                    Prefix::Two => match u16::try_from(frame.len()) {
                        Ok(length) => bytes.extend(length.to_ne_bytes()),
                        Err(_) => return Ok(()),
                    },
                    Prefix::Four => bytes.extend((frame.len() as u32).to_be_bytes()),
                }
                bytes.extend_from_slice(frame);
                stream.write_all(&bytes).await
            }
        }
    }
}
