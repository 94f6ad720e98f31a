//! Sealing and opening with the keys of one lane.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::{HEADER_LEN, MAX_PACKETS, TAG_LEN};

/// Bytes of a block of AES.
const BLOCK_LEN: usize = 16;

/// The AEAD of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Suite {
    /// AES-256-GCM: where both ends have AES instructions.
    Aes256Gcm,
    /// ChaCha20-Poly1305: where one lacks them.
    ChaCha20Poly1305,
}

impl Suite {
    /// A short, stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// Whether this CPU has instructions for AES and carry-less multiplication.
pub fn has_aes_instructions() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("aes") && std::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[allow(unreachable_code)]
    false
}

/// The keys of one lane, one for each direction.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct LaneKeys {
    /// The AEAD.
    #[zeroize(skip)]
    pub suite: Suite,
    /// Key of what this node sends.
    pub seal: [u8; 32],
    /// Key of what this node receives.
    pub open: [u8; 32],
}

impl LaneKeys {
    /// The keys in 64 bytes of TLS exporter output: the client's sending key, then the server's.
    pub fn from_exporter(suite: Suite, output: &[u8; 64], client: bool) -> Self {
        let mut first = [0; 32];
        let mut last = [0; 32];
        first.copy_from_slice(&output[..32]);
        last.copy_from_slice(&output[32..]);
        let (seal, open) = if client { (first, last) } else { (last, first) };
        first.zeroize();
        last.zeroize();
        Self { suite, seal, open }
    }

    /// What seals with these keys.
    pub fn sealer(&self) -> Sealer {
        Sealer { suite: self.suite, key: key(self.suite, &self.seal), next: AtomicU64::new(0) }
    }

    /// What opens with these keys.
    pub fn opener(&self) -> Opener {
        Opener { key: key(self.suite, &self.open) }
    }
}

impl std::fmt::Debug for LaneKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LaneKeys").field("suite", &self.suite).finish_non_exhaustive()
    }
}

/// Seals messages and numbers them; threads share it.
#[derive(Debug)]
pub struct Sealer {
    suite: Suite,
    key: LessSafeKey,
    next: AtomicU64,
}

impl Sealer {
    /// Takes `n` consecutive counters and returns the first; `None` when the lane is used up.
    /// Every counter taken must seal at most one message.
    #[inline]
    pub fn reserve(&self, n: u64) -> Option<u64> {
        let first = self.next.fetch_add(n, Ordering::Relaxed);
        // The bound leaves room for every thread to overshoot without wrapping.
        (first <= MAX_PACKETS - n.min(MAX_PACKETS)).then_some(first)
    }

    /// How many counters have been taken.
    pub fn used(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Seals a datagram in place: `datagram` is header, plaintext, and room for the tag. The
    /// header must have been written already.
    ///
    /// # Panics
    /// If `datagram` is shorter than an empty message: the caller sizes its own buffer.
    #[inline]
    pub fn seal_in_place(&self, counter: u64, datagram: &mut [u8]) {
        let text = datagram.len() - TAG_LEN;
        let (body, tag) = datagram[HEADER_LEN..].split_at_mut(text - HEADER_LEN);
        self.seal_parts(counter, body, &[], tag);
    }

    /// Seals a message's text: the first `head` bytes of `text` are there, `payload` is elsewhere,
    /// and the rest of `text` has room for exactly it and the tag.
    ///
    /// # Panics
    /// If `text` has another length: the caller sizes its own buffer.
    #[inline]
    pub fn seal_scatter(&self, counter: u64, text: &mut [u8], head: usize, payload: &[u8]) {
        if self.suite == Suite::ChaCha20Poly1305 {
            // This cipher's implementation takes the second part byte by byte; copying is cheaper.
            let end = head + payload.len();
            text[head..end].copy_from_slice(payload);
            let (body, tag) = text.split_at_mut(end);
            return self.seal_parts(counter, body, &[], tag);
        }
        // The cipher goes over a boundary between two parts faster where a block of its own ends.
        let (more, payload) =
            payload.split_at((head.wrapping_neg() % BLOCK_LEN).min(payload.len()));
        let end = head + more.len();
        text[head..end].copy_from_slice(more);
        let (head, out) = text.split_at_mut(end);
        self.seal_parts(counter, head, payload, out);
    }

    #[inline]
    fn seal_parts(&self, counter: u64, head: &mut [u8], payload: &[u8], out: &mut [u8]) {
        self.key
            .seal_in_place_scatter(nonce(counter), Aad::empty(), head, payload, out)
            .expect("lengths agree and are far below the cipher's limits");
    }
}

/// A message that is not authentic, or not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message does not authenticate under this lane's key")]
pub struct OpenError;

/// Opens messages; threads share it.
#[derive(Debug)]
pub struct Opener {
    key: LessSafeKey,
}

impl Opener {
    /// Opens a datagram in place; the plaintext begins after its header. On failure the buffer's
    /// contents are lost.
    ///
    /// # Errors
    /// [`OpenError`] if it is too short or does not authenticate.
    #[inline]
    pub fn open_in_place<'a>(
        &self,
        counter: u64,
        datagram: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        let body = datagram.get_mut(HEADER_LEN..).ok_or(OpenError)?;
        self.key.open_in_place(nonce(counter), Aad::empty(), body).map_err(|_| OpenError)
    }
}

#[inline]
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn key(suite: Suite, bytes: &[u8; 32]) -> LessSafeKey {
    let algorithm = match suite {
        Suite::Aes256Gcm => &AES_256_GCM,
        Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
    };
    LessSafeKey::new(UnboundKey::new(algorithm, bytes).expect("both suites take 32-byte keys"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OVERHEAD, write_header};

    fn pair(suite: Suite) -> (LaneKeys, LaneKeys) {
        let mut output = [0; 64];
        output.iter_mut().zip(0..).for_each(|(b, i)| *b = i);
        (
            LaneKeys::from_exporter(suite, &output, true),
            LaneKeys::from_exporter(suite, &output, false),
        )
    }

    fn sealed(sealer: &Sealer, text: &[u8]) -> Vec<u8> {
        let counter = sealer.reserve(1).unwrap();
        let mut datagram = vec![0; text.len() + OVERHEAD];
        write_header(datagram.first_chunk_mut().unwrap(), 9, counter);
        datagram[HEADER_LEN..HEADER_LEN + text.len()].copy_from_slice(text);
        sealer.seal_in_place(counter, &mut datagram);
        datagram
    }

    #[test]
    fn each_end_opens_what_the_other_seals_and_nothing_else() {
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            let (client, server) = pair(suite);
            for (from, to) in [(&client, &server), (&server, &client)] {
                let sealer = from.sealer();
                for counter in 0..3 {
                    let mut datagram = sealed(&sealer, b"payload");
                    assert!(!datagram.windows(7).any(|w| w == b"payload"));
                    assert_eq!(
                        to.opener().open_in_place(counter, &mut datagram).unwrap(),
                        b"payload"
                    );
                }
                let good = sealed(&sealer, b"payload");
                assert!(to.opener().open_in_place(4, &mut good.clone()).is_err());
                assert!(from.opener().open_in_place(3, &mut good.clone()).is_err());
                for at in HEADER_LEN..good.len() {
                    let mut bad = good.clone();
                    bad[at] ^= 1;
                    assert!(to.opener().open_in_place(3, &mut bad).is_err());
                }
                assert!(to.opener().open_in_place(3, &mut good.clone()[..20]).is_err());
                assert!(to.opener().open_in_place(3, &mut good.clone()[..3]).is_err());
            }
        }
    }

    #[test]
    fn scattered_and_contiguous_sealing_agree() {
        let text: Vec<u8> = (0..1400u32).map(|i| i as u8).collect();
        for suite in [Suite::Aes256Gcm, Suite::ChaCha20Poly1305] {
            for cut in [0, 1, 15, 16, 40, 52, 1399, 1400] {
                let (keys, _) = pair(suite);
                let want = sealed(&keys.sealer(), &text);
                let mut got = vec![0; text.len() + OVERHEAD];
                write_header(got.first_chunk_mut().unwrap(), 9, 0);
                got[HEADER_LEN..HEADER_LEN + cut].copy_from_slice(&text[..cut]);
                keys.sealer().seal_scatter(0, &mut got[HEADER_LEN..], cut, &text[cut..]);
                assert_eq!(got, want, "{suite:?} {cut}");
            }
        }
    }

    #[test]
    fn counters_are_given_once_and_run_out() {
        let (keys, _) = pair(Suite::Aes256Gcm);
        let sealer = keys.sealer();
        assert_eq!((sealer.reserve(3), sealer.reserve(1)), (Some(0), Some(3)));
        sealer.next.store(MAX_PACKETS - 2, Ordering::Relaxed);
        assert_eq!(sealer.reserve(3), None);
        assert_eq!(sealer.reserve(1), None);
    }

    #[test]
    fn secrets_do_not_reach_logs() {
        let (keys, _) = pair(Suite::Aes256Gcm);
        assert_eq!(format!("{keys:?}"), "LaneKeys { suite: Aes256Gcm, .. }");
    }
}
