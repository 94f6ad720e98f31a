//! Carriers: what takes datagrams to where UDP does not reach, such as a TLS stream to a relay.
//!
//! A carrier has an address of its own ([`gvpn_path::carrier_addr`]). What threads send there waits
//! in a bounded queue for whoever holds the [`Carrier`]; what that brings in is handled as if it
//! had come through a socket. Nothing of it is on the way of a datagram between UDP sockets.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    sync::Arc,
};

use gvpn_path::carrier_id;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use crate::{Drop, core::Core, counters::Counters, udp::MAX_DATAGRAM};

/// The most bytes that wait in one direction: older ones make room for newer ones.
const MAX_WAITING: usize = 1 << 20;
/// What has waited for so long is of no use any more, in nanoseconds.
const MAX_AGE: u64 = 200_000_000;

/// Datagrams of one size, the last one maybe shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The bytes of one datagram, or of several.
    pub contents: Vec<u8>,
    /// The size of each datagram but the last.
    pub stride: usize,
}

impl Carried {
    fn packets(&self) -> u64 {
        self.contents.len().div_ceil(self.stride.max(1)) as u64
    }
}

/// A bounded queue that drops what is oldest.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    batches: VecDeque<(u64, SocketAddr, Carried)>,
    bytes: usize,
}

impl Waiting {
    /// Appends; returns how many datagrams were dropped for it.
    fn push(&mut self, nanos: u64, addr: SocketAddr, batch: Carried) -> u64 {
        self.bytes += batch.contents.len();
        self.batches.push_back((nanos, addr, batch));
        let mut dropped = 0;
        while self.bytes > MAX_WAITING
            && let Some((_, old)) = self.pop()
        {
            dropped += old.packets();
        }
        dropped
    }

    /// The oldest that is not too old, and how many datagrams were.
    fn pop_fresh(&mut self, nanos: u64) -> (Option<Carried>, u64) {
        let mut stale = 0;
        while let Some((since, _, batch)) = self.batches.front() {
            if nanos.saturating_sub(*since) <= MAX_AGE {
                break;
            }
            stale += batch.packets();
            self.pop();
        }
        (self.pop().map(|(_, batch)| batch), stale)
    }

    pub(crate) fn pop(&mut self) -> Option<(SocketAddr, Carried)> {
        let (_, addr, batch) = self.batches.pop_front()?;
        self.bytes -= batch.contents.len();
        Some((addr, batch))
    }
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

/// The carriers of a data plane.
#[derive(Debug, Default)]
pub(crate) struct Carriers {
    queues: RwLock<HashMap<u64, Arc<Queue>>>,
}

impl Carriers {
    /// Hands datagrams to the carrier at `to`.
    pub(crate) fn send(
        &self,
        (counters, nanos): (&Counters, u64),
        to: SocketAddr,
        bytes: &[u8],
        stride: usize,
    ) -> io::Result<()> {
        let stride = stride.max(1);
        let queue = carrier_id(to).and_then(|id| self.queues.read().get(&id).cloned());
        let Some(queue) = queue else {
            counters.drop(Drop::CarrierGone, bytes.len().div_ceil(stride) as u64);
            return Ok(());
        };
        let batch = Carried { contents: bytes.to_vec(), stride };
        let dropped = queue.waiting.lock().push(nanos, to, batch);
        counters.drop(Drop::CarrierFull, dropped);
        queue.filled.notify_one();
        Ok(())
    }
}

/// The far end of a carrier's queue. The carrier is gone when this is dropped.
#[derive(Debug)]
pub struct Carrier {
    addr: SocketAddr,
    id: u64,
    core: Arc<Core>,
    queue: Arc<Queue>,
}

impl Carrier {
    pub(crate) fn open(core: &Arc<Core>, id: u64, addr: SocketAddr) -> Self {
        let queue = Arc::new(Queue::default());
        core.carriers.queues.write().insert(id, Arc::clone(&queue));
        Self { addr, id, core: Arc::clone(core), queue }
    }

    /// The address that stands for it.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for datagrams to be carried away. What has waited too long is dropped and counted.
    pub async fn next(&self) -> Carried {
        loop {
            if let Some(batch) = self.try_next() {
                return batch;
            }
            self.queue.filled.notified().await;
        }
    }

    /// Datagrams that wait to be carried away, if there are any.
    pub fn try_next(&self) -> Option<Carried> {
        let (_, nanos) = self.core.now();
        let (batch, stale) = self.queue.waiting.lock().pop_fresh(nanos);
        self.counters().drop(Drop::CarrierFull, stale);
        batch
    }

    /// Brings datagrams in. They may be dropped, and counted, as on any socket.
    pub fn receive(&self, batch: Carried) {
        if batch.contents.is_empty() || batch.contents.len() > MAX_DATAGRAM || batch.stride == 0 {
            return self.counters().drop(Drop::Unrecognised, 1);
        }
        let (_, nanos) = self.core.now();
        let worker = self.core.worker_of(self.id);
        let dropped = worker.arrivals.lock().push(nanos, self.addr(), batch);
        worker.counters.drop(Drop::CarrierFull, dropped);
        worker.poll.wake();
    }

    /// How many datagrams all carriers have dropped so far.
    pub fn dropped(&self) -> u64 {
        let counted = |worker: &crate::core::WorkerState| worker.counters.get(Drop::CarrierFull);
        self.core.workers.iter().map(counted).sum()
    }

    fn counters(&self) -> &Counters {
        &self.core.worker_of(self.id).counters
    }
}

impl std::ops::Drop for Carrier {
    fn drop(&mut self) {
        self.core.carriers.queues.write().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use gvpn_path::carrier_addr;

    use super::*;

    fn batch(packets: usize, size: usize) -> Carried {
        Carried { contents: vec![0; packets * size], stride: size }
    }

    #[test]
    fn the_oldest_make_room() {
        let addr = carrier_addr(1);
        let mut waiting = Waiting::default();
        let rounds = 2 * MAX_WAITING / 50_000;
        let dropped: u64 = (0..rounds).map(|i| waiting.push(i as u64, addr, batch(50, 1000))).sum();
        assert!(waiting.bytes <= MAX_WAITING);
        assert_eq!(dropped as usize, 50 * (rounds - waiting.batches.len()));
        let oldest = waiting.batches.front().unwrap().0;
        assert_eq!(oldest as usize, rounds - waiting.batches.len());
    }

    #[test]
    fn what_is_stale_is_dropped() {
        let addr = carrier_addr(1);
        let mut waiting = Waiting::default();
        for at in [0, 1, MAX_AGE] {
            assert_eq!(waiting.push(at, addr, batch(3, 10)), 0);
        }
        assert_eq!(waiting.pop_fresh(MAX_AGE), (Some(batch(3, 10)), 0));
        assert_eq!(waiting.pop_fresh(MAX_AGE + 2), (Some(batch(3, 10)), 3));
        assert_eq!(waiting.pop_fresh(0), (None, 0));
        assert_eq!(waiting.bytes, 0);
    }
}
