//! Networks, with everything that Golem's Net API has no words for.

use std::net::IpAddr;

use axum::{Json, extract::State};
use gvpn_model::addressing;
use gvpn_node::{NetworkInfo, NetworkSpec, Progress};
use gvpn_roster::{Roster, SettingsEdit};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::wait::Wait;
use crate::{ApiError, ApiJson, ApiPath, ApiQuery, ApiResult, ApiState, net::network_id};

/// A further prefix: in CIDR form, or a fresh unique local one.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewPrefix {
    prefix: Option<String>,
    #[serde(default)]
    generate: bool,
    #[schema(value_type = Option<String>)]
    gateway: Option<IpAddr>,
}

/// Another gateway of a prefix.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewGateway {
    prefix: String,
    #[schema(value_type = String)]
    gateway: IpAddr,
}

/// Which prefix.
#[derive(Debug, Deserialize)]
pub(crate) struct WhichPrefix {
    prefix: String,
}

/// Where a gate's sockets live.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct NamespaceInfo {
    /// Process in whose user and network namespace the network is.
    pid: u32,
}

/// Networks this node owns.
#[utoipa::path(
    get, path = "/net", tag = "networks", responses((status = 200, body = Vec<NetworkInfo>))
)]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Vec<NetworkInfo>> {
    Json(state.node.networks().list())
}

/// Makes a network: `{ip, mask?, gateway?, prefixes?, name?, mtu?}`.
#[utoipa::path(
    post, path = "/net", tag = "networks", request_body = NetworkSpec,
    responses((status = 200, body = NetworkInfo), (status = 400))
)]
pub(crate) async fn create(
    State(state): State<ApiState>,
    ApiJson(spec): ApiJson<NetworkSpec>,
) -> ApiResult<Json<NetworkInfo>> {
    Ok(Json(state.node.networks().create(&spec)?))
}

/// One network.
#[utoipa::path(
    get, path = "/net/{id}", tag = "networks", params(("id" = String, Path)),
    responses((status = 200, body = NetworkInfo), (status = 403), (status = 404))
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<NetworkInfo>> {
    Ok(Json(state.node.networks().get(network_id(&id)?)?))
}

/// Changes a network while it runs: `{name?, mtu?, routes?, hosts?, policy?}`.
#[utoipa::path(
    patch, path = "/net/{id}", tag = "networks",
    params(("id" = String, Path), ("wait" = Option<f64>, Query)), request_body = SettingsEdit,
    responses((status = 200, body = NetworkInfo), (status = 400), (status = 404))
)]
pub(crate) async fn edit(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(wait): ApiQuery<Wait>,
    ApiJson(edit): ApiJson<SettingsEdit>,
) -> ApiResult<Json<NetworkInfo>> {
    let id = network_id(&id)?;
    state.node.networks().edit(id, edit).await?;
    wait.settle(&state, id).await?;
    Ok(Json(state.node.networks().get(id)?))
}

/// Removes a network.
#[utoipa::path(
    delete, path = "/net/{id}", tag = "networks", params(("id" = String, Path)),
    responses((status = 200), (status = 403), (status = 404))
)]
pub(crate) async fn remove(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<()>> {
    state.node.networks().remove(network_id(&id)?).await?;
    Ok(Json(()))
}

/// The whole roster.
#[utoipa::path(
    get, path = "/net/{id}/roster", tag = "networks", params(("id" = String, Path)),
    responses((status = 200, body = Roster), (status = 404))
)]
pub(crate) async fn roster(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Roster>> {
    Ok(Json(state.node.networks().roster(network_id(&id)?)?))
}

/// How far each member node has followed the roster.
#[utoipa::path(
    get, path = "/net/{id}/progress", tag = "networks", params(("id" = String, Path)),
    responses((status = 200, body = Vec<Progress>), (status = 404))
)]
pub(crate) async fn progress(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Vec<Progress>>> {
    Ok(Json(state.node.networks().progress(network_id(&id)?)?))
}

/// A process whose user and network namespace is inside the network, with the owner's address.
#[utoipa::path(
    get, path = "/net/{id}/namespace", tag = "networks", params(("id" = String, Path)),
    responses((status = 200, body = NamespaceInfo), (status = 404), (status = 503))
)]
pub(crate) async fn namespace(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<NamespaceInfo>> {
    let namespace = state.node.networks().namespace(network_id(&id)?).await?;
    Ok(Json(NamespaceInfo { pid: namespace.pid() }))
}

/// Adds a prefix, of either family: `{prefix, gateway?}`, or `{generate: true}` for a unique local
/// IPv6 prefix.
#[utoipa::path(
    post, path = "/net/{id}/prefixes", tag = "networks",
    params(("id" = String, Path), ("wait" = Option<f64>, Query)), request_body = NewPrefix,
    responses((status = 200, body = NetworkInfo), (status = 400), (status = 409))
)]
pub(crate) async fn add_prefix(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(wait): ApiQuery<Wait>,
    ApiJson(new): ApiJson<NewPrefix>,
) -> ApiResult<Json<NetworkInfo>> {
    let id = network_id(&id)?;
    if new.prefix.is_some() == new.generate {
        return Err(ApiError::bad_request(
            "give either `prefix` (CIDR) or `generate: true` (a unique local IPv6 prefix)",
        ));
    }
    state.node.networks().add_prefix(id, new.prefix.as_deref(), new.gateway).await?;
    wait.settle(&state, id).await?;
    Ok(Json(state.node.networks().get(id)?))
}

/// Gives a prefix another gateway: `{prefix, gateway}`.
#[utoipa::path(
    patch, path = "/net/{id}/prefixes", tag = "networks",
    params(("id" = String, Path), ("wait" = Option<f64>, Query)), request_body = NewGateway,
    responses((status = 200, body = NetworkInfo), (status = 400), (status = 404))
)]
pub(crate) async fn set_gateway(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(wait): ApiQuery<Wait>,
    ApiJson(new): ApiJson<NewGateway>,
) -> ApiResult<Json<NetworkInfo>> {
    let id = network_id(&id)?;
    let prefix = addressing::parse_prefix(&new.prefix, None).map_err(ApiError::bad_request)?;
    state.node.networks().set_gateway(id, prefix, new.gateway).await?;
    wait.settle(&state, id).await?;
    Ok(Json(state.node.networks().get(id)?))
}

/// Removes a prefix (`?prefix=CIDR`) that no member has an address in.
#[utoipa::path(
    delete, path = "/net/{id}/prefixes", tag = "networks",
    params(("id" = String, Path), ("prefix" = String, Query), ("wait" = Option<f64>, Query)),
    responses((status = 200, body = NetworkInfo), (status = 404), (status = 409))
)]
pub(crate) async fn remove_prefix(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(which): ApiQuery<WhichPrefix>,
    ApiQuery(wait): ApiQuery<Wait>,
) -> ApiResult<Json<NetworkInfo>> {
    let id = network_id(&id)?;
    let prefix = addressing::parse_prefix(&which.prefix, None).map_err(ApiError::bad_request)?;
    state.node.networks().remove_prefix(id, prefix).await?;
    wait.settle(&state, id).await?;
    Ok(Json(state.node.networks().get(id)?))
}
