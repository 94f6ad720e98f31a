//! Certificates that must prove nobody.

use std::time::Duration;

use gvpn_identity::{
    Identity,
    tls::{CertificateError, ExtensionError, TransportKey, peer_node_id, verify_certificate},
};
use rcgen::{
    CertificateParams, CustomExtension, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SignatureAlgorithm, date_time_ymd,
};
use rustls_pki_types::UnixTime;

/// 1.3.6.1.4.1.53594.1.1
const OID: &[u64] = &[1, 3, 6, 1, 4, 1, 53594, 1, 1];

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn now() -> UnixTime {
    at(1_800_000_000)
}

/// The extension value out of a certificate that a node made: it binds *that* certificate's key.
fn extension_of(certificate: &[u8]) -> Vec<u8> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, cert) = X509Certificate::from_der(certificate).unwrap();
    cert.extensions().iter().find(|e| !e.critical).unwrap().value.to_vec()
}

fn make(
    algorithm: &'static SignatureAlgorithm,
    shape: impl FnOnce(&mut CertificateParams, &KeyPair),
) -> Vec<u8> {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    shape(&mut params, &key);
    params.self_signed(&key).unwrap().der().to_vec()
}

/// A valid extension for `key`, as the specification words it.
fn signed_key(secret: &[u8; 32], key: &KeyPair) -> Vec<u8> {
    use k256::ecdsa::{Signature, SigningKey, signature::Signer};
    let identity = SigningKey::from_bytes(secret.into()).unwrap();
    let message = [&b"libp2p-tls-handshake:"[..], &key.subject_public_key_info()].concat();
    let signature: Signature = identity.sign(&message);
    let signature = signature.to_der();
    let point = identity.verifying_key().to_encoded_point(true);
    let mut out = vec![0x30, (2 + 37 + 2 + signature.as_bytes().len()) as u8];
    out.extend([0x04, 37, 0x08, 0x02, 0x12, 33]);
    out.extend(point.as_bytes());
    out.extend([0x04, signature.as_bytes().len() as u8]);
    out.extend(signature.as_bytes());
    out
}

fn with_extension(algorithm: &'static SignatureAlgorithm, secret: &[u8; 32]) -> Vec<u8> {
    make(algorithm, |params, key| {
        let content = signed_key(secret, key);
        params.custom_extensions.push(CustomExtension::from_oid_content(OID, content));
    })
}

#[test]
fn the_published_certificate_is_accepted() {
    // Test vector 3 of the libp2p TLS specification.
    let certificate = hex::decode(concat!(
        "308201ba3082015fa0030201020204499602d2300a06082a8648ce3d040302302031123010060355040a13096c69",
        "627032702e696f310a300806035504051301313020170d3735303130313133303030305a180f3430393630313031",
        "3133303030305a302031123010060355040a13096c69627032702e696f310a300806035504051301313059301306",
        "072a8648ce3d020106082a8648ce3d030107034200040c901d423c831ca85e27c73c263ba132721bb9d7a84c4f03",
        "80b2a6756fd601331c8870234dec878504c174144fa4b14b66a651691606d8173e55bd37e381569ea38184308181",
        "307f060a2b0601040183a25a01010471306f0425080212210206dc6968726765b820f050263ececf7f71e4955892",
        "776c0970542efd689d2382044630440220145e15a991961f0d08cd15425bb95ec93f6ffa03c5a385eedc34ecf464",
        "c7a8ab022026b3109b8a3f40ef833169777eb2aa337cfb6282f188de0666d1bcec2a4690dd300a06082a8648ce3d",
        "0403020349003046022100e1a217eeef9ec9204b3f774a08b70849646b6a1e6b8b27f93dc00ed58545d9fe022100",
        "b00dafa549d0f03547878338c7b15e7502888f6d45db387e5ae6b5d46899cef0",
    ))
    .unwrap();
    let point =
        hex::decode("0206dc6968726765b820f050263ececf7f71e4955892776c0970542efd689d2382").unwrap();
    let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(&point).unwrap();
    assert_eq!(verify_certificate(&certificate, now()), Ok(gvpn_identity::node_id_of(&key)));
    assert_eq!(verify_certificate(&certificate, at(100)), Err(CertificateError::Time));
    assert_eq!(verify_certificate(&certificate, at(1 << 37)), Err(CertificateError::Time));
}

#[test]
fn either_transport_algorithm_proves_the_identity_and_weaker_ones_do_not() {
    let id = Identity::from_secret(&[3; 32]).unwrap().node_id();
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ED25519] {
        assert_eq!(verify_certificate(&with_extension(algorithm, &[3; 32]), now()), Ok(id));
    }
    let other = with_extension(&PKCS_ECDSA_P384_SHA384, &[3; 32]);
    assert_eq!(verify_certificate(&other, now()), Err(CertificateError::Algorithm));
}

#[test]
fn an_extension_taken_from_another_certificate_proves_nobody() {
    let victim = TransportKey::generate(&Identity::generate()).unwrap();
    let stolen = extension_of(victim.certificate());
    let forged = make(&PKCS_ECDSA_P256_SHA256, |params, _| {
        params.custom_extensions.push(CustomExtension::from_oid_content(OID, stolen));
    });
    let error = verify_certificate(&forged, now()).unwrap_err();
    assert_eq!(error, CertificateError::Identity(ExtensionError::Signature));
}

#[test]
fn malformed_extensions_prove_nobody() {
    let malformed = |content: Vec<u8>| {
        let certificate = make(&PKCS_ECDSA_P256_SHA256, |params, _| {
            params.custom_extensions.push(CustomExtension::from_oid_content(OID, content));
        });
        verify_certificate(&certificate, now()).unwrap_err()
    };
    let good = {
        let key = KeyPair::generate().unwrap();
        signed_key(&[3; 32], &key)
    };
    let bad = CertificateError::Identity(ExtensionError::Malformed);
    assert_eq!(malformed(vec![]), bad);
    assert_eq!(malformed(vec![0x30]), bad);
    assert_eq!(malformed(vec![0x30, 0]), bad);
    assert_eq!(malformed(vec![0x31, 0]), bad);
    for cut in 2..good.len() {
        let error = malformed(good[..cut].to_vec());
        assert!(matches!(error, CertificateError::Identity(_)), "{cut}: {error}");
    }
    assert_eq!(malformed([&good[..], &[0]].concat()), bad);
    let mut ed25519 = good.clone();
    ed25519[5] = 0x01;
    assert_eq!(malformed(ed25519), CertificateError::Identity(ExtensionError::KeyType));
    let mut no_point = good.clone();
    no_point[8] = 0x09;
    assert_eq!(malformed(no_point), CertificateError::Identity(ExtensionError::KeyType));
    let mut long = good;
    long[1] = 0x84;
    assert_eq!(malformed(long), CertificateError::Identity(ExtensionError::KeyType));
}

#[test]
fn structure_is_checked() {
    let plain = make(&PKCS_ECDSA_P256_SHA256, |_, _| ());
    assert_eq!(verify_certificate(&plain, now()), Err(CertificateError::Extension(0)));

    let critical = make(&PKCS_ECDSA_P256_SHA256, |params, key| {
        let content = signed_key(&[3; 32], key);
        params.custom_extensions.push(CustomExtension::from_oid_content(OID, content));
        let mut unknown = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 9], vec![5, 0]);
        unknown.set_criticality(true);
        params.custom_extensions.push(unknown);
    });
    assert_eq!(verify_certificate(&critical, now()), Err(CertificateError::Critical));

    let expired = make(&PKCS_ECDSA_P256_SHA256, |params, key| {
        let content = signed_key(&[3; 32], key);
        params.custom_extensions.push(CustomExtension::from_oid_content(OID, content));
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    assert_eq!(verify_certificate(&expired, now()), Err(CertificateError::Time));

    for rubbish in [&[][..], &[0x30], &[0x30, 0x80], &[0; 100], &[0xff; 5000]] {
        assert_eq!(verify_certificate(rubbish, now()), Err(CertificateError::Malformed));
    }
}

#[test]
fn a_certificate_signed_by_another_key_proves_nobody() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let content = signed_key(&[3; 32], &key);
    params.custom_extensions.push(CustomExtension::from_oid_content(OID, content));
    let other = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(&params, &other);
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let error = verify_certificate(certificate.der(), now()).unwrap_err();
    assert_eq!(error, CertificateError::SelfSignature);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let me = Identity::generate();
    let key = TransportKey::generate(&me).unwrap();
    assert_eq!(verify_certificate(key.certificate(), now()), Ok(me.node_id()));
    for byte in 0..key.certificate().len() {
        let mut bad = key.certificate().to_vec();
        bad[byte] ^= 1 << (byte % 8);
        let seen = verify_certificate(&bad, now());
        assert!(seen.is_err(), "byte {byte} of {}", hex::encode(&bad));
    }
    for cut in 0..key.certificate().len() {
        assert!(verify_certificate(&key.certificate()[..cut], now()).is_err(), "cut {cut}");
    }
}

#[test]
fn a_chain_proves_nobody() {
    let key = TransportKey::generate(&Identity::generate()).unwrap();
    let one = key.certificate().clone();
    assert!(peer_node_id(std::slice::from_ref(&one)).is_ok());
    assert_eq!(peer_node_id(&[one.clone(), one]), Err(CertificateError::Chain(2)));
    assert_eq!(peer_node_id(&[]), Err(CertificateError::Chain(0)));
}
