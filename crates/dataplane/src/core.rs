//! What all threads of a data plane share.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{
    Event, ReceivedDatagram,
    carrier::{Carriers, Waiting},
    counters::Counters,
    forward::Forwarder,
    peer::{LaneTable, Slot},
    poll::Poll,
    port::Port,
    udp::UdpSocket,
    uplink::Uplink,
};

/// Shared state: snapshots that threads read without locks, and queues out.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) lanes: LaneTable,
    pub(crate) ports: ArcSwap<HashMap<u64, Arc<Port>>>,
    pub(crate) datagrams: mpsc::Sender<ReceivedDatagram>,
    pub(crate) coalesce: bool,
    pub(crate) workers: Vec<WorkerState>,
    pub(crate) stop: AtomicBool,
    /// Ports whose other end a thread found gone.
    pub(crate) closed: Mutex<Vec<u64>>,
    pub(crate) start: Instant,
    pub(crate) forward: Forwarder,
    pub(crate) carriers: Carriers,
    pub(crate) uplink: Uplink,
    events: mpsc::UnboundedSender<Event>,
}

/// The part of a thread that others reach.
#[derive(Debug)]
pub(crate) struct WorkerState {
    pub(crate) poll: Arc<Poll>,
    pub(crate) sockets: Vec<UdpSocket>,
    pub(crate) counters: Counters,
    pub(crate) releases: Mutex<Vec<Arc<Slot>>>,
    /// What carriers brought.
    pub(crate) arrivals: Mutex<Waiting>,
}

impl Core {
    pub(crate) fn new(
        workers: Vec<WorkerState>,
        coalesce: bool,
        events: mpsc::UnboundedSender<Event>,
        datagrams: mpsc::Sender<ReceivedDatagram>,
    ) -> Self {
        Self {
            uplink: Uplink::new(workers.len()),
            lanes: LaneTable::default(),
            ports: ArcSwap::default(),
            datagrams,
            coalesce,
            workers,
            stop: AtomicBool::new(false),
            closed: Mutex::default(),
            start: Instant::now(),
            forward: Forwarder::default(),
            carriers: Carriers::default(),
            events,
        }
    }

    /// Milliseconds (never zero) and nanoseconds since the start.
    pub(crate) fn now(&self) -> (u64, u64) {
        let nanos = self.start.elapsed().as_nanos() as u64;
        (nanos / 1_000_000 + 1, nanos)
    }

    /// Tells the driver; nobody listens once it is gone.
    pub(crate) fn raise(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// The thread that takes what a carrier brings.
    pub(crate) fn worker_of(&self, carrier: u64) -> &WorkerState {
        &self.workers[carrier as usize % self.workers.len()]
    }
}
