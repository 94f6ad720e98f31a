//! GSB API: a client serves files through a WebSocket of its own.
//!
//! `POST /services` names the service (`/public/gftp/NAME`); the client then connects a WebSocket to
//! `/services/ID` with the subprotocol `gsb+flexbuffers` and answers requests. What it serves is the
//! file `gftp://NODE/NAME` of this node.

mod bridge;
mod frames;

use std::{collections::HashMap, sync::Arc};

use axum::{extract::State, http::StatusCode, response::Response};
use gvpn_node::FileCall;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, mpsc};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::answer::null;
use crate::{ApiError, ApiJson, ApiPath, ApiResult, ApiState, extract::ApiUpgrade};

/// What services of files are called before their name.
const FILES: &str = "/public/gftp/";
const SUBPROTOCOL: &str = "gsb+flexbuffers";
/// Most services at a time.
const MAX_SERVICES: usize = 4096;
/// Requests of other nodes that wait for the client.
const WAITING: usize = 16;
/// The largest frame of a client.
const MAX_FRAME: usize = 16 << 20;

/// The services that clients have bound.
#[derive(Default)]
pub(crate) struct Services {
    all: parking_lot::Mutex<HashMap<String, Service>>,
}

#[derive(Clone)]
struct Service {
    name: String,
    calls: Arc<Mutex<mpsc::Receiver<FileCall>>>,
}

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(bind)).routes(routes!(connect, unbind))
}

#[derive(Debug, Deserialize, ToSchema)]
struct Bind {
    listen: Listen,
}

/// A service that is bound.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Bound {
    services_id: String,
    listen: Listening,
}

#[derive(Debug, Serialize, ToSchema)]
struct Listening {
    #[serde(flatten)]
    listen: Listen,
    links: Links,
}

#[derive(Debug, Serialize, ToSchema)]
struct Links {
    /// Path of the WebSocket.
    messages: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Listen {
    on: String,
    #[serde(default)]
    components: Vec<String>,
}

/// Binds a service of files: `/public/gftp/NAME`.
#[utoipa::path(
    post, path = "/services", tag = "gsb", request_body = Bind,
    responses((status = 201, body = Bound), (status = 400), (status = 429))
)]
async fn bind(
    State(state): State<ApiState>,
    ApiJson(Bind { listen }): ApiJson<Bind>,
) -> ApiResult<Response> {
    let name = listen.on.strip_prefix(FILES).ok_or_else(|| {
        ApiError::bad_request(format!(
            "`{}`: only file services ({FILES}NAME) are served",
            listen.on
        ))
    })?;
    let mut all = state.golem.services.all.lock();
    if all.len() >= MAX_SERVICES {
        let message = format!("there are {MAX_SERVICES} services already: delete some");
        return Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, message));
    }
    let (sender, calls) = mpsc::channel(WAITING);
    state.node.files().attach(name, sender)?;
    let id = gvpn_model::ActivityId::random().to_string();
    let calls = Arc::new(Mutex::new(calls));
    all.insert(id.clone(), Service { name: name.to_owned(), calls });
    let messages = format!("/gsb-api/v1/services/{id}");
    let listen = Listening { listen, links: Links { messages } };
    Ok(super::answer::created(Bound { services_id: id, listen }))
}

/// Ends a service.
#[utoipa::path(
    delete, path = "/services/{id}", tag = "gsb", params(("id" = String, Path)),
    responses((status = 200), (status = 404))
)]
async fn unbind(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Response> {
    let removed = state.golem.services.all.lock().remove(&id);
    let service = removed.ok_or_else(|| unknown(&id))?;
    // Ends the channel, and with it the WebSocket.
    state.node.files().detach(&service.name);
    Ok(null())
}

/// The WebSocket on which the client serves, subprotocol `gsb+flexbuffers`.
#[utoipa::path(
    get, path = "/services/{id}", tag = "gsb", params(("id" = String, Path)),
    responses((status = 101, description = "Connected"), (status = 404), (status = 409))
)]
async fn connect(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    upgrade: Result<ApiUpgrade, ApiError>,
) -> ApiResult<Response> {
    let service = state.golem.services.all.lock().get(&id).cloned();
    let service = service.ok_or_else(|| unknown(&id))?;
    let upgrade = upgrade?.0;
    let calls = service.calls.try_lock_owned().map_err(|_| {
        ApiError::new(StatusCode::CONFLICT, format!("service {id} has a WebSocket already"))
    })?;
    Ok(upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MAX_FRAME)
        .on_upgrade(move |socket| bridge::run(socket, calls)))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no service {id}"))
}
