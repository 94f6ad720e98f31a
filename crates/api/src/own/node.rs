//! The node itself: status, peers, policy, metrics.

use std::net::SocketAddr;

use axum::{Json, extract::State, http::header::CONTENT_TYPE, response::IntoResponse};
use gvpn_model::NodeId;
use gvpn_node::{NodeStatus, PathReport, PeerStatus, PolicyChanges, ProviderPolicy};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{ApiError, ApiJson, ApiPath, ApiResult, ApiState};

/// Addresses where a node may be found.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct PeerAddresses {
    node: NodeId,
    #[schema(value_type = Vec<String>)]
    addresses: Vec<SocketAddr>,
}

/// What the node is doing, in numbers.
#[utoipa::path(get, path = "/status", tag = "node", responses((status = 200, body = NodeStatus)))]
pub(crate) async fn status(State(state): State<ApiState>) -> Json<NodeStatus> {
    Json(state.node.status())
}

/// The peers that the node talks to, and over which paths.
#[utoipa::path(
    get, path = "/peers", tag = "node", responses((status = 200, body = Vec<PeerStatus>))
)]
pub(crate) async fn peers(State(state): State<ApiState>) -> Json<Vec<PeerStatus>> {
    Json(state.node.peers())
}

/// Tells the node where another may be found: `{node, addresses}`.
#[utoipa::path(
    post, path = "/peers", tag = "node", request_body = PeerAddresses, responses((status = 200))
)]
pub(crate) async fn add_peer(
    State(state): State<ApiState>,
    ApiJson(peer): ApiJson<PeerAddresses>,
) -> Json<()> {
    state.node.net().add_peer_addrs(peer.node, peer.addresses);
    Json(())
}

/// Measures the path to a node.
#[utoipa::path(
    get, path = "/ping/{node}", tag = "node", params(("node" = String, Path)),
    responses((status = 200, body = PathReport), (status = 504, description = "Unreachable"))
)]
pub(crate) async fn ping(
    State(state): State<ApiState>,
    ApiPath(node): ApiPath<String>,
) -> ApiResult<Json<PathReport>> {
    let node: NodeId = node.parse().map_err(ApiError::bad_request)?;
    Ok(Json(state.node.ping(node).await?))
}

/// Which agreements this provider accepts; `null` when it is none.
#[utoipa::path(
    get, path = "/provider", tag = "node", responses((status = 200, body = Option<ProviderPolicy>))
)]
pub(crate) async fn provider(State(state): State<ApiState>) -> Json<Option<ProviderPolicy>> {
    Json(state.node.agreements().policy())
}

/// Replaces the policy. What differs from the configuration is kept, and goes before it at the next
/// start too. `null` stops accepting until then.
#[utoipa::path(
    put, path = "/provider", tag = "node", request_body = Option<ProviderPolicy>,
    responses((status = 200))
)]
pub(crate) async fn set_provider(
    State(state): State<ApiState>,
    ApiJson(policy): ApiJson<Option<ProviderPolicy>>,
) -> ApiResult<Json<()>> {
    state.node.markets().set_policy(policy)?;
    Ok(Json(()))
}

/// Settings of the policy that were changed while the daemon ran: they go before the configuration's.
#[utoipa::path(
    get, path = "/provider/changes", tag = "node",
    responses((status = 200, body = std::collections::HashMap<String, serde_json::Value>))
)]
pub(crate) async fn provider_changes(
    State(state): State<ApiState>,
) -> ApiResult<Json<PolicyChanges>> {
    Ok(Json(state.node.agreements().policy_changes()?))
}

/// Forgets these changes: the policy is as configured, and is the answer.
#[utoipa::path(
    delete, path = "/provider/changes", tag = "node",
    responses((status = 200, body = ProviderPolicy), (status = 409, description = "No provider"))
)]
pub(crate) async fn reset_provider(
    State(state): State<ApiState>,
) -> ApiResult<Json<ProviderPolicy>> {
    Ok(Json(state.node.markets().reset_policy()?))
}

/// Everything that is counted, for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "node",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub(crate) async fn metrics(State(state): State<ApiState>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.node.metrics())
}
