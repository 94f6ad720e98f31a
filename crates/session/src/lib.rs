//! Data-lane cryptography: the keys of one lane, sealing, opening, and the replay window.
//!
//! A lane is a pair of AES-256-GCM (or ChaCha20-Poly1305) keys shared by two nodes, one for each
//! direction, taken from the TLS exporter of their QUIC handshake. A message is
//!
//! ```text
//! 0x04 0 0 0 | receiver index u32 LE | counter u64 LE | ciphertext | tag (16 bytes)
//! ```
//!
//! and its nonce is four zero bytes and the counter. Nothing here reads a clock: the owner of a
//! lane asks [`Sealer::reserve`] for counters and replaces the lane before they run out.

mod aead;
mod message;
mod replay;

pub use aead::{LaneKeys, OpenError, Opener, Sealer, Suite, has_aes_instructions};
pub use message::{DataHeader, HEADER_LEN, OVERHEAD, TAG_LEN, TYPE_DATA, write_header};
pub use replay::{ReplayError, ReplayWindow, WINDOW};

/// Label of the TLS exporter that gives a lane's keys.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-gvpn-data";

/// A lane seals at most this many packets; a new handshake replaces it well before.
pub const MAX_PACKETS: u64 = 1 << 34;

/// From this counter on a lane should be replaced.
pub const AGING_PACKETS: u64 = MAX_PACKETS / 2;

/// A lane in use is replaced after this time.
pub const MAX_AGE: std::time::Duration = std::time::Duration::from_secs(120);
