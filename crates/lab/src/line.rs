//! A line between two LANs, with the faults of a real one.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, FromRawFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Instant,
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

use crate::{
    Lab, LabError, Lan, Weather,
    weather::{Direction, Fate},
};

/// The largest frame, and more.
const FRAME: usize = 65_536;
/// Frames read from one side before the other has its turn.
const TURN: usize = 64;
/// Frames on their way; what comes when there are as many is lost.
const MOST: usize = 100_000;

/// A line between two LANs: two TAPs, one in each bridge, and a thread that carries frames between
/// them. It is in the middle of every path over it, and frames on it are as on a real wire: TAPs
/// without offloads have the kernel segment super-packets and complete checksums first.
///
/// It is gone when the value is dropped.
#[derive(Debug)]
pub struct Line {
    shared: Arc<Shared>,
    /// Closing it ends the thread.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// For frames from each side.
    weather: Mutex<[Weather; 2]>,
    carried: AtomicU64,
    lost: AtomicU64,
    too_large: AtomicU64,
    late: AtomicU64,
    repeated: AtomicU64,
    changed: AtomicU64,
}

/// What became of the frames on a line, both directions together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineCounts {
    /// Frames that arrived, those that arrived twice once.
    pub carried: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Lost for their size.
    pub too_large: u64,
    /// Overtaken by others.
    pub late: u64,
    /// Arrived twice.
    pub repeated: u64,
    /// Changed on their way.
    pub changed: u64,
}

impl Line {
    pub(crate) fn new(
        lab: &Lab,
        ends: [&Lan; 2],
        weather: Weather,
        seed: u64,
    ) -> Result<Self, LabError> {
        let [a, b] = ends.map(|lan| tap(lan, &format!("line{}", lab.link_number())));
        let zero = || AtomicU64::new(0);
        let shared = Arc::new(Shared {
            weather: Mutex::new([weather; 2]),
            carried: zero(),
            lost: zero(),
            too_large: zero(),
            late: zero(),
            repeated: zero(),
            changed: zero(),
        });
        let (stop, stopped) = UnixStream::pair().map_err(LabError::io("making a socket pair"))?;
        let mut carrier = Carrier {
            taps: [a?, b?],
            directions: [Direction::new(seed), Direction::new(!seed)],
            stopped,
            shared: Arc::clone(&shared),
            waiting: BinaryHeap::new(),
            sequence: 0,
        };
        let thread = std::thread::Builder::new()
            .name("lab-line".into())
            .spawn(move || carrier.run())
            .map_err(LabError::io("starting a thread"))?;
        Ok(Self { shared, stop: Some(stop), thread: Some(thread) })
    }

    /// What it does to frames from now on.
    pub fn set(&self, weather: Weather) {
        self.set_each([weather; 2]);
    }

    /// What it does from now on to frames from the first LAN, and to those from the second.
    pub fn set_each(&self, weather: [Weather; 2]) {
        *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner) = weather;
    }

    /// What became of frames so far.
    pub fn counts(&self) -> LineCounts {
        let shared = &self.shared;
        LineCounts {
            carried: shared.carried.load(Relaxed),
            lost: shared.lost.load(Relaxed),
            too_large: shared.too_large.load(Relaxed),
            late: shared.late.load(Relaxed),
            repeated: shared.repeated.load(Relaxed),
            changed: shared.changed.load(Relaxed),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A frame on its way: when it arrives, its number, where, and its bytes.
type Waiting = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Carrier {
    taps: [File; 2],
    /// What befalls frames from each side.
    directions: [Direction; 2],
    stopped: UnixStream,
    shared: Arc<Shared>,
    waiting: BinaryHeap<Waiting>,
    sequence: u64,
}

impl Carrier {
    fn run(&mut self) {
        let mut buffer = vec![0; FRAME];
        while self.wait() {
            let weather = *self.shared.weather.lock().unwrap_or_else(PoisonError::into_inner);
            for (side, weather) in weather.iter().enumerate() {
                for _ in 0..TURN {
                    match self.taps[side].read(&mut buffer) {
                        Ok(length) => self.take(side, weather, &mut buffer[..length]),
                        Err(_) => break,
                    }
                }
            }
            self.arrive();
        }
    }

    /// Waits until there is something to do; `false` at the end.
    fn wait(&self) -> bool {
        let due = self.waiting.peek().map(|Reverse((at, ..))| *at);
        let left = due.map(|at| TimeSpec::from(at.saturating_duration_since(Instant::now())));
        let mut files = [
            PollFd::new(self.taps[0].as_fd(), PollFlags::POLLIN),
            PollFd::new(self.taps[1].as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN),
        ];
        match ppoll(&mut files, left, None) {
            Ok(_) => files[2].revents().is_none_or(|events| events.is_empty()),
            Err(error) => error == nix::errno::Errno::EINTR,
        }
    }

    fn take(&mut self, side: usize, weather: &Weather, frame: &mut [u8]) {
        let fate = self.directions[side].send(Instant::now(), weather, frame);
        let shared = &self.shared;
        let count = |counter: &AtomicU64, whether| counter.fetch_add(u64::from(whether), Relaxed);
        match fate {
            _ if self.waiting.len() >= MOST => _ = count(&shared.lost, true),
            Fate::Lost => _ = count(&shared.lost, true),
            Fate::TooLarge => _ = count(&shared.too_large, true),
            Fate::Arrives { at, again, late, changed } => {
                count(&shared.carried, true);
                count(&shared.late, late);
                count(&shared.changed, changed);
                count(&shared.repeated, again.is_some());
                for at in [Some(at), again].into_iter().flatten() {
                    self.sequence += 1;
                    let to = 1 - side;
                    self.waiting.push(Reverse((at, self.sequence, to, frame.to_vec())));
                }
            }
        }
    }

    fn arrive(&mut self) {
        let now = Instant::now();
        while self.waiting.peek().is_some_and(|Reverse((at, ..))| *at <= now) {
            let Some(Reverse((.., to, frame))) = self.waiting.pop() else { return };
            // What a bridge that is going away does not take is lost.
            let _ = self.taps[to].write(&frame);
        }
    }
}

/// A TAP in the bridge of a LAN.
fn tap(lan: &Lan, name: &str) -> Result<File, LabError> {
    let host = lan.switch();
    let file = host.enter(|| open(name))?.map_err(LabError::io("making a TAP"))?;
    let long = ["mtu", "9000", "txqueuelen", "20000"];
    host.ip(["link", "set", name, "master", "br0"].into_iter().chain(long).chain(["up"]))?;
    Ok(file)
}

fn open(name: &str) -> io::Result<File> {
    let flags = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: a path and flags; the result is checked.
    let fd = unsafe { libc::open(c"/dev/net/tun".as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let file = unsafe { File::from_raw_fd(fd) };
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes an ifreq, which outlives the call.
    if unsafe { libc::ioctl(fd, libc::TUNSETIFF as _, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
