//! A wire between two nodes that can be cut: forwards datagrams between whoever sends to it and
//! one node.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{net::UdpSocket, task::JoinHandle};

pub(crate) struct Wire {
    pub(crate) addr: SocketAddr,
    up: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Wire {
    /// A wire to the node at `to`. The node sees the wire's far end as its peer's address.
    pub(crate) async fn to(to: SocketAddr) -> Self {
        let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = near.local_addr().unwrap();
        let up = Arc::new(AtomicBool::new(true));
        let carried = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(forward(near, far, to, Arc::clone(&up), Arc::clone(&carried)));
        Self { addr, up, carried, task }
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
    near: UdpSocket,
    far: UdpSocket,
    to: SocketAddr,
    up: Arc<AtomicBool>,
    carried: Arc<AtomicU64>,
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
            let _ = socket.send_to(bytes, target).await;
        }
    }
}
