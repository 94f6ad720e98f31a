//! The event stream of a batch.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use gvpn_model::{BatchEvent, BatchEventKind};
use gvpn_node::EventStream;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

/// How often a silent stream says that it is there.
const PING_EVERY: Duration = Duration::from_secs(15);

/// Server-sent events until the client closes: clients take an end from our side for a fault, so
/// after the last event only pings follow.
pub(super) fn stream(mut events: EventStream) -> Response {
    let body = async_stream::stream! {
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.tick().await;
        let mut open = true;
        loop {
            let chunk = tokio::select! {
                event = events.recv(), if open => match event {
                    Some(event) => text(&event),
                    None => {
                        open = false;
                        continue;
                    }
                },
                _ = ping.tick() => Bytes::from_static(b":ping\n\n"),
            };
            yield Ok::<_, Infallible>(chunk);
        }
    };
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(body)).into_response()
}

fn text(event: &BatchEvent) -> Bytes {
    Bytes::from(format!("event: runtime\ndata: {}\n\n", data(event)))
}

/// The event as clients read it: a time stamp without zone, of at most microseconds.
fn data(event: &BatchEvent) -> Value {
    let kind = match &event.kind {
        BatchEventKind::Started { command } => json!({ "started": { "command": command } }),
        BatchEventKind::Stdout(text) => json!({ "stdout": text }),
        BatchEventKind::Stderr(text) => json!({ "stderr": text }),
        BatchEventKind::Finished { return_code, message } => {
            json!({ "finished": { "return_code": return_code, "message": message } })
        }
    };
    json!({
        "batch_id": event.batch_id.to_string(),
        "index": event.index,
        "timestamp": event.timestamp.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),
        "kind": kind,
    })
}
