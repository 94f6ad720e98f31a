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

use axum::{
    Router,
    routing::{delete, get, post},
};

use crate::ApiState;

pub(crate) use networks::OwnDoc;

/// Everything under `/gvpn/v1`.
pub(crate) fn router() -> Router<ApiState> {
    Router::new()
        .route("/status", get(node::status))
        .route("/peers", get(node::peers).post(node::add_peer))
        .route("/ping/{node}", get(node::ping))
        .route("/provider", get(node::provider).put(node::set_provider))
        .route("/net", get(networks::list).post(networks::create))
        .route("/net/{id}", get(networks::show).patch(networks::edit).delete(networks::remove))
        .route("/net/{id}/roster", get(networks::roster))
        .route("/net/{id}/progress", get(networks::progress))
        .route("/net/{id}/namespace", get(networks::namespace))
        .route(
            "/net/{id}/prefixes",
            post(networks::add_prefix).patch(networks::set_gateway).delete(networks::remove_prefix),
        )
        .route("/net/{id}/rules", get(policy::rules).post(policy::add_rule))
        .route("/net/{id}/rules/{rule}", delete(policy::remove_rule))
        .route("/net/{id}/capture", get(capture::capture))
        .route("/net/{id}/trace", post(policy::trace))
        .route("/net/{id}/members", get(members::list).post(members::add))
        .route(
            "/net/{id}/members/{member}",
            get(members::show).patch(members::edit).delete(members::remove),
        )
        .route("/agreements", get(agreements::list).post(agreements::propose))
        .route("/agreements/{id}", get(agreements::show))
        .route("/agreements/{id}/terminate", post(agreements::terminate))
        .route("/activities", get(activities::list).post(activities::create))
        .route("/activities/{id}", get(activities::show).delete(activities::destroy))
        .route("/activities/{id}/networks", post(activities::join))
        .route("/activities/{id}/networks/{network}", delete(activities::leave))
        .route("/files", post(files::publish))
        .route("/files/receive", post(files::receive))
        .route("/files/close", post(files::close))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{name}", delete(keys::remove))
}

/// `/metrics`.
pub(crate) fn metrics_router() -> Router<ApiState> {
    Router::new().route("/metrics", get(node::metrics))
}
