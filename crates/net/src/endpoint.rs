//! QUIC as nodes speak it.

use std::{sync::Arc, time::Duration};

use gvpn_identity::{
    Identity,
    tls::{self, TlsError, TransportKey},
};
use quinn::{
    ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout,
    ServerConfig, TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

use crate::{
    NetError,
    socket::Socket,
    wire::{CID_LEN, LocalCid},
};

/// A connection without traffic ends after this time, and is made again when it is needed.
pub(crate) const IDLE: Duration = Duration::from_secs(30);
/// Before anything is measured, a packet is repeated after three times this.
const FIRST_RTT: Duration = Duration::from_millis(100);
/// What one stream may have on its way: enough for 1 Gbit/s over 60 ms.
const STREAM_WINDOW: u32 = 8 << 20;
/// What one connection may have on its way.
const WINDOW: u32 = 4 * STREAM_WINDOW;
/// Streams that a peer may have open at once.
const STREAMS: u32 = 1024;

/// What this node calls with, and the endpoint that it is called on.
pub(crate) struct Quic {
    pub(crate) endpoint: Endpoint,
    pub(crate) client: ClientConfig,
}

impl Quic {
    pub(crate) fn start(
        identity: &Identity,
        key: &TransportKey,
        socket: Socket,
    ) -> Result<Self, NetError> {
        let transport = Arc::new(transport()?);
        let server = server(key, &transport)?;
        let client = client(key, &transport)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            endpoint_config(identity),
            Some(server),
            Arc::new(socket),
            Arc::new(TokioRuntime),
        )
        .map_err(start_error)?;
        Ok(Self { endpoint, client })
    }
}

pub(crate) fn server(
    key: &TransportKey,
    transport: &Arc<TransportConfig>,
) -> Result<ServerConfig, NetError> {
    let config = tls::server_config(key).map_err(start_error::<TlsError>)?;
    let crypto = QuicServerConfig::try_from(config).map_err(start_error)?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    // Paths are the path agent's business: a connection keeps its virtual address for life.
    server.migration(false);
    server.transport_config(Arc::clone(transport));
    Ok(server)
}

pub(crate) fn client(
    key: &TransportKey,
    transport: &Arc<TransportConfig>,
) -> Result<ClientConfig, NetError> {
    let config = tls::client_config(key).map_err(start_error::<TlsError>)?;
    let crypto = QuicClientConfig::try_from(config).map_err(start_error)?;
    let mut client = ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::clone(transport));
    Ok(client)
}

pub(crate) fn transport() -> Result<TransportConfig, NetError> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE).map_err(start_error)?))
        .initial_rtt(FIRST_RTT)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        // The path under a connection may change at any time to a narrower one.
        .mtu_discovery_config(None)
        .allow_spin(false);
    Ok(config)
}

pub(crate) fn endpoint_config(identity: &Identity) -> EndpointConfig {
    // The key outlives a restart, so that the node can tell its peers that it has forgotten
    // their connections.
    let secret = identity.derive_secret("gvpn quic stateless reset v1");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &*secret);
    let mut config = EndpointConfig::new(Arc::new(key));
    config.grease_quic_bit(false).cid_generator(|| Box::new(Random));
    config
}

pub(crate) fn start_error<E: std::fmt::Display>(error: E) -> NetError {
    NetError::Start(error.to_string())
}

/// Gives out connection ids that say nothing.
struct Random;

impl ConnectionIdGenerator for Random {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<LocalCid>())
    }

    fn cid_len(&self) -> usize {
        CID_LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
