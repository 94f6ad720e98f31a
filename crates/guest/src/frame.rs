//! Frames: two lengths (4 bytes each, big-endian), a JSON text, raw bytes.

use std::io;

use serde::{Serialize, de::DeserializeOwned};

/// Longest JSON text.
pub const MAX_TEXT: usize = 1 << 20;
/// Most raw bytes.
pub const MAX_DATA: usize = 64 << 10;

const HEADER: usize = 8;

/// A message and the bytes that go with it.
pub type Frame<T> = (T, Vec<u8>);

/// A frame's bytes.
///
/// # Errors
/// When it is too large.
pub fn encode(message: &impl Serialize, data: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, message)?;
    let text = bytes.len() - HEADER;
    if text > MAX_TEXT || data.len() > MAX_DATA {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too large"));
    }
    bytes[..4].copy_from_slice(&(text as u32).to_be_bytes());
    bytes[4..8].copy_from_slice(&(data.len() as u32).to_be_bytes());
    bytes.extend_from_slice(data);
    Ok(bytes)
}

/// Takes the first whole frame out of `bytes`, if it is there.
///
/// # Errors
/// When the bytes are no frame.
pub fn decode<T: DeserializeOwned>(bytes: &mut Vec<u8>) -> io::Result<Option<Frame<T>>> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let [a, b, c, d, e, f, g, h] = *header;
    let text = u32::from_be_bytes([a, b, c, d]) as usize;
    let data = u32::from_be_bytes([e, f, g, h]) as usize;
    if text > MAX_TEXT || data > MAX_DATA {
        let error = format!("a message of {text} and {data} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    let Some(frame) = bytes.get(HEADER..HEADER + text + data) else { return Ok(None) };
    let message = serde_json::from_slice(&frame[..text])?;
    let data = frame[text..].to_vec();
    bytes.drain(..HEADER + text + data.len());
    Ok(Some((message, data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_and_nonsense_does_not() {
        let mut bytes = encode(&"one", b"data").unwrap();
        bytes.extend(encode(&"two", b"").unwrap());
        let last = bytes.pop().unwrap();
        assert_eq!(decode::<String>(&mut bytes).unwrap(), Some(("one".into(), b"data".to_vec())));
        assert_eq!(decode::<String>(&mut bytes).unwrap(), None);
        bytes.push(last);
        assert_eq!(decode::<String>(&mut bytes).unwrap(), Some(("two".into(), vec![])));
        assert!(bytes.is_empty());
        decode::<String>(&mut vec![0xff; 8]).unwrap_err();
        decode::<String>(&mut b"\0\0\0\x03\0\0\0\0{]}".to_vec()).unwrap_err();
        encode(&"x", &vec![0; MAX_DATA + 1]).unwrap_err();
    }
}
