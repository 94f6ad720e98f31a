//! The signed summary of one epoch.

use gvpn_identity::{Identity, Signature};
use gvpn_model::{NetworkId, NodeId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{ReplicaError, RosterHash};

const DOMAIN: &str = "gvpn roster head v1";

/// What the owner signs: at this epoch, the roster of this network hashes to this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The network.
    pub network: NetworkId,
    /// The epoch.
    pub epoch: u64,
    /// Hash of the roster at that epoch.
    pub hash: RosterHash,
}

/// A [`Head`] as it was signed: the bytes, and the owner's signature over them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    bytes: Vec<u8>,
    signature: Signature,
}

impl SignedHead {
    /// Signs `head`.
    ///
    /// # Panics
    /// Never: a head always encodes.
    pub fn sign(identity: &Identity, head: &Head) -> Self {
        let bytes = postcard::to_stdvec(head).expect("a head is plain data");
        let signature = identity.sign(DOMAIN, &bytes);
        Self { bytes, signature }
    }

    /// The head, if `owner` signed it.
    ///
    /// # Errors
    /// [`ReplicaError::Signature`], or [`ReplicaError::Malformed`] when the bytes are no head.
    pub fn verify(&self, owner: NodeId) -> Result<Head, ReplicaError> {
        self.signature
            .verify(owner, DOMAIN, &self.bytes)
            .map_err(|_| ReplicaError::Signature(owner))?;
        self.peek()
    }

    /// The head, whoever signed it.
    ///
    /// # Errors
    /// [`ReplicaError::Malformed`].
    pub fn peek(&self) -> Result<Head, ReplicaError> {
        match postcard::take_from_bytes(&self.bytes) {
            Ok((head, [])) => Ok(head),
            _ => Err(ReplicaError::Malformed),
        }
    }
}

/// The id of the network that `owner` makes with `salt`. An id belongs to its owner: another node
/// would have to find a second pre-image to sign for it.
pub fn network_id(owner: NodeId, salt: &[u8; 16]) -> NetworkId {
    let digest = Sha256::new()
        .chain_update(b"gvpn network v1")
        .chain_update(owner.as_bytes())
        .chain_update(salt)
        .finalize();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    NetworkId::from_bytes(id)
}
