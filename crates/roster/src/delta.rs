//! What travels from the owner to the members.

use gvpn_model::MemberId;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Member, ReplicaError, Roster, Settings, SignedHead};

/// The largest encoded snapshot or delta that is read.
const MAX_BYTES: usize = 32 << 20;

/// A whole roster and its signed head.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The owner's signature over what `roster` must hash to.
    pub head: SignedHead,
    /// The roster.
    pub roster: Roster,
}

/// What changed after one epoch up to the head's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The owner's signature over what the result must hash to.
    pub head: SignedHead,
    /// The epoch that `changes` start from. They lead to the head from any epoch between as well.
    pub from: u64,
    /// The changes, each the final value of what it names.
    pub changes: Vec<Change>,
}

/// The new value of one part of a roster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A member is new or differs.
    Member(Member),
    /// A member is gone.
    Removed(MemberId),
    /// The settings differ.
    Settings(Box<Settings>),
}

impl Snapshot {
    /// The bytes for the wire or the disk.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`ReplicaError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ReplicaError> {
        decode(bytes)
    }
}

impl Delta {
    /// The bytes for the wire.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`ReplicaError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ReplicaError> {
        decode(bytes)
    }
}

pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_stdvec(value).expect("rosters are plain data")
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ReplicaError> {
    if bytes.len() > MAX_BYTES {
        return Err(ReplicaError::Malformed);
    }
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(ReplicaError::Malformed),
    }
}
