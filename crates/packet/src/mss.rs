//! Lowering the maximum segment size that a TCP SYN announces.

use crate::{
    Packet, Sum, Transport,
    segment::{put, word},
};

const SYN: u8 = 0x02;

/// Lowers the MSS option of a TCP SYN so that packets of at most `max_len` bytes come back.
/// `partial` says that the checksum covers the pseudo-header only. Other packets are left alone;
/// returns whether anything changed.
#[inline]
pub fn clamp_mss(bytes: &mut [u8], outline: &Packet, max_len: usize, partial: bool) -> bool {
    if outline.transport != Transport::Tcp || bytes[outline.transport_at + 13] & SYN == 0 {
        return false;
    }
    let Some(at) = option(bytes, outline) else { return false };
    let max = max_len.saturating_sub(outline.transport_at + 20).min(usize::from(u16::MAX)) as u16;
    let announced = word(bytes, at);
    if announced <= max {
        return false;
    }
    put(bytes, at, max);
    if !partial {
        let field = outline.transport_at + 16;
        // An option at an odd offset contributes with its bytes swapped.
        let (old, new) = match at % 2 == outline.transport_at % 2 {
            true => (announced, max),
            false => (announced.swap_bytes(), max.swap_bytes()),
        };
        let sum = Sum::default().word(!word(bytes, field)).without(old).word(new).checksum();
        put(bytes, field, sum);
    }
    true
}

/// Where the value of the MSS option is.
fn option(bytes: &[u8], outline: &Packet) -> Option<usize> {
    let mut at = outline.transport_at + 20;
    while at < outline.payload_at {
        match bytes[at] {
            0 => return None,
            1 => at += 1,
            2 if bytes[at + 1..outline.payload_at].first() == Some(&4)
                && at + 4 <= outline.payload_at =>
            {
                return Some(at + 2);
            }
            _ => at += usize::from(*bytes[at + 1..outline.payload_at].first()?).max(2),
        }
    }
    None
}
