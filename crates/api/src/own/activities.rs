//! Activities of both sides, and the networks of running payloads.

use std::net::IpAddr;

use axum::{Json, extract::State};
use gvpn_model::{AgreementId, NetworkId};
use gvpn_node::{ActivityInfo, ActivitySpec, AgreementRole};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    ApiJson, ApiPath, ApiQuery, ApiResult, ApiState, activity::activity_id, net::network_id,
};

/// Which side's.
#[derive(Debug, Deserialize)]
pub(crate) struct Side {
    role: Option<AgreementRole>,
}

/// What to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewActivity {
    agreement_id: AgreementId,
    #[serde(flatten)]
    spec: ActivitySpec,
}

/// Which network to join, and where.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Join {
    network: NetworkId,
    #[schema(value_type = String)]
    ip: IpAddr,
}

/// Activities this node requested; with `?role=provider`, those it runs for others.
#[utoipa::path(
    get, path = "/activities", tag = "activities", params(("role" = Option<String>, Query)),
    responses((status = 200, body = Vec<ActivityInfo>))
)]
pub(crate) async fn list(
    State(state): State<ApiState>,
    ApiQuery(side): ApiQuery<Side>,
) -> Json<Vec<ActivityInfo>> {
    Json(match side.role {
        Some(AgreementRole::Provider) => state.node.activities().hosted(),
        Some(AgreementRole::Requestor) | None => state.node.activities().requested(),
    })
}

/// Creates an activity: `{agreementId, image?}`.
#[utoipa::path(
    post, path = "/activities", tag = "activities", request_body = NewActivity,
    responses((status = 200, body = ActivityInfo), (status = 403), (status = 404), (status = 504))
)]
pub(crate) async fn create(
    State(state): State<ApiState>,
    ApiJson(new): ApiJson<NewActivity>,
) -> ApiResult<Json<ActivityInfo>> {
    Ok(Json(state.node.activities().create(new.agreement_id, new.spec).await?))
}

/// One activity.
#[utoipa::path(
    get, path = "/activities/{id}", tag = "activities", params(("id" = String, Path)),
    responses((status = 200, body = ActivityInfo), (status = 404))
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<ActivityInfo>> {
    Ok(Json(state.node.activities().get(activity_id(&id)?)?))
}

/// Ends an activity.
#[utoipa::path(
    delete, path = "/activities/{id}", tag = "activities", params(("id" = String, Path)),
    responses((status = 200), (status = 404))
)]
pub(crate) async fn destroy(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<()>> {
    state.node.activities().destroy(activity_id(&id)?).await?;
    Ok(Json(()))
}

/// Makes a running payload join a network: `{network, ip}`, an address its provider has there.
#[utoipa::path(
    post, path = "/activities/{id}/networks", tag = "activities", params(("id" = String, Path)),
    request_body = Join, responses((status = 200), (status = 400), (status = 404))
)]
pub(crate) async fn join(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(join): ApiJson<Join>,
) -> ApiResult<Json<()>> {
    let activities = state.node.activities();
    activities.set_network(activity_id(&id)?, join.network, Some(join.ip)).await?;
    Ok(Json(()))
}

/// Takes a running payload out of a network.
#[utoipa::path(
    delete, path = "/activities/{id}/networks/{network}", tag = "activities",
    params(("id" = String, Path), ("network" = String, Path)),
    responses((status = 200), (status = 404))
)]
pub(crate) async fn leave(
    State(state): State<ApiState>,
    ApiPath((id, network)): ApiPath<(String, String)>,
) -> ApiResult<Json<()>> {
    let activities = state.node.activities();
    activities.set_network(activity_id(&id)?, network_id(&network)?, None).await?;
    Ok(Json(()))
}
