//! Local ports that lead to payloads.

use std::net::{IpAddr, SocketAddr};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{Error, GateStream, Network};

/// How much is copied at a time.
const PIECE: usize = 256 << 10;

/// A local TCP port whose connections go to a payload's port. Dropping it closes the port and its
/// connections.
#[derive(Debug)]
pub struct Forward {
    local: SocketAddr,
    _listening: AbortOnDropHandle<()>,
}

impl Forward {
    /// Listens on `local` (port 0 for any free one) and leads each connection to `ip:port`.
    ///
    /// # Errors
    /// [`Error::Io`] when the port is taken.
    pub async fn start(
        network: Network,
        local: SocketAddr,
        ip: IpAddr,
        port: u16,
    ) -> Result<Self, Error> {
        let listener = TcpListener::bind(local)
            .await
            .map_err(Error::io(format!("cannot listen on {local}")))?;
        let local = listener.local_addr().map_err(Error::io("the local port"))?;
        let listening = tokio::spawn(serve(listener, move |mut tcp| {
            let network = network.clone();
            async move {
                match network.connect(ip, port).await {
                    Ok(gate) => join(&mut tcp, gate).await,
                    Err(error) => tracing::warn!(%ip, port, %error, "a connection was refused"),
                }
            }
        }));
        Ok(Self { local, _listening: AbortOnDropHandle::new(listening) })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

/// Accepts connections for as long as this future lives; they end with it.
pub(crate) async fn serve<F: Future<Output = ()> + Send + 'static>(
    listener: TcpListener,
    handle: impl Fn(TcpStream) -> F,
) {
    let end = tokio_util::sync::CancellationToken::new();
    let _guard = end.clone().drop_guard();
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => {
                let _ = tcp.set_nodelay(true);
                let (work, end) = (handle(tcp), end.clone());
                tokio::spawn(async move { end.run_until_cancelled(work).await });
            }
            // Out of file descriptors, most likely: some will come free.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
        }
    }
}

/// Copies both ways until both have ended.
pub(crate) async fn join<S: AsyncRead + AsyncWrite + Unpin>(local: &mut S, mut gate: GateStream) {
    let copied = copy_bidirectional_with_sizes(local, &mut gate, PIECE, PIECE).await;
    if let Err(error) = copied {
        tracing::debug!(%error, "a forwarded connection broke");
        let _ = local.shutdown().await;
    }
}
