//! What a node needs to be on Golem Net.

use std::{net::SocketAddr, time::Duration};

use gvpn_identity::Identity;

use crate::{
    link::AMPLIFICATION,
    relay_stream::{PORT, Proxy},
};

/// How a node is present on Golem Net.
#[derive(Debug, Clone)]
pub struct NetConfig {
    /// Who the node is.
    pub identity: Identity,
    /// UDP addresses to listen on: at most one for each address family. Port 0 takes any port.
    pub listen: Vec<SocketAddr>,
    /// Relays: their registry finds peers, and they forward where there is no direct path.
    /// Without one, only addresses given by [`add_peer_addrs`](crate::Net::add_peer_addrs) are known.
    pub relays: Vec<SocketAddr>,
    /// The TCP port of the relays' TLS stream, which is used where UDP reaches none of them; `None`
    /// never uses it.
    pub stream_port: Option<u16>,
    /// The HTTP proxy that such a stream goes through.
    pub proxy: Option<Proxy>,
    /// Addresses to announce instead of those of the interfaces, such as that of a forwarded port.
    pub advertise: Option<Vec<SocketAddr>>,
    /// Whoever calls and has not proven who it is is sent at most this many times what it sent.
    pub amplification: usize,
    /// How long after ports of a symmetric NAT were guessed in vain they are guessed again; doubles with
    /// each time.
    pub guess_again: Duration,
    /// Whether to ask the router for a port that leads here (PCP, NAT-PMP, UPnP).
    pub port_mapping: bool,
    /// Data-plane threads; 0 takes as many as there are cores, at most 4.
    pub workers: usize,
    /// Whether lanes may be sealed by AES-256-GCM; else, or where the peer may not, they are by
    /// ChaCha20-Poly1305.
    pub aes: bool,
}

impl NetConfig {
    /// Listens on any port of all interfaces, knows no relay, asks for no port, seals by AES where
    /// this processor has instructions for it.
    pub fn new(identity: Identity) -> Self {
        let listen = vec![([0, 0, 0, 0], 0).into()];
        Self {
            identity,
            listen,
            relays: vec![],
            stream_port: Some(PORT),
            proxy: None,
            advertise: None,
            amplification: AMPLIFICATION,
            guess_again: gvpn_path::Timing::default().guess_again,
            port_mapping: false,
            workers: 0,
            aes: gvpn_session::has_aes_instructions(),
        }
    }
}
