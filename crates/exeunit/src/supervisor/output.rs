//! A program's output on its way to the requestor.

use std::{io, io::PipeReader, time::Duration};

use gvpn_model::StreamCapture;
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::watch};

/// Most bytes of one stream in a command's result.
const KEPT: usize = 16 << 20;
/// How long output that was written before the program ended may take to be read after it.
const DRAIN: Duration = Duration::from_millis(200);
const READ: usize = 64 << 10;

/// What was captured of one stream.
#[derive(Default)]
pub(super) struct Captured {
    bytes: Vec<u8>,
    lost: usize,
}

impl Captured {
    fn push(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(&bytes[..room]);
        self.lost += bytes.len() - room;
    }

    pub(super) fn into_text(self) -> String {
        let mut text = String::from_utf8(self.bytes)
            .unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        if self.lost > 0 {
            text.push_str(&format!("\n[{} more bytes were not kept]\n", self.lost));
        }
        text
    }
}

/// Reads one stream until its end, or until the program is `over` and what it wrote has been read: a
/// daemon that the program leaves behind may hold the stream open. That daemon's output goes nowhere
/// from then on, but never blocks.
pub(super) async fn capture<F: Future<Output = ()>>(
    stream: PipeReader,
    how: Option<&StreamCapture>,
    mut over: watch::Receiver<bool>,
    event: impl Fn(String) -> F,
) -> Option<Captured> {
    let mut stream = open(stream).ok()?;
    let streamed = matches!(how, Some(StreamCapture::Stream(_)));
    let mut captured = how.map(|_| Captured::default());
    let mut text = Decoder::default();
    let mut buffer = vec![0; READ];
    let mut draining = false;
    loop {
        let read = tokio::select! {
            biased;
            read = stream.read(&mut buffer) => read,
            () = tokio::time::sleep(DRAIN), if draining => break,
            _ = over.wait_for(|over| *over), if !draining => {
                draining = true;
                continue;
            }
        };
        let Ok(n @ 1..) = read else { break };
        if let Some(captured) = &mut captured {
            captured.push(&buffer[..n]);
        }
        if streamed && let Some(piece) = text.decode(&buffer[..n]) {
            event(piece).await;
        }
    }
    if streamed && let Some(rest) = text.finish() {
        event(rest).await;
    }
    if draining {
        tokio::task::spawn_local(discard(stream));
    }
    captured
}

fn open(stream: PipeReader) -> io::Result<pipe::Receiver> {
    pipe::Receiver::from_owned_fd(stream.into())
}

async fn discard(mut stream: pipe::Receiver) {
    let mut buffer = vec![0; READ];
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

/// Text from pieces that may end in the middle of a character.
#[derive(Default)]
struct Decoder {
    held: Vec<u8>,
}

impl Decoder {
    fn decode(&mut self, bytes: &[u8]) -> Option<String> {
        self.held.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.held) {
            Err(e) if e.error_len().is_none() => e.valid_up_to(),
            Err(e) => self.held.len() - unfinished(&self.held[e.valid_up_to()..]),
            Ok(_) => self.held.len(),
        };
        let rest = self.held.split_off(whole);
        let piece = std::mem::replace(&mut self.held, rest);
        (!piece.is_empty()).then(|| String::from_utf8_lossy(&piece).into_owned())
    }

    fn finish(self) -> Option<String> {
        (!self.held.is_empty()).then(|| String::from_utf8_lossy(&self.held).into_owned())
    }
}

/// How many bytes at the end begin a character that is not complete.
fn unfinished(bytes: &[u8]) -> usize {
    (1..=bytes.len().min(3))
        .find(|n| {
            let tail = &bytes[bytes.len() - n..];
            std::str::from_utf8(tail)
                .is_err_and(|e| e.error_len().is_none() && e.valid_up_to() == 0)
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_cut_in_two_are_put_together() {
        let text = "a\u{e4}\u{1f680}z";
        for cut in 0..text.len() {
            let mut decoder = Decoder::default();
            let (a, b) = text.as_bytes().split_at(cut);
            let pieces = [decoder.decode(a), decoder.decode(b), decoder.finish()];
            assert_eq!(pieces.into_iter().flatten().collect::<String>(), text);
        }
    }

    #[test]
    fn bytes_that_are_no_text_pass_as_marks() {
        let mut decoder = Decoder::default();
        assert_eq!(
            decoder.decode(b"ok\xff\xfe then \xe2\x82").unwrap(),
            "ok\u{fffd}\u{fffd} then "
        );
        assert_eq!(decoder.decode(b"\xac!").unwrap(), "\u{20ac}!");
        assert_eq!(decoder.finish(), None);
    }

    #[test]
    fn long_output_is_cut_and_says_so() {
        let mut captured = Captured::default();
        captured.push(&vec![b'x'; KEPT]);
        captured.push(b"yz");
        let text = captured.into_text();
        assert!(text.ends_with("[2 more bytes were not kept]\n"));
    }
}
