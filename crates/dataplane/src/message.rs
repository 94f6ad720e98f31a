//! First bytes on the wire and inside a session.

/// First byte of a datagram forwarded by a relay.
pub(crate) const TYPE_RELAYED: u8 = 0x05;
/// First byte of a relay's control message.
pub(crate) const TYPE_RELAY_CONTROL: u8 = 0x06;
/// First byte of a part of a QUIC datagram.
pub(crate) const TYPE_PART: u8 = 0x07;
/// Bytes before a relayed datagram.
pub(crate) const RELAY_HEADER: usize = 8;
/// The bit that QUIC sets in every first byte and nothing else here does.
pub(crate) const QUIC_BIT: u8 = 0x40;

/// Set in the first byte of an inner packet (beside the IP version): its transport checksum is the
/// sum over the pseudo-header, left to the receiving end to complete.
pub(crate) const PARTIAL: u8 = 0x80;

/// Whether a datagram that begins with this byte is for the QUIC lane.
pub(crate) fn is_for_quic(first: u8) -> bool {
    first & QUIC_BIT != 0 || first == TYPE_RELAY_CONTROL || first == TYPE_PART
}

pub(crate) fn write_relay_header(out: &mut [u8], session: u32) {
    out[..4].copy_from_slice(&[TYPE_RELAYED, 0, 0, 0]);
    out[4..8].copy_from_slice(&session.to_le_bytes());
}

/// The session and the datagram inside a relayed one.
pub(crate) fn relayed(datagram: &[u8]) -> Option<u32> {
    let header = datagram.first_chunk::<RELAY_HEADER>()?;
    let [kind, 0, 0, 0, a, b, c, d] = *header else { return None };
    (kind == TYPE_RELAYED).then(|| u32::from_le_bytes([a, b, c, d]))
}
