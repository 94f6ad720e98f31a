//! What a machine's monitor says, and what it is answered: a header of three words (request, flags,
//! length), then a body, all in native byte order.

use std::io;

/// Length of the header.
pub(crate) const HEADER: usize = 12;
/// The longest body that is read: a memory table with all its regions.
pub(crate) const MAX_BODY: usize = 8 + MAX_REGIONS * REGION;
/// Most regions of a memory table.
pub(crate) const MAX_REGIONS: usize = 8;

const REGION: usize = 32;
const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;
/// A ring's descriptor message that brings none.
const NO_DESCRIPTOR: u64 = 1 << 8;

/// Protocol feature: any message may ask whether it was followed.
pub(crate) const REPLY_ACK: u64 = 1 << 3;

/// One region of the machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    /// Where the machine has it.
    pub(crate) machine: u64,
    pub(crate) len: u64,
    /// Where the monitor has it.
    pub(crate) monitor: u64,
    /// Where it is in its file.
    pub(crate) offset: u64,
}

/// A ring's place, in the monitor's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) descriptors: u64,
    pub(crate) used: u64,
    pub(crate) available: u64,
}

/// What is wanted. A ring is named by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    GetFeatures,
    SetFeatures(u64),
    GetProtocolFeatures,
    SetProtocolFeatures(u64),
    SetOwner,
    ResetOwner,
    SetMemory(Vec<Region>),
    SetSize(u32, u32),
    SetPlace(u32, Place),
    SetBase(u32, u32),
    GetBase(u32),
    /// With a descriptor, or without.
    SetKick(u32, bool),
    SetCall(u32, bool),
    SetError,
    SetEnabled(u32, bool),
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    number: u32,
    pub(crate) request: Request,
    /// Whether the monitor waits to hear that it was followed.
    pub(crate) acknowledge: bool,
}

impl Message {
    /// Reads the one message in `bytes`.
    ///
    /// # Errors
    /// When it is not a whole message of a kind that is known here.
    pub(crate) fn read(bytes: &[u8]) -> io::Result<Self> {
        let (head, body) =
            bytes.split_at_checked(HEADER).ok_or_else(|| wrong("it is cut short"))?;
        let (number, flags) = (word(head, 0)?, word(head, 4)?);
        if flags & (VERSION_MASK | REPLY) != VERSION {
            return Err(wrong("its flags are not those of a request"));
        }
        if word(head, 8)? as usize != body.len() {
            return Err(wrong("its length is not as it says"));
        }
        let ring = || Ok::<_, io::Error>((word(body, 0)?, word(body, 4)?));
        let descriptor = || {
            let value = long(body, 0)?;
            Ok::<_, io::Error>(((value & 0xff) as u32, value & NO_DESCRIPTOR == 0))
        };
        let request = match number {
            1 => Request::GetFeatures,
            2 => Request::SetFeatures(long(body, 0)?),
            3 => Request::SetOwner,
            4 => Request::ResetOwner,
            5 => Request::SetMemory(regions(body)?),
            8 => ring().map(|(index, size)| Request::SetSize(index, size))?,
            9 => Request::SetPlace(word(body, 0)?, place(body)?),
            10 => ring().map(|(index, base)| Request::SetBase(index, base))?,
            11 => ring().map(|(index, _)| Request::GetBase(index))?,
            12 => descriptor().map(|(index, there)| Request::SetKick(index, there))?,
            13 => descriptor().map(|(index, there)| Request::SetCall(index, there))?,
            14 => Request::SetError,
            15 => Request::GetProtocolFeatures,
            16 => Request::SetProtocolFeatures(long(body, 0)?),
            18 => ring().map(|(index, on)| Request::SetEnabled(index, on != 0))?,
            other => return Err(wrong(&format!("request {other} is not known here"))),
        };
        Ok(Self { number, request, acknowledge: flags & NEED_REPLY != 0 })
    }

    /// The answer that is a number.
    pub(crate) fn answer(&self, value: u64) -> Vec<u8> {
        self.reply(&value.to_ne_bytes())
    }

    /// The answer that names a ring.
    pub(crate) fn answer_ring(&self, index: u32, value: u32) -> Vec<u8> {
        self.reply(&[index.to_ne_bytes(), value.to_ne_bytes()].concat())
    }

    fn reply(&self, body: &[u8]) -> Vec<u8> {
        let head = [self.number, VERSION | REPLY, body.len() as u32].map(u32::to_ne_bytes);
        [head.as_flattened(), body].concat()
    }
}

fn regions(body: &[u8]) -> io::Result<Vec<Region>> {
    let count = word(body, 0)? as usize;
    if count > MAX_REGIONS || body.len() != 8 + count * REGION {
        return Err(wrong("its memory table is not as long as it says"));
    }
    let region = |bytes: &[u8]| {
        Ok(Region {
            machine: long(bytes, 0)?,
            len: long(bytes, 8)?,
            monitor: long(bytes, 16)?,
            offset: long(bytes, 24)?,
        })
    };
    body[8..].chunks(REGION).map(region).collect()
}

fn place(body: &[u8]) -> io::Result<Place> {
    Ok(Place { descriptors: long(body, 8)?, used: long(body, 16)?, available: long(body, 24)? })
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map(|bytes| u32::from_ne_bytes(*bytes)).ok_or_else(|| wrong("it is cut short"))
}

fn long(bytes: &[u8], at: usize) -> io::Result<u64> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map(|bytes| u64::from_ne_bytes(*bytes)).ok_or_else(|| wrong("it is cut short"))
}

pub(crate) fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("vhost-user message: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u32, flags: u32, body: &[u8]) -> Vec<u8> {
        let head = [number, flags, body.len() as u32].map(u32::to_ne_bytes);
        [head.as_flattened(), body].concat()
    }

    #[test]
    fn messages_are_read_and_answered() {
        let asked = Message::read(&message(11, 1, &[1, 0, 0, 0, 9, 0, 0, 0])).unwrap();
        assert_eq!(asked.request, Request::GetBase(1));
        assert!(!asked.acknowledge);
        let answer = asked.answer_ring(1, 77);
        assert_eq!(answer, message(11, 5, &[1, 0, 0, 0, 77, 0, 0, 0]));
        let mut table = [1u64.to_ne_bytes(), [0; 8], 4096u64.to_ne_bytes()].concat();
        table.extend([0x7f00_0000u64.to_ne_bytes(), 0u64.to_ne_bytes()].as_flattened());
        let set = Message::read(&message(5, 9, &table)).unwrap();
        let region = Region { machine: 0, len: 4096, monitor: 0x7f00_0000, offset: 0 };
        assert_eq!(set.request, Request::SetMemory(vec![region]));
        assert!(set.acknowledge);
    }

    #[test]
    fn rubbish_is_refused() {
        for number in 0..64 {
            for len in 0..300 {
                // Whatever it is, it ends in a request or an error.
                let _ = Message::read(&message(number, 1, &vec![0xff; len]));
            }
        }
        assert!(Message::read(&[]).is_err());
        assert!(Message::read(&message(1, 2, &[])).is_err());
        assert!(Message::read(&message(1, 5, &[])).is_err());
        let mut longer = message(1, 1, &[]);
        longer.push(0);
        assert!(Message::read(&longer).is_err());
        let many = [u64::from(MAX_REGIONS as u32 + 1).to_ne_bytes().as_slice(), &[0; 288]].concat();
        assert!(Message::read(&message(5, 1, &many)).is_err());
    }
}
