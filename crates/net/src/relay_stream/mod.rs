//! Datagrams between a node and a relay over a TLS stream, where UDP does not pass.
//!
//! Both ends hold a [`Carrier`] of their data plane. Each datagram is a [frame](FrameReader) on the
//! stream; the connection under them, and all that is inside the datagrams, is the same as over
//! UDP, proof of identity included.

mod dial;
mod frame;
mod proxy;

use std::{io, time::Duration};

use gvpn_dataplane::{Carried, Carrier};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
};

pub(crate) use dial::Dialer;
pub use frame::{FrameError, FrameReader, write_frames};
pub use proxy::{Proxy, ProxyError};

/// The protocol's name in the TLS handshake.
pub const ALPN: &[u8] = b"gvpn-stream/1";
/// The TCP port of a relay's stream, unless another is configured.
pub const PORT: u16 = 443;

/// Nothing is heard for so long on a stream that is of use.
const IDLE: Duration = Duration::from_secs(60);
/// The other end takes nothing for so long.
const STALLED: Duration = Duration::from_secs(15);
/// What is gathered for one write.
const WRITE: usize = 64 * 1024;
/// What the kernel keeps unsent: more would only be delay.
const UNSENT: u32 = 64 * 1024;

/// Sets a TCP connection up for datagrams: small ones go at once, few wait in the kernel.
///
/// # Errors
/// What the system said.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(STALLED))
}

/// Carries datagrams between a stream and a carrier until the stream ends or falls silent.
///
/// # Errors
/// Why it ended; an ordinary end is `UnexpectedEof`.
pub async fn carry<S>(stream: S, carrier: &Carrier) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (reader, writer) = tokio::io::split(stream);
    tokio::select! {
        result = inward(reader, carrier) => result,
        result = outward(writer, carrier) => result,
    }
}

async fn inward<S: AsyncRead>(mut stream: ReadHalf<S>, carrier: &Carrier) -> io::Result<()> {
    let mut frames = FrameReader::default();
    loop {
        let read = tokio::time::timeout(IDLE, stream.read_buf(frames.buffer())).await;
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "nothing was heard for a while");
        if read.map_err(|_| silent())?? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some(Carried { contents, stride }) =
            frames.next().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?
        {
            carrier.receive(Carried { contents, stride });
        }
    }
}

async fn outward<S: AsyncWrite>(mut stream: WriteHalf<S>, carrier: &Carrier) -> io::Result<()> {
    let mut out = Vec::with_capacity(2 * WRITE);
    loop {
        let mut next = Some(carrier.next().await);
        while let Some(batch) = next {
            write_frames(&mut out, &batch);
            next = if out.len() < WRITE { carrier.try_next() } else { None };
        }
        let write = async {
            stream.write_all(&out).await?;
            stream.flush().await
        };
        let stalled = || io::Error::new(io::ErrorKind::TimedOut, "the other end takes nothing");
        tokio::time::timeout(STALLED, write).await.map_err(|_| stalled())??;
        out.clear();
    }
}
