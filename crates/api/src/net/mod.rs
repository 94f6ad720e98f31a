//! The Net API, as Golem's clients use it.

mod gate;
mod networks;
mod status;

use gvpn_model::NetworkId;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{ApiError, ApiResult, ApiState};

/// Networks, addresses, nodes and the gate.
pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(networks::list, networks::create))
        .routes(routes!(networks::show, networks::remove))
        .routes(routes!(networks::addresses, networks::add_address))
        .routes(routes!(networks::nodes, networks::add_node))
        // One published client removes with POST.
        .routes(routes!(networks::remove_node))
        .routes(routes!(gate::connections))
        .routes(routes!(gate::tcp))
        .routes(routes!(gate::raw))
}

/// The state of the transport.
pub(crate) fn status_router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(status::status))
}

/// A network id in a path: a text that is none names nothing.
pub(crate) fn network_id(text: &str) -> ApiResult<NetworkId> {
    text.parse().map_err(|_| ApiError::not_found(format!("there is no network `{text}`")))
}
