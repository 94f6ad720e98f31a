//! The libp2p public key extension:
//! `SignedKey ::= SEQUENCE { publicKey OCTET STRING, signature OCTET STRING }`, where the public key
//! is a protobuf message of a key type (field 1) and the key's bytes (field 2).

use gvpn_model::NodeId;
use k256::ecdsa::{Signature, VerifyingKey, signature::Verifier};

use crate::{Identity, node_id_of};

/// 1.3.6.1.4.1.53594.1.1
pub(super) const OID: &[u64] = &[1, 3, 6, 1, 4, 1, 53594, 1, 1];
const PREFIX: &[u8] = b"libp2p-tls-handshake:";
/// Field 1 is 2 (secp256k1); field 2 is 33 bytes, a compressed point.
const KEY_HEADER: [u8; 4] = [0x08, 0x02, 0x12, 33];
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;

/// Why the extension does not prove an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ExtensionError {
    /// Not the structure that the libp2p TLS specification gives.
    #[error("the public key extension is malformed")]
    Malformed,
    /// The identity key is not a secp256k1 key, so that no node id follows from it.
    #[error("the identity key is not a secp256k1 public key")]
    KeyType,
    /// The identity key did not sign this certificate's key.
    #[error("the identity key did not sign the certificate's key")]
    Signature,
}

/// The extension that binds the transport key `spki` (a `SubjectPublicKeyInfo`) to `identity`.
pub(super) fn encode(identity: &Identity, spki: &[u8]) -> Vec<u8> {
    let mut key = KEY_HEADER.to_vec();
    key.extend_from_slice(&identity.public_key());
    let signature = identity.sign_sha256_der(&message(spki));
    let content = [tlv(OCTET_STRING, &key), tlv(OCTET_STRING, &signature)].concat();
    tlv(SEQUENCE, &content)
}

/// Who the extension proves the holder of `spki` to be.
pub(super) fn verify(extension: &[u8], spki: &[u8]) -> Result<NodeId, ExtensionError> {
    let (content, rest) = take(extension, SEQUENCE)?;
    let (key, signature_field) = take(content, OCTET_STRING)?;
    let (signature, end) = take(signature_field, OCTET_STRING)?;
    if !rest.is_empty() || !end.is_empty() {
        return Err(ExtensionError::Malformed);
    }
    let point = key.strip_prefix(&KEY_HEADER).ok_or(ExtensionError::KeyType)?;
    if point.len() != 33 {
        return Err(ExtensionError::KeyType);
    }
    let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| ExtensionError::KeyType)?;
    let signature = Signature::from_der(signature).map_err(|_| ExtensionError::Signature)?;
    key.verify(&message(spki), &signature).map_err(|_| ExtensionError::Signature)?;
    Ok(node_id_of(&key))
}

fn message(spki: &[u8]) -> Vec<u8> {
    [PREFIX, spki].concat()
}

/// One DER element; everything here is shorter than 128 bytes.
fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).ok().filter(|l| *l < 0x80);
    let mut out = vec![tag, length.expect("a key and a signature are shorter than 128 bytes")];
    out.extend_from_slice(content);
    out
}

/// Takes one element with this tag off the front. Long lengths cannot occur for a secp256k1 key,
/// so that an element with one holds another type of key.
fn take(bytes: &[u8], tag: u8) -> Result<(&[u8], &[u8]), ExtensionError> {
    match bytes {
        [t, length, rest @ ..] if *t == tag && *length < 0x80 => {
            rest.split_at_checked(usize::from(*length)).ok_or(ExtensionError::Malformed)
        }
        [t, _, ..] if *t == tag => Err(ExtensionError::KeyType),
        _ => Err(ExtensionError::Malformed),
    }
}
