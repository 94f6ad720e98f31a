//! The identity key.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use gvpn_model::NodeId;
use k256::ecdsa::{self, SigningKey, VerifyingKey, signature::Signer};
use sha3::{Digest, Keccak256};
use zeroize::Zeroizing;

use crate::Signature;

/// Why an identity could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("identity file {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("identity file {0} does not hold a secp256k1 secret key (64 hexadecimal digits)")]
    Format(String),
}

/// A node's identity: its secp256k1 secret key and the [`NodeId`] that follows from it.
///
/// The secret is zeroed when the value is dropped, and never printed.
#[derive(Clone)]
pub struct Identity {
    key: SigningKey,
    node_id: NodeId,
}

impl Identity {
    /// A fresh identity from the operating system's randomness.
    pub fn generate() -> Self {
        Self::from_key(SigningKey::random(&mut k256::elliptic_curve::rand_core::OsRng))
    }

    /// The identity with this secret; `None` if it is not a valid scalar.
    pub fn from_secret(secret: &[u8; 32]) -> Option<Self> {
        SigningKey::from_bytes(secret.into()).ok().map(Self::from_key)
    }

    /// Reads the identity kept in `path`.
    ///
    /// # Errors
    /// [`KeyError`] when the file is missing, unreadable or holds something else.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let text = Zeroizing::new(fs::read_to_string(path).map_err(|e| io_error(path, e))?);
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), &mut *secret)
            .ok()
            .and_then(|()| Self::from_secret(&secret))
            .ok_or_else(|| KeyError::Format(path.display().to_string()))
    }

    /// Writes the identity to a new file that only its owner may read.
    ///
    /// # Errors
    /// [`KeyError::Io`], also when the file exists already: an identity is never overwritten.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let text = Zeroizing::new(hex::encode(Zeroizing::new(self.key.to_bytes())));
        fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .map_err(|e| io_error(path, e))
    }

    /// Reads the identity in `path`, or makes one and keeps it there.
    ///
    /// # Errors
    /// As [`load`](Self::load) and [`save`](Self::save).
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        if path.exists() {
            return Self::load(path);
        }
        let identity = Self::generate();
        identity.save(path)?;
        Ok(identity)
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The compressed public key, 33 bytes (SEC 1).
    pub fn public_key(&self) -> [u8; 33] {
        let point = self.key.verifying_key().to_encoded_point(true);
        point.as_bytes().try_into().expect("a compressed point has 33 bytes")
    }

    /// Signs `message` for one purpose. `domain` names the purpose (such as `"gvpn roster v1"`),
    /// so that a signature made for one can never serve another.
    pub fn sign(&self, domain: &str, message: &[u8]) -> Signature {
        Signature::make(&self.key, domain, message)
    }

    /// A secret for another purpose than signing, which follows from the identity's own and does
    /// not betray it.
    pub fn derive_secret(&self, purpose: &str) -> Zeroizing<[u8; 32]> {
        let secret = Zeroizing::new(self.key.to_bytes());
        let digest = Keccak256::new()
            .chain_update(b"gvpn derived secret\0")
            .chain_update(*secret)
            .chain_update(purpose)
            .finalize();
        Zeroizing::new(digest.into())
    }

    /// A plain ECDSA signature with SHA-256, in DER: what the TLS certificate extension asks for.
    pub(crate) fn sign_sha256_der(&self, message: &[u8]) -> Vec<u8> {
        let signature: ecdsa::Signature = self.key.sign(message);
        signature.to_der().as_bytes().to_vec()
    }

    fn from_key(key: SigningKey) -> Self {
        let node_id = node_id_of(key.verifying_key());
        Self { key, node_id }
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}

/// The id of the node that holds this key.
pub fn node_id_of(key: &VerifyingKey) -> NodeId {
    let point = key.to_encoded_point(false);
    let digest = Keccak256::digest(&point.as_bytes()[1..]);
    let mut id = [0; 20];
    id.copy_from_slice(&digest[12..]);
    NodeId::from_bytes(id)
}

fn io_error(path: &Path, source: std::io::Error) -> KeyError {
    KeyError::Io { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn node_id_is_the_ethereum_address() {
        // The address of secret key 1 is published in many places.
        let mut secret = [0; 32];
        secret[31] = 1;
        let identity = Identity::from_secret(&secret).unwrap();
        assert_eq!(identity.node_id().to_string(), "0x7e5f4552091a69125d5dfcb7b8c2659029395bdf");
    }

    #[test]
    fn files_are_private_and_never_overwritten() {
        let dir = std::env::temp_dir().join(format!("gvpn-identity-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("key");
        let made = Identity::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Identity::load(&path).unwrap().node_id(), made.node_id());
        assert!(made.save(&path).is_err());
        fs::write(&path, "nonsense").unwrap();
        assert!(matches!(Identity::load(&path), Err(KeyError::Format(_))));
        fs::remove_dir_all(&dir).unwrap();
    }
}
