//! Who a node is: its identity key and its signatures.
//!
//! A [`NodeId`] is an Ethereum-style address: the last 20 bytes of the Keccak-256 of an
//! uncompressed secp256k1 public key (without its leading `04`). Signatures are recoverable
//! ECDSA over Keccak-256, so that a signature and a message are enough to tell the signer's id.

mod key;
mod signature;

pub mod tls;

pub use gvpn_model::NodeId;
pub use key::{Identity, KeyError, node_id_of};
pub use signature::{Signature, SignatureError};
