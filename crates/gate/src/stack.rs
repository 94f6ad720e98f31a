//! A TCP stack in this process, for hosts that allow no namespaces.

mod state;
mod stream;
mod wire;

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::{io::unix::AsyncFd, sync::Notify};

use self::{state::State, wire::Wire};
pub use self::{stream::UserStream, wire::frame_sockets};
use crate::{Dial, GateStream};

/// A TCP/IP stack (smoltcp, CUBIC) behind one end of a socket of Ethernet frames. It recovers
/// from loss more slowly than the kernel's TCP: it has no SACK.
///
/// A task drives it as long as the stack or a connection of it lives, and the other end too.
pub struct UserStack {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
    ending: AtomicBool,
}

impl UserStack {
    /// A stack and the other end of its Ethernet: a socket that keeps message borders, a frame a
    /// message. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// When the system gives no sockets.
    pub fn new(mtu: u16) -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = frame_sockets()?;
        let fd = ours.try_clone()?;
        // SAFETY: an `OwnedFd` is open, and the same, for as long as it lives.
        let fd = unsafe { AsyncFd::register(fd) }?;
        let state = Mutex::new(State::new(Wire::new(ours.into(), mtu.into())));
        let shared =
            Arc::new(Shared { state, wake: Notify::new(), ending: AtomicBool::new(false) });
        tokio::spawn(drive(shared.clone(), fd));
        Ok((Self { shared }, theirs))
    }

    /// Replaces the stack's addresses. What is on none of their prefixes goes to `gateways`, one
    /// of a family.
    pub fn set_addresses(&self, addresses: &[IpNet], gateways: &[IpAddr]) {
        self.shared.state.lock().configure(addresses, gateways);
        self.shared.wake.notify_one();
    }

    /// Whether the other end of its Ethernet is still there.
    pub fn is_alive(&self) -> bool {
        !self.shared.state.lock().gone()
    }

    /// How many sockets the stack has, those included that are still closing.
    pub fn sockets(&self) -> usize {
        self.shared.state.lock().len()
    }

    async fn connect(&self, remote: SocketAddr, from: Option<IpAddr>) -> io::Result<UserStream> {
        let (handle, local) = self.shared.state.lock().connect(remote, from)?;
        let stream = UserStream::new(self.shared.clone(), handle, local);
        self.shared.wake.notify_one();
        poll_fn(|cx| stream.poll_connected(cx)).await?;
        Ok(stream)
    }
}

impl Dial for UserStack {
    fn dial(
        &self,
        remote: SocketAddr,
        from: Option<IpAddr>,
    ) -> Pin<Box<dyn Future<Output = io::Result<GateStream>> + Send + '_>> {
        Box::pin(async move { Ok(GateStream::User(self.connect(remote, from).await?)) })
    }
}

impl Drop for UserStack {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Release);
        self.shared.wake.notify_one();
    }
}

impl fmt::Debug for UserStack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserStack").field("sockets", &self.sockets()).finish_non_exhaustive()
    }
}

/// Drives a stack until nobody needs it or its wire is gone.
async fn drive(shared: Arc<Shared>, fd: AsyncFd<OwnedFd>) {
    loop {
        let next = shared.state.lock().poll();
        if next.gone || (shared.ending.load(Ordering::Acquire) && shared.state.lock().len() == 0) {
            return;
        }
        tokio::select! {
            () = shared.wake.notified() => {}
            () = pause(next.delay) => {}
            ready = fd.readable() => {
                let Ok(mut ready) = ready else { return };
                if shared.state.lock().poll().drained {
                    ready.clear_ready();
                }
            }
            ready = fd.writable(), if next.blocked => {
                let Ok(mut ready) = ready else { return };
                if shared.state.lock().poll().blocked {
                    ready.clear_ready();
                }
            }
        }
        // Other tasks get their turn in a flood of frames.
        tokio::task::yield_now().await;
    }
}

async fn pause(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}
