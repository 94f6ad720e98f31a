//! Copies of a network's packets for whoever looks at them.

use std::{
    io::IoSlice,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use gvpn_switch::capture::{Direction, Filter};
use tokio::sync::mpsc;

/// Packets that may wait for a slow reader; newer ones are counted as missed.
const QUEUE: usize = 4096;

/// What to capture of a network.
#[derive(Debug, Clone)]
pub struct CaptureSpec {
    /// Which packets.
    pub filter: Filter,
    /// How much of each packet; 0 for all.
    pub snap: usize,
    /// Packets to vNICs too, not just from them.
    pub both: bool,
}

/// A captured packet or super-packet, as it was on the vNIC: where the vNIC leaves checksums to the
/// network, they are not filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Which way it went.
    pub direction: Direction,
    /// The packet, or its beginning.
    pub bytes: Vec<u8>,
    /// How long it was.
    pub length: usize,
}

/// The packets of a running capture; it ends when this is dropped.
#[derive(Debug)]
pub struct Capture {
    packets: mpsc::Receiver<Captured>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    spec: CaptureSpec,
    packets: mpsc::Sender<Captured>,
    missed: AtomicU64,
}

/// The captures of a network.
#[derive(Debug, Default)]
pub(crate) struct Captures {
    any: AtomicBool,
    list: ArcSwap<Vec<Arc<Shared>>>,
}

impl Capture {
    /// The next packet; `None` when the network is gone.
    pub async fn next(&mut self) -> Option<Captured> {
        self.packets.recv().await
    }

    /// How many packets were missed because nobody took them in time.
    pub fn missed(&self) -> u64 {
        self.shared.missed.load(Relaxed)
    }
}

impl Captures {
    pub(crate) fn start(&self, spec: CaptureSpec) -> Capture {
        let (sender, packets) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared { spec, packets: sender, missed: AtomicU64::new(0) });
        self.list.rcu(|list| {
            let running = list.iter().filter(|c| !c.packets.is_closed()).cloned();
            running.chain([Arc::clone(&shared)]).collect::<Vec<_>>()
        });
        self.any.store(true, SeqCst);
        Capture { packets, shared }
    }

    /// Whether anybody looks: asked about every packet.
    #[inline]
    pub(crate) fn any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Copies a packet, given in parts, for those who look.
    #[cold]
    pub(crate) fn note(&self, direction: Direction, parts: &[IoSlice<'_>]) {
        let list = self.list.load();
        if list.iter().all(|c| c.packets.is_closed()) {
            self.any.store(false, SeqCst);
            // One that started meanwhile must not be overlooked.
            if self.list.load().iter().any(|c| !c.packets.is_closed()) {
                self.any.store(true, SeqCst);
            }
            return;
        }
        let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
        for capture in list.iter() {
            let spec = &capture.spec;
            let wanted = spec.both || direction == Direction::Outbound;
            if !wanted || !spec.filter.matches(&whole) {
                continue;
            }
            let kept = if spec.snap == 0 { whole.len() } else { whole.len().min(spec.snap) };
            let (bytes, length) = (whole[..kept].to_vec(), whole.len());
            let packet = Captured { time, direction, bytes, length };
            if let Err(mpsc::error::TrySendError::Full(_)) = capture.packets.try_send(packet) {
                capture.missed.fetch_add(1, Relaxed);
            }
        }
    }
}
