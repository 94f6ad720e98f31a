//! A wire between two nodes that can be cut: forwards datagrams between whoever sends to it and
//! one node.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{net::UdpSocket, task::JoinHandle};

pub(crate) struct Wire {
    pub(crate) addr: SocketAddr,
    up: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    handshakes: Arc<Mutex<Vec<Sent>>>,
    task: JoinHandle<()>,
}

/// A datagram, and how it was sent.
type Sent = (Arc<UdpSocket>, SocketAddr, Vec<u8>);

/// Set in the first byte of packets of a handshake (RFC 8999, 5.1).
const LONG: u8 = 0x80;

impl Wire {
    /// A wire to the node at `to`. The node sees the wire's far end as its peer's address.
    pub(crate) async fn to(to: SocketAddr) -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = near.local_addr().unwrap();
        let up = Arc::new(AtomicBool::new(true));
        let carried = Arc::new(AtomicU64::new(0));
        let handshakes = Arc::default();
        let books = (Arc::clone(&up), Arc::clone(&carried), Arc::clone(&handshakes));
        let task = tokio::spawn(forward(near.into(), far.into(), to, books));
        Self { addr, up, carried, handshakes, task }
    }

    /// Carries all packets of handshakes once more; returns how many.
    #[allow(dead_code)]
    pub(crate) async fn repeat_handshakes(&self) -> usize {
        let sent = self.handshakes.lock().unwrap().clone();
        for (socket, to, bytes) in &sent {
            socket.send_to(bytes, to).await.unwrap();
        }
        sent.len()
    }

    pub(crate) fn cut(&self) {
        self.up.store(false, Ordering::SeqCst);
    }

    #[allow(dead_code)]
    pub(crate) fn mend(&self) {
        self.up.store(true, Ordering::SeqCst);
    }

    /// Datagrams carried so far, both ways.
    #[allow(dead_code)]
    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Ordering::SeqCst)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    near: Arc<UdpSocket>,
    far: Arc<UdpSocket>,
    to: SocketAddr,
    (up, carried, handshakes): (Arc<AtomicBool>, Arc<AtomicU64>, Arc<Mutex<Vec<Sent>>>),
) {
    let (mut there, mut back) = (vec![0; 65536], vec![0; 65536]);
    let mut caller = None;
    loop {
        let (socket, bytes, target) = tokio::select! {
            got = near.recv_from(&mut there) => {
                let Ok((n, from)) = got else { continue };
                caller = Some(from);
                (&far, &there[..n], Some(to))
            }
            got = far.recv_from(&mut back) => {
                let Ok((n, _)) = got else { continue };
                (&near, &back[..n], caller)
            }
        };
        if let Some(target) = target.filter(|_| up.load(Ordering::SeqCst)) {
            carried.fetch_add(1, Ordering::SeqCst);
            if bytes[0] & LONG != 0 {
                handshakes.lock().unwrap().push((Arc::clone(socket), target, bytes.to_vec()));
            }
            let _ = socket.send_to(bytes, target).await;
        }
    }
}
