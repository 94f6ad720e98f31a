//! Members, one by one. One is named by its number, its name or one of its addresses.

use axum::{Json, extract::State};
use gvpn_roster::{Member, MemberEdit, MemberSpec};
use serde::Deserialize;
use utoipa::ToSchema;

use super::wait::Wait;
use crate::{ApiError, ApiJson, ApiPath, ApiQuery, ApiResult, ApiState, net::network_id};

/// A member to add.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewMember {
    #[serde(flatten)]
    spec: MemberSpec,
    /// Its addresses follow from its node and name, rather than being the next free ones.
    #[serde(default)]
    derived: bool,
}

/// The members of a network.
#[utoipa::path(
    get, path = "/net/{id}/members", tag = "members", params(("id" = String, Path)),
    responses((status = 200, body = Vec<Member>), (status = 404))
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Vec<Member>>> {
    Ok(Json(state.node.networks().roster(network_id(&id)?)?.members))
}

/// Adds a member: `{node, ips?, derived?, name?, groups?, limit?, services?, activity?}`. Without
/// addresses it gets the next free one of every prefix, or, `derived`, the one that follows from
/// its node and name.
#[utoipa::path(
    post, path = "/net/{id}/members", tag = "members",
    params(("id" = String, Path), ("wait" = Option<f64>, Query)), request_body = NewMember,
    responses((status = 200, body = Member), (status = 400), (status = 409))
)]
pub(crate) async fn add(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(wait): ApiQuery<Wait>,
    ApiJson(new): ApiJson<NewMember>,
) -> ApiResult<Json<Member>> {
    let id = network_id(&id)?;
    let networks = state.node.networks();
    let member = match (new.derived, new.spec.ips.is_empty()) {
        (false, _) => networks.add_member(id, new.spec).await?,
        (true, true) => networks.add_derived_member(id, new.spec).await?,
        (true, false) => {
            return Err(ApiError::bad_request("a member has either `ips` or `derived` addresses"));
        }
    };
    wait.settle(&state, id).await?;
    Ok(Json(member))
}

/// One member.
#[utoipa::path(
    get, path = "/net/{id}/members/{member}", tag = "members",
    params(("id" = String, Path), ("member" = String, Path)),
    responses((status = 200, body = Member), (status = 404))
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    ApiPath((id, member)): ApiPath<(String, String)>,
) -> ApiResult<Json<Member>> {
    Ok(Json(state.node.networks().find_member(network_id(&id)?, &member)?))
}

/// Changes a member while its payload runs: `{ips?, addIps?, removeIps?, node?, name?, groups?,
/// limit?, quarantined?, services?, activity?}`.
#[utoipa::path(
    patch, path = "/net/{id}/members/{member}", tag = "members",
    params(("id" = String, Path), ("member" = String, Path), ("wait" = Option<f64>, Query)),
    request_body = MemberEdit,
    responses((status = 200, body = Member), (status = 400), (status = 404), (status = 409))
)]
pub(crate) async fn edit(
    State(state): State<ApiState>,
    ApiPath((id, member)): ApiPath<(String, String)>,
    ApiQuery(wait): ApiQuery<Wait>,
    ApiJson(edit): ApiJson<MemberEdit>,
) -> ApiResult<Json<Member>> {
    let (id, networks) = (network_id(&id)?, state.node.networks());
    let member = networks.find_member(id, &member)?;
    let member = networks.edit_member(id, member.id, edit).await?;
    wait.settle(&state, id).await?;
    Ok(Json(member))
}

/// Removes one member.
#[utoipa::path(
    delete, path = "/net/{id}/members/{member}", tag = "members",
    params(("id" = String, Path), ("member" = String, Path)),
    responses((status = 200), (status = 404), (status = 409))
)]
pub(crate) async fn remove(
    State(state): State<ApiState>,
    ApiPath((id, member)): ApiPath<(String, String)>,
    ApiQuery(wait): ApiQuery<Wait>,
) -> ApiResult<Json<()>> {
    let (id, networks) = (network_id(&id)?, state.node.networks());
    let member = networks.find_member(id, &member)?;
    networks.remove_member(id, member.id).await?;
    wait.settle(&state, id).await?;
    Ok(Json(()))
}
