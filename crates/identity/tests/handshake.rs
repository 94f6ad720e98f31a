//! Two TLS state machines in memory: who gets through, and who does not.

use std::sync::Arc;

use gvpn_identity::{
    Identity, NodeId,
    tls::{self, TransportKey, client_config, peer_node_id, server_config, server_name},
};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConfig, ServerConnection};

/// Hands each side what the other wrote until both are silent.
fn shake(
    client: &mut ClientConnection,
    server: &mut ServerConnection,
) -> Result<(), rustls::Error> {
    loop {
        let mut wire = vec![];
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let sent = wire.len();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = vec![];
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let received = wire.len();
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
        if sent + received == 0 {
            return Ok(());
        }
    }
}

fn connect(
    client: ClientConfig,
    server: ServerConfig,
    to: Option<NodeId>,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = server_name(to).try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    shake(&mut client, &mut server)?;
    Ok((client, server))
}

struct Node {
    identity: Identity,
    key: TransportKey,
}

impl Node {
    fn new() -> Self {
        let identity = Identity::generate();
        let key = TransportKey::generate(&identity).unwrap();
        Self { identity, key }
    }

    fn id(&self) -> NodeId {
        self.identity.node_id()
    }
}

#[test]
fn both_ends_learn_who_the_other_is_with_a_post_quantum_key_exchange() {
    let (a, b) = (Node::new(), Node::new());
    let configs = (client_config(&a.key).unwrap(), server_config(&b.key).unwrap());
    let (client, server) = connect(configs.0, configs.1, Some(b.id())).unwrap();
    assert_eq!(peer_node_id(client.peer_certificates().unwrap()).unwrap(), b.id());
    assert_eq!(peer_node_id(server.peer_certificates().unwrap()).unwrap(), a.id());
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.alpn_protocol(), Some(tls::ALPN));
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(server.server_name(), None, "who is called stays private");
    let keys = |c: &dyn Fn(&mut [u8; 64])| {
        let mut out = [0; 64];
        c(&mut out);
        out
    };
    let label = b"EXPORTER-gvpn-data";
    let at_client = keys(&|o| {
        client.export_keying_material(o, label, Some(&[7; 16])).unwrap();
    });
    let at_server = keys(&|o| {
        server.export_keying_material(o, label, Some(&[7; 16])).unwrap();
    });
    assert_eq!(at_client, at_server);
    let other_network = keys(&|o| {
        client.export_keying_material(o, label, Some(&[8; 16])).unwrap();
    });
    assert_ne!(at_client, other_network);
}

#[test]
fn an_impostor_is_refused_before_the_caller_shows_itself() {
    let (a, b, mallory) = (Node::new(), Node::new(), Node::new());
    let client = client_config(&a.key).unwrap();
    let name = server_name(Some(b.id())).try_into().unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let server = server_config(&mallory.key).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let error = shake(&mut client, &mut server).unwrap_err().to_string();
    assert!(error.contains(&mallory.id().to_string()), "{error}");
    assert!(server.peer_certificates().is_none());
}

#[test]
fn whoever_answers_is_good_enough_when_nobody_is_named() {
    let (a, b) = (Node::new(), Node::new());
    let configs = (client_config(&a.key).unwrap(), server_config(&b.key).unwrap());
    let (client, _) = connect(configs.0, configs.1, None).unwrap();
    assert_eq!(peer_node_id(client.peer_certificates().unwrap()).unwrap(), b.id());
}

#[test]
fn a_caller_without_a_certificate_is_refused() {
    let b = Node::new();
    let mut anonymous = ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    // Trusts whatever the server shows, by borrowing the verifier of a proper node.
    let proper = client_config(&Node::new().key).unwrap();
    anonymous.alpn_protocols = proper.alpn_protocols.clone();
    let mut lenient = proper;
    lenient.client_auth_cert_resolver = anonymous.client_auth_cert_resolver.clone();
    let error = connect(lenient, server_config(&b.key).unwrap(), Some(b.id())).unwrap_err();
    assert!(matches!(error, rustls::Error::NoCertificatesPresented), "{error}");
}

#[test]
fn another_protocol_is_refused() {
    let (a, b) = (Node::new(), Node::new());
    let mut client = client_config(&a.key).unwrap();
    client.alpn_protocols = vec![b"h3".to_vec()];
    let error = connect(client, server_config(&b.key).unwrap(), Some(b.id())).unwrap_err();
    assert!(matches!(error, rustls::Error::NoApplicationProtocol), "{error}");
}

#[test]
fn a_stolen_certificate_is_of_no_use_without_its_key() {
    let (a, b, thief) = (Node::new(), Node::new(), Node::new());
    // The thief shows A's certificate and signs with its own transport key.
    let mut client = client_config(&thief.key).unwrap();
    client.client_auth_cert_resolver = Arc::new(Stolen {
        certificate: a.key.certificate().clone(),
        own: client.client_auth_cert_resolver.clone(),
    });
    let error = connect(client, server_config(&b.key).unwrap(), Some(b.id())).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("BadSignature"), "{message}");
}

#[derive(Debug)]
struct Stolen {
    certificate: rustls::pki_types::CertificateDer<'static>,
    own: Arc<dyn rustls::client::ResolvesClientCert>,
}

impl rustls::client::ResolvesClientCert for Stolen {
    fn resolve(
        &self,
        hints: &[&[u8]],
        schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        let own = self.own.resolve(hints, schemes)?;
        let chain = vec![self.certificate.clone()];
        Some(Arc::new(rustls::sign::CertifiedKey::new(chain, own.key.clone())))
    }

    fn has_certs(&self) -> bool {
        true
    }
}
