//! Our own endpoints, beside Golem's: what the CLI and the SDK use.

mod activities;
mod agreements;
mod capture;
mod files;
mod keys;
mod members;
mod networks;
mod node;
mod policy;
mod wait;

use utoipa_axum::{router::OpenApiRouter, routes};

use crate::ApiState;

/// Everything under `/gvpn/v1`.
pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(node::status))
        .routes(routes!(node::peers, node::add_peer))
        .routes(routes!(node::ping))
        .routes(routes!(node::provider, node::set_provider))
        .routes(routes!(node::provider_changes, node::reset_provider))
        .routes(routes!(networks::list, networks::create))
        .routes(routes!(networks::show, networks::edit, networks::remove))
        .routes(routes!(networks::roster))
        .routes(routes!(networks::progress))
        .routes(routes!(networks::namespace))
        .routes(routes!(networks::add_prefix, networks::set_gateway, networks::remove_prefix))
        .routes(routes!(policy::rules, policy::add_rule))
        .routes(routes!(policy::remove_rule))
        .routes(routes!(capture::capture))
        .routes(routes!(policy::trace))
        .routes(routes!(members::list, members::add))
        .routes(routes!(members::show, members::edit, members::remove))
        .routes(routes!(agreements::list, agreements::propose))
        .routes(routes!(agreements::show))
        .routes(routes!(agreements::terminate))
        .routes(routes!(activities::list, activities::create))
        .routes(routes!(activities::show, activities::destroy))
        .routes(routes!(activities::join))
        .routes(routes!(activities::leave))
        .routes(routes!(files::publish))
        .routes(routes!(files::receive))
        .routes(routes!(files::close))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::remove))
}

/// `/metrics`.
pub(crate) fn metrics_router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(node::metrics))
}
