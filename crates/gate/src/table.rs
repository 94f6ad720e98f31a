//! The connections that are open now.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::GateStream;

/// What a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// A TCP stream.
    Tcp,
    /// Ethernet frames between two addresses.
    Raw,
}

/// A row of the connection table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// What it carries.
    pub protocol: Protocol,
    /// The requestor's end.
    pub local: SocketAddr,
    /// The payload's end.
    pub remote: SocketAddr,
}

#[derive(Debug, Default)]
struct Rows {
    next: u64,
    rows: BTreeMap<u64, ConnectionInfo>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct ConnectionTable(Arc<Mutex<Rows>>);

impl ConnectionTable {
    pub(crate) fn rows(&self) -> Vec<ConnectionInfo> {
        self.lock().rows.values().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().rows.len()
    }

    pub(crate) fn insert(&self, info: ConnectionInfo) -> Row {
        let mut rows = self.lock();
        let id = rows.next;
        rows.next += 1;
        rows.rows.insert(id, info);
        Row { id, table: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A row, there as long as this value lives.
#[derive(Debug)]
pub(crate) struct Row {
    id: u64,
    table: ConnectionTable,
}

impl Drop for Row {
    fn drop(&mut self) {
        self.table.lock().rows.remove(&self.id);
    }
}

/// An open TCP connection into a network; listed in the gateway's table until it is dropped.
#[derive(Debug)]
pub struct Connection {
    stream: GateStream,
    info: ConnectionInfo,
    _row: Row,
}

impl Connection {
    pub(crate) fn new(stream: GateStream, info: ConnectionInfo, row: Row) -> Self {
        Self { stream, info, _row: row }
    }

    /// Both ends.
    pub fn info(&self) -> ConnectionInfo {
        self.info
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Keeps a raw bridge listed in the gateway's table.
#[derive(Debug)]
pub struct RawGuard {
    _row: Row,
}

impl RawGuard {
    pub(crate) fn new(table: &ConnectionTable, local: IpAddr, remote: IpAddr) -> Self {
        let info = ConnectionInfo {
            protocol: Protocol::Raw,
            local: SocketAddr::new(local, 0),
            remote: SocketAddr::new(remote, 0),
        };
        Self { _row: table.insert(info) }
    }
}
