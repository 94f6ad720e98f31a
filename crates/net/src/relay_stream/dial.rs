//! Opening a stream to a relay.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use gvpn_identity::tls::{self, TlsError, TransportKey};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{ALPN, Proxy, prepare};

/// How long it may take to open a stream.
const OPEN: Duration = Duration::from_secs(8);

/// Opens streams to relays.
pub(crate) struct Dialer {
    port: u16,
    proxy: Option<Proxy>,
    tls: TlsConnector,
}

impl Dialer {
    pub(crate) fn new(
        port: u16,
        proxy: Option<Proxy>,
        key: &TransportKey,
    ) -> Result<Self, TlsError> {
        let mut config = tls::client_config(key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { port, proxy, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Opens a stream to the relay whose UDP address this is; says what went wrong if it fails.
    pub(crate) async fn open(&self, relay: SocketAddr) -> Result<TlsStream<TcpStream>, String> {
        let to = SocketAddr::new(relay.ip(), self.port);
        match tokio::time::timeout(OPEN, self.open_to(to)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no TLS stream to {to} within {OPEN:?}")),
        }
    }

    async fn open_to(&self, to: SocketAddr) -> Result<TlsStream<TcpStream>, String> {
        let stream = match &self.proxy {
            Some(proxy) => proxy.connect(to).await.map_err(|e| e.to_string())?,
            None => TcpStream::connect(to)
                .await
                .map_err(|e| format!("no TLS stream: TCP {to} cannot be reached: {e}"))?,
        };
        let broken = |e: io::Error| format!("no TLS stream with {to}: {e}");
        prepare(&stream).map_err(broken)?;
        let name = ServerName::try_from(tls::server_name(None)).map_err(|e| e.to_string())?;
        self.tls.connect(name, stream).await.map_err(broken)
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer")
            .field("port", &self.port)
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}
