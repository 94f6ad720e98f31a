//! The state of the transport.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ApiState;

/// How the node stands on Golem Net.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// The node's id.
    node_id: String,
    /// Where it listens, `ip:port`.
    listen_ip: Option<String>,
    /// Where others see it, `ip:port`.
    public_ip: Option<String>,
    /// Nodes it has a session with.
    sessions: usize,
}

/// How the node stands on Golem Net.
#[utoipa::path(get, path = "/status", tag = "net", responses((status = 200, body = Status)))]
pub(super) async fn status(State(state): State<ApiState>) -> Json<Status> {
    let status = state.node.status();
    Json(Status {
        node_id: status.node_id.to_string(),
        listen_ip: status.listen.first().map(ToString::to_string),
        public_ip: status.public.map(|address| address.to_string()),
        sessions: status.sessions,
    })
}
