//! The Net API, as Golem's clients use it.

mod gate;
mod networks;
mod status;

use axum::{
    Router,
    routing::{any, delete, get},
};
use gvpn_model::NetworkId;

use crate::{ApiError, ApiResult, ApiState};

pub(crate) use networks::NetDoc;
pub(crate) use status::StatusDoc;

/// Networks, addresses, nodes and the gate.
pub(crate) fn router() -> Router<ApiState> {
    Router::new()
        .route("/net", get(networks::list).post(networks::create))
        .route("/net/{id}", get(networks::show).delete(networks::remove))
        .route("/net/{id}/addresses", get(networks::addresses).post(networks::add_address))
        .route("/net/{id}/nodes", get(networks::nodes).post(networks::add_node))
        // One published client removes with POST.
        .route("/net/{id}/nodes/{node}", delete(networks::remove_node).post(networks::remove_node))
        .route("/net/{id}/tcp", get(gate::connections))
        .route("/net/{id}/tcp/{ip}/{port}", any(gate::tcp))
        .route("/net/{id}/raw/from/{src}/to/{dst}", any(gate::raw))
}

/// The state of the transport.
pub(crate) fn status_router() -> Router<ApiState> {
    Router::new().route("/status", get(status::status))
}

/// A network id in a path: a text that is none names nothing.
pub(crate) fn network_id(text: &str) -> ApiResult<NetworkId> {
    text.parse().map_err(|_| ApiError::not_found(format!("there is no network `{text}`")))
}
