//! What a virtual machine's guest agent and its host say to each other.
//!
//! The agent (this crate's program) is the first process of the machine. It is linked statically and
//! runs from the initial file system, mounts the image, then serves one byte stream: a serial line or a
//! virtio port. What it says is not to be believed further than a payload's word: its host bounds every
//! length and every wait.

mod frame;
mod message;

pub use frame::{Frame, MAX_DATA, MAX_TEXT, decode, encode};
pub use message::{Done, Exit, FromGuest, Order, Program, Request, Stream};

/// What the first message of an agent says it is.
pub const VERSION: u32 = 1;
/// Bytes of a stream that may be under way before the host has taken them.
pub const WINDOW: u32 = 256 << 10;
/// Comes before the first frame: whatever the machine's firmware wrote on the line ends here.
pub const MAGIC: &[u8; 16] = b"\x00golem-vpn-agent";
