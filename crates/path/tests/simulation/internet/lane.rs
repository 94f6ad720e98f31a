//! Lanes with real keys: what two nodes agree on in a handshake.

use gvpn_session::{
    DataHeader, HEADER_LEN, LaneKeys, OVERHEAD, Opener, ReplayWindow, Sealer, Suite, write_header,
};

use super::random::Random;

/// A lane of one end.
pub(crate) struct Lane {
    /// The handshake that made it.
    pub(crate) call: u64,
    /// The peer writes this into what it seals.
    pub(crate) local: u32,
    remote: u32,
    sealer: Sealer,
    opener: Opener,
    window: ReplayWindow,
}

impl Lane {
    /// The lane of a handshake; `client` called.
    pub(crate) fn new(call: u64, local: u32, remote: u32, client: bool) -> Self {
        // What TLS exports is the same at both ends and nowhere else.
        let (caller, called) = if client { (local, remote) } else { (remote, local) };
        let mut random = Random::new(call ^ u64::from(caller) << 32 ^ u64::from(called));
        let mut output = [0; 64];
        output.chunks_mut(8).for_each(|c| c.copy_from_slice(&random.next().to_le_bytes()));
        let keys = LaneKeys::from_exporter(Suite::Aes256Gcm, &output, client);
        let (sealer, opener) = (keys.sealer(), keys.opener());
        Self { call, local, remote, sealer, opener, window: ReplayWindow::default() }
    }

    pub(crate) fn seal(&self, text: &[u8]) -> Vec<u8> {
        let counter = self.sealer.reserve(1).expect("a lane lasts longer than a simulation");
        let mut datagram = vec![0; text.len() + OVERHEAD];
        write_header(datagram.first_chunk_mut().unwrap(), self.remote, counter);
        datagram[HEADER_LEN..][..text.len()].copy_from_slice(text);
        self.sealer.seal_in_place(counter, &mut datagram);
        datagram
    }

    /// The plaintext, if the datagram is authentic and new.
    pub(crate) fn open(&mut self, mut datagram: Vec<u8>) -> Option<Vec<u8>> {
        let header = DataHeader::parse(&datagram)?;
        self.window.check(header.counter).ok()?;
        let text = self.opener.open_in_place(header.counter, &mut datagram).ok()?.to_vec();
        self.window.accept(header.counter).ok()?;
        Some(text)
    }
}
