//! TLS streams of clients that UDP does not reach.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use gvpn_identity::{
    Identity,
    tls::{self, TlsError, TransportKey},
};
use gvpn_model::NodeId;
use gvpn_net::{
    DataPlane,
    relay_stream::{self, carry, prepare},
};
use parking_lot::Mutex;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::AbortHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::Limits;

/// How long a client may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Clients that are proving it at the same time.
const PENDING: usize = 512;
/// The pause after the system refused to accept, for want of descriptors for example.
const REFUSED: Duration = Duration::from_millis(100);

/// Streams of clients.
pub(crate) struct Streams {
    plane: DataPlane,
    tls: TlsAcceptor,
    limits: Limits,
    pending: Arc<Semaphore>,
    /// The streams of each client, the oldest first.
    open: Mutex<HashMap<NodeId, Vec<AbortHandle>>>,
}

impl Streams {
    pub(crate) fn new(
        plane: DataPlane,
        identity: &Identity,
        limits: Limits,
    ) -> Result<Arc<Self>, TlsError> {
        let key = TransportKey::generate(identity)?;
        let mut config = tls::server_config(&key)?;
        config.alpn_protocols = vec![relay_stream::ALPN.to_vec()];
        let tls = TlsAcceptor::from(Arc::new(config));
        let pending = Arc::new(Semaphore::new(PENDING));
        Ok(Arc::new(Self { plane, tls, limits, pending, open: Mutex::default() }))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.open.lock().values().map(Vec::len).sum()
    }

    /// Accepts streams until the relay ends.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            // Whoever waits here waits in the kernel's queue, which is bounded.
            let Ok(permit) = Arc::clone(&self.pending).acquire_owned().await else { return };
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a stream was not accepted");
                    tokio::time::sleep(REFUSED).await;
                    continue;
                }
            };
            let this = Arc::clone(&self);
            tokio::spawn(async move {
                let greeted = this.greet(stream).await;
                drop(permit);
                match greeted {
                    Ok((node, stream)) => this.admit(node, stream, from),
                    Err(error) => tracing::debug!(%from, %error, "a stream was refused"),
                }
            });
        }
    }

    async fn greet(&self, stream: TcpStream) -> io::Result<(NodeId, TlsStream<TcpStream>)> {
        prepare(&stream)?;
        let greeted = tokio::time::timeout(HANDSHAKE, self.tls.accept(stream)).await;
        let stream = greeted.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let node = tls::peer_node_id(chain).map_err(io::Error::other)?;
        Ok((node, stream))
    }

    /// Carries a client's datagrams; its oldest stream makes room if it has too many.
    fn admit(self: &Arc<Self>, node: NodeId, stream: TlsStream<TcpStream>, from: SocketAddr) {
        let mut open = self.open.lock();
        let total: usize = open.values().map(Vec::len).sum();
        let own = open.entry(node).or_default();
        if own.len() >= self.limits.streams_per_client && !own.is_empty() {
            own.remove(0).abort();
        } else if total >= self.limits.streams {
            tracing::warn!(client = %node, "no room for another stream");
            if own.is_empty() {
                open.remove(&node);
            }
            return;
        }
        let ended = Ended { streams: Arc::clone(self), node };
        let carrier = self.plane.open_carrier();
        let task = tokio::spawn(async move {
            let _ended = ended;
            tracing::debug!(client = %node, %from, "stream");
            let result = carry(stream, &carrier).await;
            tracing::debug!(client = %node, ?result, "stream ended");
        });
        own.push(task.abort_handle());
    }

    /// Ends all of them.
    pub(crate) fn close(&self) {
        let open = std::mem::take(&mut *self.open.lock());
        open.into_values().flatten().for_each(|task| task.abort());
    }
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams").field("open", &self.len()).finish_non_exhaustive()
    }
}

/// Takes a stream off the books when its task is over, however that comes.
struct Ended {
    streams: Arc<Streams>,
    node: NodeId,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let me = tokio::task::try_id();
        let mut open = self.streams.open.lock();
        if let Some(own) = open.get_mut(&self.node) {
            own.retain(|task| Some(task.id()) != me && !task.is_finished());
            if own.is_empty() {
                open.remove(&self.node);
            }
        }
    }
}
