//! Server-sent events of a batch.

use http_body_util::BodyExt;
use hyper::body::Incoming;

use gvpn_model::{BatchEvent, BatchEventKind};

use crate::{Batch, Error};

/// The longest line of an event stream.
const LINE_MAX: usize = 16 << 20;

/// The events of a batch.
#[derive(Debug)]
pub struct BatchEvents {
    batch: Batch,
    ended: bool,
    body: Incoming,
    text: Vec<u8>,
    data: String,
}

impl BatchEvents {
    pub(crate) async fn open(batch: Batch) -> Result<Self, Error> {
        let body = batch.open_events().await?.into_body();
        Ok(Self { batch, ended: false, body, text: Vec::new(), data: String::new() })
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// [`Error::Answer`] when the stream breaks or makes no sense.
    pub async fn next(&mut self) -> Result<Option<BatchEvent>, Error> {
        if self.ended {
            return Ok(None);
        }
        let event = self.receive().await?;
        // The daemon keeps the stream open after the last event; a failure ends a batch as well.
        if let Some(BatchEvent {
            index, kind: BatchEventKind::Finished { return_code, .. }, ..
        }) = &event
        {
            self.ended = *return_code != 0 || self.batch.ends_with(*index).await?;
        }
        Ok(event)
    }

    async fn receive(&mut self) -> Result<Option<BatchEvent>, Error> {
        loop {
            while let Some(end) = self.text.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                if let Some(event) = self.line(String::from_utf8_lossy(&line).trim_end())? {
                    return Ok(Some(event));
                }
            }
            if self.text.len() > LINE_MAX {
                return Err(Error::answer("the event stream", "a line is too long"));
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(Error::answer("the event stream", e)),
                Some(Ok(frame)) => self.text.extend(frame.data_ref().into_iter().flatten()),
            }
        }
    }

    /// Takes one line; an empty one ends an event.
    fn line(&mut self, line: &str) -> Result<Option<BatchEvent>, Error> {
        if let Some(data) = line.strip_prefix("data:") {
            if !self.data.is_empty() {
                self.data.push('\n');
            }
            self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            return Ok(None);
        }
        if !line.is_empty() || self.data.is_empty() {
            return Ok(None);
        }
        let data = std::mem::take(&mut self.data);
        serde_json::from_str(&data)
            .map(Some)
            .map_err(|e| Error::answer("the event stream", format!("{e} in `{data}`")))
    }
}
