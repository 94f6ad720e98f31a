//! Who a certificate proves its holder to be.

use std::sync::Arc;

use gvpn_model::NodeId;
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

use super::{ExtensionError, config::expected_node, extension};

/// Keys and signatures that a certificate may have: both are fast, and neither is weak.
const SCHEMES: [SignatureScheme; 2] =
    [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519];
/// The longest certificate that is looked at.
const MAX_CERTIFICATE: usize = 4096;

/// Why a certificate proves nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not exactly one certificate.
    #[error("{0} certificates were presented: expected exactly one, self-signed")]
    Chain(usize),
    /// Not an X.509 version 3 certificate.
    #[error("not an X.509 version 3 certificate")]
    Malformed,
    /// Not valid at this time.
    #[error("the certificate is not valid now: check the clocks of both nodes")]
    Time,
    /// A critical extension of unknown meaning.
    #[error("the certificate has a critical extension of unknown meaning")]
    Critical,
    /// An algorithm that is not allowed.
    #[error("the certificate's algorithm is neither ECDSA P-256 with SHA-256 nor Ed25519")]
    Algorithm,
    /// The certificate's own signature is wrong.
    #[error("the certificate's self-signature is wrong")]
    SelfSignature,
    /// The extension that names the identity is missing, or there are several.
    #[error("the certificate has {0} public key extensions: expected exactly one")]
    Extension(usize),
    /// The extension proves nobody.
    #[error(transparent)]
    Identity(#[from] ExtensionError),
    /// Somebody, but not the node that was called.
    #[error("the peer proved to be {actual}, not {expected}")]
    OtherNode {
        /// Who was called.
        expected: NodeId,
        /// Who answered.
        actual: NodeId,
    },
}

/// Checks everything about `certificate` and says who its holder is.
///
/// # Errors
/// [`CertificateError`]: the first thing that is wrong.
pub fn verify_certificate(certificate: &[u8], now: UnixTime) -> Result<NodeId, CertificateError> {
    let cert = parse(certificate)?;
    check_time(&cert, now)?;
    let unknown = cert.extensions().iter().any(|e| e.critical && !is_identity(e));
    if unknown {
        return Err(CertificateError::Critical);
    }
    check_self_signature(certificate, &cert)?;
    let mut found = cert.extensions().iter().filter(|e| is_identity(e));
    let extension = match (found.next(), found.count()) {
        (Some(extension), 0) => extension,
        (None, _) => return Err(CertificateError::Extension(0)),
        (Some(_), more) => return Err(CertificateError::Extension(more + 1)),
    };
    Ok(extension::verify(extension.value, cert.public_key().raw)?)
}

/// The node at the other end of a completed handshake, from the certificates it presented.
///
/// # Errors
/// [`CertificateError`]; cannot happen for certificates that the handshake accepted.
pub fn peer_node_id(chain: &[CertificateDer<'_>]) -> Result<NodeId, CertificateError> {
    match chain {
        [certificate] => verify_certificate(certificate, UnixTime::now()),
        _ => Err(CertificateError::Chain(chain.len())),
    }
}

/// The verifier of both directions.
#[derive(Debug)]
pub(super) struct NodeVerifier {
    algorithms: WebPkiSupportedAlgorithms,
}

impl NodeVerifier {
    pub(super) fn new(algorithms: WebPkiSupportedAlgorithms) -> Arc<Self> {
        Arc::new(Self { algorithms })
    }

    fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<NodeId, CertificateError> {
        if !intermediates.is_empty() {
            return Err(CertificateError::Chain(intermediates.len() + 1));
        }
        verify_certificate(certificate, now)
    }

    fn verify_handshake(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let cert = parse(certificate).map_err(refuse)?;
        let spki = SubjectPublicKeyInfoDer::from(cert.public_key().raw);
        verify_tls13_signature_with_raw_key(message, &spki, signed, &self.algorithms)
    }
}

/// The part that servers' and clients' verifiers have in common: TLS 1.3 signatures, and none older.
macro_rules! handshake_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _certificate: &CertificateDer<'_>,
            _signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(old_tls())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.verify_handshake(message, certificate, signed)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            SCHEMES.to_vec()
        }
    };
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let actual = self.verify(certificate, intermediates, now).map_err(refuse)?;
        match expected_node(server_name) {
            Some(expected) if expected != actual => {
                Err(refuse(CertificateError::OtherNode { expected, actual }))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    handshake_signatures!();
}

impl ClientCertVerifier for NodeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.verify(certificate, intermediates, now).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    handshake_signatures!();
}

fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if certificate.len() > MAX_CERTIFICATE {
        return Err(CertificateError::Malformed);
    }
    match X509Certificate::from_der(certificate) {
        Ok(([], cert)) if cert.version() == X509Version::V3 => Ok(cert),
        _ => Err(CertificateError::Malformed),
    }
}

fn check_time(cert: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let validity = cert.validity();
    let now = i64::try_from(now.as_secs()).map_err(|_| CertificateError::Time)?;
    if (validity.not_before.timestamp()..=validity.not_after.timestamp()).contains(&now) {
        Ok(())
    } else {
        Err(CertificateError::Time)
    }
}

fn is_identity(extension: &x509_parser::extensions::X509Extension<'_>) -> bool {
    extension.oid.iter().is_some_and(|arcs| arcs.eq(extension::OID.iter().copied()))
}

fn check_self_signature(
    certificate: &[u8],
    cert: &X509Certificate<'_>,
) -> Result<(), CertificateError> {
    let algorithms =
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms;
    let spki = cert.public_key();
    let algorithm = SCHEMES
        .iter()
        .filter_map(|scheme| {
            let (_, candidates) = algorithms.mapping.iter().find(|(s, _)| s == scheme)?;
            candidates.first()
        })
        .find(|a| has_algorithm(spki.raw, &a.public_key_alg_id()))
        .ok_or(CertificateError::Algorithm)?;
    let tbs = cert.tbs_certificate.as_ref();
    let signature = &cert.signature_value.data;
    if cert.signature_algorithm != cert.tbs_certificate.signature
        || !certificate.ends_with(&tail(&algorithm.signature_alg_id(), signature))
    {
        return Err(CertificateError::Algorithm);
    }
    algorithm
        .verify_signature(&spki.subject_public_key.data, tbs, signature)
        .map_err(|_| CertificateError::SelfSignature)
}

/// The end of a certificate, which its signature does not cover and the parser reads leniently:
/// the algorithm once more, and the signature as a bit string.
fn tail(algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    let length = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    let mut out = vec![0x30, length(algorithm.len())];
    out.extend_from_slice(algorithm);
    out.extend_from_slice(&[0x03, length(signature.len() + 1), 0]);
    out.extend_from_slice(signature);
    out
}

/// Whether a `SubjectPublicKeyInfo` names exactly this algorithm: two short DER headers
/// (the outer sequence and the algorithm's), then the algorithm.
fn has_algorithm(spki: &[u8], algorithm: &[u8]) -> bool {
    matches!(spki, [0x30, _, 0x30, length, rest @ ..]
        if usize::from(*length) == algorithm.len() && rest.starts_with(algorithm))
}

fn refuse(error: CertificateError) -> rustls::Error {
    rustls::Error::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(
        Arc::new(error),
    )))
}

fn old_tls() -> rustls::Error {
    rustls::Error::PeerIncompatible(rustls::PeerIncompatible::Tls13RequiredForQuic)
}
