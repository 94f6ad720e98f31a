//! Datagrams on a stream: a length (2 bytes, big-endian) and as many bytes. A length of zero is
//! allowed and means nothing.

use bytes::{Buf, BytesMut};
use gvpn_dataplane::Carried;

/// The largest datagram: what UDP over IPv4 carries.
const MAX_FRAME: usize = 65_507;
/// At most so many datagrams are handed on together, and so many bytes.
const MAX_BATCH: usize = 64;
const HEADER: usize = 2;
/// Room for what one read brings.
const READ: usize = 64 * 1024;

/// The other end sent what is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes: a datagram has at most {MAX_FRAME}")]
pub struct FrameError(usize);

/// Appends datagrams as frames.
pub fn write_frames(out: &mut Vec<u8>, batch: &Carried) {
    for datagram in batch.contents.chunks(batch.stride.max(1)) {
        // No datagram is larger than its length can say.
        let Ok(length) = u16::try_from(datagram.len()) else { continue };
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(datagram);
    }
}

/// Finds the datagrams in what a stream brings.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// Where to put what was read. There is room.
    pub fn buffer(&mut self) -> &mut BytesMut {
        self.buffer.reserve(READ);
        &mut self.buffer
    }

    /// The next datagrams of one size (the last one maybe smaller) that are complete.
    ///
    /// # Errors
    /// [`FrameError`]: the stream is of no use any more.
    // An iterator would hide the error's finality.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Carried>, FrameError> {
        while self.complete()? == Some(0) {
            self.buffer.advance(HEADER);
        }
        let mut batch = Carried { contents: Vec::new(), stride: 0 };
        for _ in 0..MAX_BATCH {
            let Some(length) = self.complete()? else { break };
            let first = batch.contents.is_empty();
            let fits = length <= batch.stride && batch.contents.len() + length <= MAX_FRAME;
            if length == 0 || !(first || fits) {
                break;
            }
            self.buffer.advance(HEADER);
            batch.contents.extend_from_slice(&self.buffer[..length]);
            self.buffer.advance(length);
            if first {
                batch.stride = length;
            } else if length < batch.stride {
                break;
            }
        }
        Ok((!batch.contents.is_empty()).then_some(batch))
    }

    /// The length of the frame at the front if all of it is here.
    fn complete(&self) -> Result<Option<usize>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*header));
        if length > MAX_FRAME {
            return Err(FrameError(length));
        }
        Ok((self.buffer.len() >= HEADER + length).then_some(length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn datagrams(batches: impl IntoIterator<Item = Carried>) -> Vec<Vec<u8>> {
        let split =
            |b: Carried| b.contents.chunks(b.stride).map(<[u8]>::to_vec).collect::<Vec<_>>();
        batches.into_iter().flat_map(split).collect()
    }

    fn read_all(reader: &mut FrameReader) -> Result<Vec<Carried>, FrameError> {
        let mut all = Vec::new();
        while let Some(batch) = reader.next()? {
            assert!(batch.contents.len() <= MAX_FRAME && batch.stride > 0);
            all.push(batch);
        }
        Ok(all)
    }

    #[test]
    fn alike_datagrams_are_handed_on_together() {
        let mut out = Vec::new();
        let batch = Carried { contents: vec![7; 1000 * 30 + 10], stride: 1000 };
        write_frames(&mut out, &batch);
        write_frames(&mut out, &Carried { contents: vec![8; 1001], stride: 1001 });
        let mut reader = FrameReader::default();
        reader.buffer().extend_from_slice(&out);
        let read = read_all(&mut reader).unwrap();
        assert_eq!(read[0], batch);
        assert_eq!(read.len(), 2);
    }

    proptest! {
        #[test]
        fn datagrams_survive_however_the_stream_is_cut(
            sent in prop::collection::vec((1..3000usize, any::<u8>()), 1..60),
            cuts in prop::collection::vec(1..5000usize, 1..200),
        ) {
            let sent: Vec<Vec<u8>> = sent.into_iter().map(|(n, byte)| vec![byte; n]).collect();
            let mut wire = Vec::new();
            for datagram in &sent {
                write_frames(&mut wire, &Carried { contents: datagram.clone(), stride: datagram.len() });
                // An empty frame means nothing.
                wire.extend_from_slice(&[0, 0]);
            }
            let (mut reader, mut read) = (FrameReader::default(), Vec::new());
            let mut rest = &wire[..];
            for cut in cuts.into_iter().cycle() {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                reader.buffer().extend_from_slice(now);
                read.extend(read_all(&mut reader).unwrap());
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(datagrams(read), sent);
            prop_assert!(reader.buffer.is_empty());
        }

        #[test]
        fn rubbish_is_refused_or_waited_with(wire in prop::collection::vec(any::<u8>(), 0..70_000)) {
            let mut reader = FrameReader::default();
            reader.buffer().extend_from_slice(&wire);
            let size = |all: Vec<Carried>| all.iter().map(|b| b.contents.len()).sum::<usize>();
            prop_assert!(read_all(&mut reader).map_or(0, size) <= wire.len());
        }
    }
}
