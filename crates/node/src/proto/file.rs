//! Messages of the file service.

use serde::{Deserialize, Serialize};

/// A request about a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileRequest {
    /// Send the published file with this name; its bytes follow the answer.
    Get {
        /// The last part of its URL: SHA3-256 of its content, hexadecimal.
        name: String,
    },
    /// Take a file into a slot; its bytes follow the answer `Ready`, then comes `Stored`.
    Put {
        /// The last part of the slot's URL.
        slot: String,
        /// How many bytes.
        size: u64,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileReply {
    /// The bytes follow.
    File {
        /// How many.
        size: u64,
    },
    /// Send the bytes.
    Ready,
    /// They are stored.
    Stored {
        /// SHA3-256 of what was stored, hexadecimal.
        hash: String,
    },
}
