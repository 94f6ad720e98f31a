//! Members, one by one.

use axum::{Json, extract::State};
use gvpn_model::MemberId;
use gvpn_roster::{Member, MemberEdit, MemberSpec};

use crate::{ApiError, ApiJson, ApiPath, ApiResult, ApiState, net::network_id};

/// The members of a network.
#[utoipa::path(
    get, path = "/net/{id}/members", tag = "members", params(("id" = String, Path)),
    responses((status = 200, body = Vec<Object>), (status = 404))
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Vec<Member>>> {
    Ok(Json(state.node.networks().roster(network_id(&id)?)?.members))
}

/// Adds a member: `{node, ips?, name?, groups?, limit?, services?, activity?}`; without addresses it
/// gets the next free one of every prefix.
#[utoipa::path(
    post, path = "/net/{id}/members", tag = "members", params(("id" = String, Path)),
    request_body = Object, responses((status = 200, body = Object), (status = 400), (status = 409))
)]
pub(crate) async fn add(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(spec): ApiJson<MemberSpec>,
) -> ApiResult<Json<Member>> {
    Ok(Json(state.node.networks().add_member(network_id(&id)?, spec).await?))
}

/// One member.
#[utoipa::path(
    get, path = "/net/{id}/members/{member}", tag = "members",
    params(("id" = String, Path), ("member" = u32, Path)),
    responses((status = 200, body = Object), (status = 404))
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    ApiPath((id, member)): ApiPath<(String, String)>,
) -> ApiResult<Json<Member>> {
    Ok(Json(state.node.networks().member(network_id(&id)?, member_id(&member)?)?))
}

/// Changes a member while its payload runs: `{ips?, add_ips?, remove_ips?, node?, name?, groups?,
/// limit?, quarantined?, services?, activity?}`.
#[utoipa::path(
    patch, path = "/net/{id}/members/{member}", tag = "members",
    params(("id" = String, Path), ("member" = u32, Path)), request_body = Object,
    responses((status = 200, body = Object), (status = 400), (status = 404), (status = 409))
)]
pub(crate) async fn edit(
    State(state): State<ApiState>,
    ApiPath((id, member)): ApiPath<(String, String)>,
    ApiJson(edit): ApiJson<MemberEdit>,
) -> ApiResult<Json<Member>> {
    let networks = state.node.networks();
    Ok(Json(networks.edit_member(network_id(&id)?, member_id(&member)?, edit).await?))
}

/// Removes one member.
#[utoipa::path(
    delete, path = "/net/{id}/members/{member}", tag = "members",
    params(("id" = String, Path), ("member" = u32, Path)),
    responses((status = 200), (status = 404), (status = 409))
)]
pub(crate) async fn remove(
    State(state): State<ApiState>,
    ApiPath((id, member)): ApiPath<(String, String)>,
) -> ApiResult<Json<()>> {
    let networks = state.node.networks();
    networks.remove_member(network_id(&id)?, member_id(&member)?).await?;
    Ok(Json(()))
}

fn member_id(text: &str) -> ApiResult<MemberId> {
    let number = text.parse().map(MemberId);
    number.map_err(|_| ApiError::not_found(format!("the network has no member `{text}`")))
}
