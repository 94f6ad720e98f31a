//! Machines and monitors that do what they like: whatever it is, it ends in frames or in an error, soon, and
//! touches nothing beyond the memory that was shared.

use std::{
    io::{self, IoSlice, Read},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
};

use gvpn_packet::{VNET_LEN, VnetHdr};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::{
        eventfd::{EfdFlags, EventFd},
        memfd::{MFdFlags, memfd_create},
        socket::{ControlMessage, MsgFlags, sendmsg},
        uio::{pread, pwrite},
    },
};
use proptest::{collection::vec, prelude::*, sample::select};
use vm_memory::{Bytes, GuestAddress};

use crate::{
    Card, SendError,
    header::{FEATURES, Features},
    memory::Memory,
    message::{MAX_BODY, Message, Place, Region},
    ring::{Ring, Taken},
};

/// Where the machine has its memory, and how much; around it in the file is as much of somebody else's.
const BASE: u64 = 0x10000;
const LEN: u64 = 0x10000;
/// Where the monitor has it.
const MONITORS: u64 = 0x7f00_0000_0000;
/// Where the parts of a ring are.
const DESCRIPTORS: u64 = 0;
const AVAILABLE: u64 = 0x4000;
const USED: u64 = 0x5000;
const TABLE: u64 = 0x8000;
const SIZE: u16 = 16;

/// What a machine, its monitor, or whoever serves its card does next.
#[derive(Debug, Clone)]
enum Act {
    Take(usize),
    Put {
        hdr: [u8; VNET_LEN],
        parts: Vec<usize>,
    },
    Listen,
    Tell,
    /// A descriptor in the ring's table or in one of its own.
    Describe {
        own: bool,
        at: u16,
        addr: u64,
        len: u32,
        flags: u16,
        next: u16,
    },
    /// A head is made available.
    Offer(u16),
    Scribble {
        at: u64,
        bytes: Vec<u8>,
    },
    Size(u32),
    Base(u32),
    Place(Place),
    Enable(bool),
    Features(u64),
    Start,
    Stop,
}

/// Addresses that are good, at edges, or nowhere.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0..LEN).prop_map(|at| BASE + at),
        1 => select(vec![0, BASE - 1, BASE + LEN - 1, BASE + LEN, u64::MAX, u64::MAX - 15, 1 << 63]),
        1 => any::<u64>(),
    ]
}

fn length() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => 0..2000u32,
        2 => (0..64u32).prop_map(|n| n * 16),
        1 => select(vec![u32::MAX, 0x10000, 0xffff0, 0x10_0000, 1 << 31]),
        1 => any::<u32>(),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    let part = || prop_oneof![(0..LEN / 16).prop_map(|n| MONITORS + 16 * n), any::<u64>()];
    (part(), part(), part()).prop_map(|(descriptors, used, available)| Place {
        descriptors,
        used,
        available,
    })
}

fn act() -> impl Strategy<Value = Act> {
    let index = || prop_oneof![3 => 0..SIZE, 1 => any::<u16>()];
    prop_oneof![
        6 => (0..70_000usize).prop_map(Act::Take),
        6 => (any::<[u8; VNET_LEN]>(), any::<bool>(), vec(0..4000usize, 0..4)).prop_map(
            |(hdr, plain, parts)| Act::Put { hdr: if plain { [0; VNET_LEN] } else { hdr }, parts },
        ),
        1 => Just(Act::Listen),
        1 => Just(Act::Tell),
        8 => (any::<bool>(), index(), address(), length(), 0..8u16, index()).prop_map(
            |(own, at, addr, len, flags, next)| Act::Describe { own, at, addr, len, flags, next },
        ),
        8 => index().prop_map(Act::Offer),
        2 => (0..LEN, vec(any::<u8>(), 0..64)).prop_map(|(at, bytes)| Act::Scribble { at, bytes }),
        1 => prop_oneof![0..2048u32, any::<u32>(), Just(u32::from(SIZE))].prop_map(Act::Size),
        1 => any::<u32>().prop_map(Act::Base),
        1 => place().prop_map(Act::Place),
        1 => any::<bool>().prop_map(Act::Enable),
        1 => any::<u64>().prop_map(|bits| Act::Features(bits & FEATURES)),
        1 => Just(Act::Start),
        1 => Just(Act::Stop),
    ]
}

/// A ring in shared memory, and the file that the memory is in.
struct Bench {
    ring: Ring,
    memory: Arc<Memory>,
    file: OwnedFd,
    offered: u16,
}

impl Bench {
    fn new(features: u64) -> Self {
        let file = sealed(3 * LEN);
        for edge in [0, 2 * LEN] {
            pwrite(&file, &[0xa5; LEN as usize], edge as i64).unwrap();
        }
        let region = Region { machine: BASE, len: LEN, monitor: MONITORS, offset: LEN };
        let memory = Arc::new(Memory::new(vec![region], vec![file.try_clone().unwrap()]).unwrap());
        let mut ring = Ring::new(1024).unwrap();
        ring.set_memory(Some(memory.clone()));
        ring.set_features(Features(features));
        ring.set_enabled(true);
        ring.set_size(SIZE.into()).unwrap();
        ring.set_place(Place {
            descriptors: MONITORS + DESCRIPTORS,
            available: MONITORS + AVAILABLE,
            used: MONITORS + USED,
        });
        ring.start().unwrap();
        Self { ring, memory, file, offered: 0 }
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let room = (LEN - at.min(LEN)) as usize;
        let bytes = &bytes[..bytes.len().min(room)];
        self.memory.map.write_slice(bytes, GuestAddress(BASE + at.min(LEN - 1))).unwrap();
    }

    fn describe(&self, table: u64, at: u16, (addr, len, flags, next): (u64, u32, u16, u16)) {
        let bytes = [
            &addr.to_le_bytes()[..],
            &len.to_le_bytes(),
            &flags.to_le_bytes(),
            &next.to_le_bytes(),
        ];
        self.write(table + 16 * u64::from(at), &bytes.concat());
    }

    fn offer(&mut self, head: u16) {
        self.write(AVAILABLE + 4 + 2 * u64::from(self.offered % SIZE), &head.to_le_bytes());
        self.offered = self.offered.wrapping_add(1);
        self.write(AVAILABLE + 2, &self.offered.to_le_bytes());
    }

    fn follow(&mut self, act: &Act) {
        match act {
            Act::Take(room) => {
                let mut buffer = vec![0; *room];
                if let Ok(Taken::Frame(_, len)) = self.ring.take(&mut buffer) {
                    assert!(len <= *room);
                }
            }
            Act::Put { hdr, parts } => {
                let parts: Vec<_> = parts.iter().map(|len| vec![7; *len]).collect();
                let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
                let _: Result<(), SendError> = self.ring.put(&VnetHdr::read(hdr), &slices);
            }
            Act::Listen => drop(self.ring.listen()),
            Act::Tell => drop(self.ring.tell()),
            Act::Describe { own, at, addr, len, flags, next } => {
                let table = if *own { TABLE } else { DESCRIPTORS };
                self.describe(table, *at, (*addr, *len, *flags, *next));
            }
            Act::Offer(head) => self.offer(*head),
            Act::Scribble { at, bytes } => self.write(*at, bytes),
            Act::Size(size) => drop(self.ring.set_size(*size)),
            Act::Base(base) => self.ring.set_base(*base),
            Act::Place(place) => self.ring.set_place(*place),
            Act::Enable(on) => self.ring.set_enabled(*on),
            Act::Features(features) => self.ring.set_features(Features(*features)),
            Act::Start => drop(self.ring.start()),
            Act::Stop => drop(self.ring.stop()),
        }
    }

    /// What lies around the memory is as it was.
    fn check_edges(&self) {
        for edge in [0, 2 * LEN] {
            let mut bytes = [0; LEN as usize];
            pread(&self.file, &mut bytes, edge as i64).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0xa5), "written beyond the memory");
        }
    }
}

fn sealed(len: u64) -> OwnedFd {
    let file = memfd_create("memory", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    nix::unistd::ftruncate(&file, len as i64).unwrap();
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn rings_of_every_kind_end_in_frames_or_errors(
        features in any::<u64>(),
        acts in vec(act(), 1..80),
    ) {
        let mut bench = Bench::new(features & FEATURES);
        for act in &acts {
            bench.follow(act);
        }
        bench.check_edges();
    }

    #[test]
    fn messages_are_read_or_refused(
        number in 0..40u32,
        flags in prop_oneof![Just(1u32), Just(9), any::<u32>()],
        body in vec(any::<u8>(), 0..MAX_BODY + 40),
        said in prop_oneof![3 => Just(None), 1 => any::<u32>().prop_map(Some)],
    ) {
        let len = said.unwrap_or(body.len() as u32);
        let head = [number, flags, len].map(u32::to_ne_bytes);
        let _ = Message::read(&[head.as_flattened(), &body].concat());
        let _ = Message::read(&body);
    }
}

/// A descriptor that comes with a message.
#[derive(Debug, Clone, Copy)]
enum Gift {
    Memory,
    Counter,
    Pipe,
    Socket,
}

/// A message of a monitor: often one that makes sense.
fn message() -> impl Strategy<Value = (Vec<u8>, Vec<Gift>)> {
    let region = (0..2 * LEN / 4096, 0..2 * LEN, address(), 0..3u64).prop_map(
        |(at, len, monitor, offset)| {
            [BASE + at * 4096, len, monitor, offset * 4096]
                .map(u64::to_ne_bytes)
                .as_flattened()
                .to_vec()
        },
    );
    let table = vec(region, 0..4).prop_map(|regions| {
        let count = (regions.len() as u64).to_ne_bytes().to_vec();
        (5, [vec![count], regions].concat().concat())
    });
    let ring = |numbers: &'static [u32]| {
        let value = prop_oneof![Just(0u32), Just(1), Just(u32::from(SIZE)), any::<u32>()];
        (select(numbers), 0..3u32, value).prop_map(|(number, index, value)| {
            (number, [index, value].map(u32::to_ne_bytes).as_flattened().to_vec())
        })
    };
    let placed = (0..3u32, place()).prop_map(|(index, place)| {
        let words = [u64::from(index), place.descriptors, place.used, place.available, 0];
        (9, words.map(u64::to_ne_bytes).as_flattened().to_vec())
    });
    let word =
        (select(vec![2u32, 12, 13, 14, 16]), prop_oneof![0..3u64, Just(FEATURES), any::<u64>()])
            .prop_map(|(number, value)| (number, value.to_ne_bytes().to_vec()));
    let body = prop_oneof![
        2 => select(vec![1u32, 3, 4, 15]).prop_map(|number| (number, vec![])),
        3 => word,
        3 => table,
        4 => ring(&[8, 10, 11, 18]),
        2 => placed,
        1 => (any::<u32>(), vec(any::<u8>(), 0..64)),
    ];
    let gift = select(vec![
        Gift::Memory,
        Gift::Memory,
        Gift::Counter,
        Gift::Counter,
        Gift::Pipe,
        Gift::Socket,
    ]);
    (body, vec(gift, 0..12), prop_oneof![9 => Just(0i32), 1 => -8..8i32]).prop_map(
        |((number, body), gifts, lie)| {
            let len = (body.len() as u32).saturating_add_signed(lie);
            let head = [number, 9, len].map(u32::to_ne_bytes);
            ([head.as_flattened(), &body].concat(), gifts)
        },
    )
}

/// Sends a message; the reading end of a pipe that ends when nobody holds its gifts any more.
fn send(monitor: &UnixStream, bytes: &[u8], gifts: &[Gift]) -> io::PipeReader {
    let (reader, writer) = io::pipe().unwrap();
    let files: Vec<OwnedFd> = gifts
        .iter()
        .map(|gift| match gift {
            Gift::Memory => sealed(3 * LEN),
            Gift::Counter => EventFd::from_flags(EfdFlags::empty())
                .unwrap()
                .as_fd()
                .try_clone_to_owned()
                .unwrap(),
            Gift::Pipe => writer.as_fd().try_clone_to_owned().unwrap(),
            Gift::Socket => UnixStream::pair().unwrap().0.into(),
        })
        .collect();
    let fds: Vec<_> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let rights = if fds.is_empty() { &[][..] } else { &rights };
    let _ = sendmsg::<()>(
        monitor.as_raw_fd(),
        &[IoSlice::new(bytes)],
        rights,
        MsgFlags::MSG_DONTWAIT,
        None,
    );
    reader
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn monitors_of_every_kind_are_followed_or_left(messages in vec(message(), 1..30)) {
        let (ours, mut monitor) = UnixStream::pair().unwrap();
        monitor.set_nonblocking(true).unwrap();
        let card = Card::new(ours.into()).unwrap();
        let mut pipes = vec![];
        let mut buffer = vec![0; 70_000];
        for (bytes, gifts) in &messages {
            pipes.push(send(&monitor, bytes, gifts));
            let _ = card.send(&VnetHdr::default(), &[IoSlice::new(&[7; 100])]);
            let outcome = card.receive(&mut buffer);
            // Whoever serves it lets go of a card that is in error.
            if outcome.is_err_and(|e| e.kind() != io::ErrorKind::WouldBlock) {
                break;
            }
            let _ = monitor.read(&mut [0; 4096]);
        }
        drop(card);
        drop(monitor);
        for mut pipe in pipes {
            assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
        }
    }
}

/// A chain may be as long as its ring, in a table of its own too: this one is many times as long, of pieces
/// without a byte, and would be gone through for each frame.
#[test]
fn a_frame_in_endless_pieces_is_refused() {
    const INDIRECT: u16 = 4;
    const NEXT: u16 = 1;
    const WRITE: u16 = 2;
    for flags in [NEXT, NEXT | WRITE] {
        let mut bench = Bench::new(FEATURES);
        let pieces = 2000;
        for at in 0..pieces {
            bench.describe(TABLE, at, (BASE, 0, flags, at + 1));
        }
        bench.describe(DESCRIPTORS, 0, (BASE + TABLE, u32::from(pieces) * 16, INDIRECT, 0));
        bench.offer(0);
        if flags & WRITE == 0 {
            assert!(bench.ring.take(&mut [0; 100]).is_err());
        } else {
            let sent = bench.ring.put(&VnetHdr::default(), &[IoSlice::new(&[7; 100])]);
            assert_eq!(sent, Err(SendError::Gone));
        }
    }
}
