//! Recoverable signatures.

use std::fmt;

use gvpn_model::NodeId;
use k256::ecdsa::{RecoveryId, Signature as Ecdsa, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha3::{Digest, Keccak256};

use crate::node_id_of;

/// A signature does not belong to the message, the domain or the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not {0}'s over this message")]
pub struct SignatureError(pub NodeId);

/// `r` (32 bytes), `s` (32 bytes, low half), recovery id (1 byte: 0 or 1).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature(Vec<u8>);

impl Signature {
    /// The 65 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A signature from bytes that came from outside; checked when it is verified.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// Who signed `message` for `domain`; `None` if nobody can have.
    pub fn signer(&self, domain: &str, message: &[u8]) -> Option<NodeId> {
        let (rs, recovery) = self.0.split_at_checked(64)?;
        let &[recovery] = recovery else { return None };
        let signature = Ecdsa::from_slice(rs).ok()?;
        if signature.normalize_s().is_some() {
            return None;
        }
        let recovery = RecoveryId::from_byte(recovery)?;
        let key = VerifyingKey::recover_from_digest(digest(domain, message), &signature, recovery)
            .ok()?;
        Some(node_id_of(&key))
    }

    /// Checks that `node` signed `message` for `domain`.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, node: NodeId, domain: &str, message: &[u8]) -> Result<(), SignatureError> {
        match self.signer(domain, message) {
            Some(signer) if signer == node => Ok(()),
            _ => Err(SignatureError(node)),
        }
    }

    pub(crate) fn make(key: &SigningKey, domain: &str, message: &[u8]) -> Self {
        let (signature, recovery) = key
            .sign_digest_recoverable(digest(domain, message))
            .expect("a valid key signs every digest");
        let mut bytes = signature.to_bytes().to_vec();
        bytes.push(recovery.to_byte());
        Self(bytes)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({})", hex::encode(&self.0))
    }
}

/// Keccak-256 of: length of the domain (1 byte), the domain, the message.
fn digest(domain: &str, message: &[u8]) -> Keccak256 {
    let length = u8::try_from(domain.len()).expect("domains are short constants");
    Keccak256::new().chain_update([length]).chain_update(domain).chain_update(message)
}

#[cfg(test)]
mod tests {
    use crate::Identity;

    #[test]
    fn a_signature_holds_for_one_signer_domain_and_message() {
        let (me, other) = (Identity::generate(), Identity::generate());
        let signature = me.sign("a", b"message");
        assert!(signature.verify(me.node_id(), "a", b"message").is_ok());
        assert!(signature.verify(other.node_id(), "a", b"message").is_err());
        assert!(signature.verify(me.node_id(), "b", b"message").is_err());
        assert!(signature.verify(me.node_id(), "a", b"Message").is_err());
    }

    #[test]
    fn rubbish_verifies_for_nobody() {
        let me = Identity::generate().node_id();
        for length in [0, 1, 64, 65, 66, 200] {
            for fill in [0, 1, 0x7f, 0xff] {
                let signature = super::Signature::from_bytes(&vec![fill; length]);
                assert!(signature.verify(me, "a", b"m").is_err());
            }
        }
    }
}
