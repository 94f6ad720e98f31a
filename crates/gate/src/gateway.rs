//! The gateway of one network.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use crate::{
    ConnectError, Connection, ConnectionInfo, Dial, Protocol, RawGuard, table::ConnectionTable,
};

/// Limits of a gateway.
#[derive(Debug, Clone, Copy)]
pub struct GatewayOptions {
    /// How long a connection may take to come about.
    pub connect_timeout: Duration,
    /// How many may be open at once.
    pub max_connections: usize,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(8), max_connections: 4096 }
    }
}

/// The requestor's way into one network. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    dial: Arc<dyn Dial>,
    table: ConnectionTable,
    options: GatewayOptions,
}

impl Gateway {
    /// A gateway that opens its connections with `dial`.
    pub fn new(dial: impl Dial, options: GatewayOptions) -> Self {
        Self { dial: Arc::new(dial), table: ConnectionTable::default(), options }
    }

    /// Connects to a payload. Returns when the connection stands or has failed; dropping the
    /// future gives the attempt up.
    ///
    /// # Errors
    /// [`ConnectError`], each kind with its HTTP status.
    pub async fn connect(
        &self,
        remote: SocketAddr,
        from: Option<IpAddr>,
    ) -> Result<Connection, ConnectError> {
        if self.table.len() >= self.options.max_connections {
            return Err(ConnectError::Full(self.options.max_connections));
        }
        let limit = self.options.connect_timeout;
        let stream = match tokio::time::timeout(limit, self.dial.dial(remote, from)).await {
            Err(_) => return Err(ConnectError::Timeout { remote, after: limit }),
            Ok(dialled) => dialled.map_err(|e| ConnectError::from_io(remote, limit, e))?,
        };
        let local = stream.local_addr().map_err(|e| ConnectError::from_io(remote, limit, e))?;
        let info = ConnectionInfo { protocol: Protocol::Tcp, local, remote };
        Ok(Connection::new(stream, info, self.table.insert(info)))
    }

    /// Lists a raw bridge between two addresses for as long as the guard lives.
    pub fn raw(&self, local: IpAddr, remote: IpAddr) -> RawGuard {
        RawGuard::new(&self.table, local, remote)
    }

    /// The connections that are open now, oldest first.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.table.rows()
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("connections", &self.table.len()).finish_non_exhaustive()
    }
}
