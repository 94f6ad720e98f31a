//! Messages to other nodes, each node's in order.

use std::{collections::HashMap, sync::Arc, time::Duration};

use gvpn_model::NodeId;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::core::Core;

/// How long the queue to a node is kept that is told nothing.
const IDLE: Duration = Duration::from_secs(30);

/// A queue for each node that is told something.
pub(crate) struct Courier<M> {
    queues: Mutex<HashMap<NodeId, mpsc::UnboundedSender<M>>>,
}

impl<M> Default for Courier<M> {
    fn default() -> Self {
        Self { queues: Mutex::default() }
    }
}

impl<M: Send + 'static> Courier<M> {
    /// Queues a message. `deliver` carries one to its end; the next waits for that.
    pub(crate) fn send<F: Future<Output = ()> + Send + 'static>(
        self: &Arc<Self>,
        core: &Core,
        to: NodeId,
        message: M,
        deliver: impl Fn(M) -> F + Send + Sync + 'static,
    ) {
        let mut queues = self.queues.lock();
        let message = match queues.get(&to) {
            Some(queue) => match queue.send(message) {
                Ok(()) => return,
                Err(mpsc::error::SendError(message)) => message,
            },
            None => message,
        };
        let (sender, receiver) = mpsc::unbounded_channel();
        // The receiver is at hand.
        let _ = sender.send(message);
        queues.insert(to, sender);
        let this = self.clone();
        core.spawn(async move { this.carry(to, receiver, deliver).await });
    }

    async fn carry<F: Future<Output = ()>>(
        &self,
        to: NodeId,
        mut queue: mpsc::UnboundedReceiver<M>,
        deliver: impl Fn(M) -> F,
    ) {
        loop {
            match tokio::time::timeout(IDLE, queue.recv()).await {
                Ok(Some(message)) => deliver(message).await,
                Ok(None) => return,
                Err(_) => {
                    let mut queues = self.queues.lock();
                    // Nothing can be added while the lock is held.
                    if queue.is_empty() {
                        queues.remove(&to);
                        return;
                    }
                }
            }
        }
    }
}
