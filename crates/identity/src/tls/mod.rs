//! The handshake between nodes: TLS 1.3 in which both ends prove their identity.
//!
//! A node's transport key is made afresh at every start. Its self-signed certificate carries the
//! libp2p public key extension: the identity's public key and its signature over the transport
//! key. Nothing else in a certificate means anything.

mod certificate;
mod config;
mod extension;
mod verify;

pub use certificate::TransportKey;
pub use config::{ALPN, TlsError, client_config, server_config, server_name};
pub use extension::ExtensionError;
pub use verify::{CertificateError, peer_node_id, verify_certificate};
