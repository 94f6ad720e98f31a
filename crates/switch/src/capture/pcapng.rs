//! pcapng (draft-ietf-opsawg-pcapng): one section, one interface, raw IP packets.

use std::io::{self, Write};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
const LINKTYPE_RAW: u16 = 101;

const END: u16 = 0;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;

/// Which way a captured packet went, as seen by the payload of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the payload.
    Inbound,
    /// From the payload.
    Outbound,
}

/// Writes captured packets. Each is one `write_all` of a whole block, so that a reader of a pipe sees
/// whole packets.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    snap: usize,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Starts a capture of the interface `name`, cutting packets after `snap` bytes (0: never).
    ///
    /// # Errors
    /// Those of `to`.
    pub fn start(to: W, name: &str, snap: usize) -> io::Result<Self> {
        let mut writer = Self { to, snap, block: Vec::new() };
        let mut body = Vec::new();
        body.extend(0x1a2b_3c4d_u32.to_le_bytes());
        body.extend([1, 0, 0, 0]);
        body.extend([0xff; 8]);
        option(&mut body, SECTION_APPLICATION, b"gvpn");
        option(&mut body, END, b"");
        writer.write(SECTION, &body)?;
        let mut body = Vec::new();
        body.extend(LINKTYPE_RAW.to_le_bytes());
        body.extend([0, 0]);
        body.extend((snap as u32).to_le_bytes());
        option(&mut body, INTERFACE_NAME, name.as_bytes());
        option(&mut body, INTERFACE_RESOLUTION, &[9]);
        option(&mut body, END, b"");
        writer.write(INTERFACE, &body)?;
        writer.to.flush()?;
        Ok(writer)
    }

    /// Writes a packet of `length` bytes, of which `ip` are the first, seen at `time` (nanoseconds
    /// since 1970).
    ///
    /// # Errors
    /// Those of the writer underneath.
    pub fn packet(
        &mut self,
        time: u64,
        direction: Direction,
        ip: &[u8],
        length: usize,
    ) -> io::Result<()> {
        let kept = if self.snap == 0 { ip.len() } else { ip.len().min(self.snap) };
        let mut body = Vec::with_capacity(kept + 40);
        body.extend(0u32.to_le_bytes());
        body.extend(((time >> 32) as u32).to_le_bytes());
        body.extend((time as u32).to_le_bytes());
        body.extend((kept as u32).to_le_bytes());
        body.extend((length.max(ip.len()) as u32).to_le_bytes());
        body.extend(&ip[..kept]);
        pad(&mut body);
        let flags: u32 = match direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        option(&mut body, PACKET_FLAGS, &flags.to_le_bytes());
        option(&mut body, END, b"");
        self.write(PACKET, &body)?;
        self.to.flush()
    }

    /// The writer underneath.
    pub fn into_inner(self) -> W {
        self.to
    }

    fn write(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let length = (body.len() as u32 + 12).to_le_bytes();
        self.block.clear();
        self.block.extend(kind.to_le_bytes());
        self.block.extend(length);
        self.block.extend(body);
        self.block.extend(length);
        self.to.write_all(&self.block)
    }
}

impl Writer<Vec<u8>> {
    /// What was written since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.to)
    }
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    body.extend(code.to_le_bytes());
    body.extend((value.len() as u16).to_le_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_whole_and_aligned() {
        let mut writer = Writer::start(Vec::new(), "net", 60).unwrap();
        writer.packet(0x1_0000_0002, Direction::Inbound, &[0x45; 3], 0).unwrap();
        writer.packet(7, Direction::Outbound, &[0x45; 100], 100).unwrap();
        let bytes = writer.into_inner();
        let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
        let (mut at, mut kinds) = (0, Vec::new());
        while at < bytes.len() {
            let length = word(at + 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(at + length - 4) as usize, length);
            kinds.push((word(at), word(at + 20), word(at + 24)));
            at += length;
        }
        assert_eq!(kinds.len(), 4);
        assert_eq!((kinds[2].1, kinds[2].2), (3, 3));
        assert_eq!((kinds[3].1, kinds[3].2), (60, 100), "cut, with its true length");
    }
}
