//! TLS settings of both ends.

use std::sync::Arc;

use gvpn_model::NodeId;
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    server::NoServerSessionStorage,
    version::TLS13,
};
use rustls_pki_types::ServerName;

use super::{TransportKey, verify::NodeVerifier};

/// The protocol that nodes speak, by its name in the handshake.
pub const ALPN: &[u8] = b"gvpn/1";
const NAME_SUFFIX: &str = ".node.gvpn";

/// TLS cannot be set up.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TlsError {
    /// No key could be made.
    #[error("no transport key could be made: {0}")]
    Key(String),
    /// The settings contradict each other.
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
}

/// Settings of the end that is called: the caller must prove an identity.
///
/// # Errors
/// [`TlsError::Settings`]; cannot happen for a key that [`TransportKey::generate`] made.
pub fn server_config(key: &TransportKey) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let verifier = NodeVerifier::new(provider.signature_verification_algorithms);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![key.certificate().clone()], key.private_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Settings of the end that calls. Whom it calls is in the [`server_name`].
///
/// # Errors
/// As [`server_config`].
pub fn client_config(key: &TransportKey) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let verifier = NodeVerifier::new(provider.signature_verification_algorithms);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(vec![key.certificate().clone()], key.private_key())?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    // The name is for our own verifier; who is called is nobody else's business.
    config.enable_sni = false;
    Ok(config)
}

/// The name to hand to TLS when calling `node`, or whoever answers. It is never sent.
pub fn server_name(node: Option<NodeId>) -> String {
    match node {
        Some(node) => format!("{node}{NAME_SUFFIX}"),
        None => format!("any{NAME_SUFFIX}"),
    }
}

pub(super) fn expected_node(name: &ServerName<'_>) -> Option<NodeId> {
    let ServerName::DnsName(name) = name else { return None };
    name.as_ref().strip_suffix(NAME_SUFFIX)?.parse().ok()
}

/// TLS 1.3 only, hybrid post-quantum key exchange first.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![
        aws_lc_rs::kx_group::X25519MLKEM768,
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
    ];
    provider.cipher_suites.retain(|suite| suite.tls13().is_some());
    Arc::new(provider)
}
