//! A node's transport key and its certificate.

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PublicKeyData};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::{TlsError, extension};
use crate::{Identity, NodeId};

/// A transport key (ECDSA P-256), made for this run of the node, and its certificate.
pub struct TransportKey {
    node_id: NodeId,
    certificate: CertificateDer<'static>,
    pkcs8: Zeroizing<Vec<u8>>,
}

impl TransportKey {
    /// A fresh transport key, bound to `identity`.
    ///
    /// # Errors
    /// [`TlsError`] when the operating system has no randomness to give.
    pub fn generate(identity: &Identity) -> Result<Self, TlsError> {
        let key = KeyPair::generate().map_err(|e| TlsError::Key(e.to_string()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let content = extension::encode(identity, &key.subject_public_key_info());
        params.custom_extensions = vec![CustomExtension::from_oid_content(extension::OID, content)];
        let certificate = params.self_signed(&key).map_err(|e| TlsError::Key(e.to_string()))?;
        Ok(Self {
            node_id: identity.node_id(),
            certificate: certificate.into(),
            pkcs8: Zeroizing::new(key.serialize_der()),
        })
    }

    /// The node that the certificate proves.
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
    }
}

impl std::fmt::Debug for TransportKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransportKey").field("node_id", &self.node_id).finish_non_exhaustive()
    }
}
