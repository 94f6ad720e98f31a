//! Frames of a service's WebSocket: FlexBuffers maps `{id, component, payload}` to the client,
//! `{id, payload}` or `{id, error}` back.

use flexbuffers::{Blob, Builder, BuilderOptions, FlexBufferType, Reader};

/// What a client said to a request.
#[derive(Debug, PartialEq)]
pub(super) struct Answer {
    pub(super) id: String,
    pub(super) result: Result<Payload, String>,
}

/// What we read of an answer's payload.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Payload {
    pub(super) file_size: Option<u64>,
    pub(super) content: Option<Vec<u8>>,
}

pub(super) fn metadata(id: &str) -> Vec<u8> {
    request(id, "GetMetadata", |map| map.push("payload", ()))
}

pub(super) fn get_chunk(id: &str, offset: u64, size: u64) -> Vec<u8> {
    request(id, "GetChunk", |map| {
        let mut payload = map.start_map("payload");
        payload.push("offset", offset);
        payload.push("size", size);
    })
}

pub(super) fn upload_chunk(id: &str, offset: u64, content: &[u8]) -> Vec<u8> {
    request(id, "UploadChunk", |map| {
        let mut payload = map.start_map("payload");
        let mut chunk = payload.start_map("chunk");
        chunk.push("content", Blob(content));
        chunk.push("offset", offset);
    })
}

pub(super) fn upload_finished(id: &str, hash: &str) -> Vec<u8> {
    request(id, "UploadFinished", |map| {
        let mut payload = map.start_map("payload");
        payload.push("hash", hash);
    })
}

/// Reads an answer; `None` for anything else.
pub(super) fn answer(frame: &[u8]) -> Option<Answer> {
    let map = Reader::get_root(frame).ok()?.get_map().ok()?;
    let id = text(&map.index("id").ok()?)?;
    if let Ok(error) = map.index("error")
        && error.flexbuffer_type() != FlexBufferType::Null
    {
        let message = text(&error).unwrap_or_else(|| "the client could not answer".to_owned());
        return Some(Answer { id, result: Err(message) });
    }
    let mut payload = Payload::default();
    if let Ok(read) = map.index("payload").and_then(|p| p.get_map()) {
        payload.file_size = read.index("fileSize").ok().and_then(|n| number(&n));
        payload.content = read.index("content").ok().and_then(|c| bytes(&c));
    }
    Some(Answer { id, result: Ok(payload) })
}

fn request(
    id: &str,
    component: &str,
    payload: impl FnOnce(&mut flexbuffers::MapBuilder<'_>),
) -> Vec<u8> {
    let mut builder = Builder::new(BuilderOptions::SHARE_NONE);
    let mut map = builder.start_map();
    map.push("id", id);
    map.push("component", component);
    payload(&mut map);
    map.end_map();
    builder.take_buffer()
}

fn text(value: &Reader<&[u8]>) -> Option<String> {
    value.get_str().map(str::to_owned).ok()
}

fn number(value: &Reader<&[u8]>) -> Option<u64> {
    let float = || value.get_f64().ok().filter(|f| *f >= 0.0 && f.fract() == 0.0).map(|f| f as u64);
    let signed = || value.get_i64().ok().and_then(|i| u64::try_from(i).ok());
    value.get_u64().ok().or_else(signed).or_else(float)
}

/// A blob, or a vector of small numbers as some encoders write it.
fn bytes(value: &Reader<&[u8]>) -> Option<Vec<u8>> {
    if let Ok(blob) = value.get_blob() {
        return Some(blob.0.to_vec());
    }
    let vector = value.get_vector().ok()?;
    vector.iter().map(|n| number(&n).and_then(|n| u8::try_from(n).ok())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(fill: impl FnOnce(&mut flexbuffers::MapBuilder<'_>)) -> Vec<u8> {
        let mut builder = Builder::default();
        let mut map = builder.start_map();
        fill(&mut map);
        map.end_map();
        builder.take_buffer()
    }

    #[test]
    fn answers_are_read() {
        let size = reply(|map| {
            map.push("id", "1");
            map.start_map("payload").push("fileSize", 70_000_u32);
        });
        let payload = Payload { file_size: Some(70_000), content: None };
        assert_eq!(answer(&size), Some(Answer { id: "1".into(), result: Ok(payload) }));
        let chunk = reply(|map| {
            map.push("id", "2");
            map.start_map("payload").push("content", Blob(&[1_u8, 2, 3][..]));
        });
        let payload = Payload { file_size: None, content: Some(vec![1, 2, 3]) };
        assert_eq!(answer(&chunk), Some(Answer { id: "2".into(), result: Ok(payload) }));
        let none = reply(|map| {
            map.push("id", "3");
            map.push("payload", ());
        });
        assert_eq!(answer(&none), Some(Answer { id: "3".into(), result: Ok(Payload::default()) }));
        let error = reply(|map| {
            map.push("id", "4");
            map.push("error", "no such file");
        });
        assert_eq!(
            answer(&error),
            Some(Answer { id: "4".into(), result: Err("no such file".into()) })
        );
    }

    #[test]
    fn requests_say_what_clients_read() {
        let frame = upload_chunk("9", 70_000, &[5; 300]);
        let map = Reader::get_root(&frame[..]).unwrap().as_map();
        assert_eq!((map.idx("id").as_str(), map.idx("component").as_str()), ("9", "UploadChunk"));
        let chunk = map.idx("payload").as_map().idx("chunk").as_map();
        assert_eq!(chunk.idx("offset").as_u64(), 70_000);
        assert_eq!(chunk.idx("content").get_blob().unwrap().0, [5; 300]);
    }

    #[test]
    fn rubbish_is_no_answer() {
        assert_eq!(answer(&[]), None);
        let mut seed = 1_u32;
        for length in 0..2000_usize {
            let frame: Vec<u8> = (0..length % 64)
                .map(|_| {
                    seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (seed >> 24) as u8
                })
                .collect();
            let _ = answer(&frame);
        }
    }
}
