//! Agreements with providers named by their node ids.

use axum::{Json, body::Bytes, extract::State};
use gvpn_model::{AgreementId, NodeId};
use gvpn_node::{Agreement, AgreementSpec};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{ApiError, ApiJson, ApiPath, ApiResult, ApiState};

/// Whom to ask for what.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct AgreementRequest {
    provider: NodeId,
    #[serde(flatten)]
    spec: AgreementSpec,
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
struct EndReason {
    reason: Option<String>,
}

/// Every agreement, of both sides, oldest first.
#[utoipa::path(
    get, path = "/agreements", tag = "agreements", responses((status = 200, body = Vec<Agreement>))
)]
pub(crate) async fn list(State(state): State<ApiState>) -> Json<Vec<Agreement>> {
    Json(state.node.agreements().list())
}

/// Asks a provider for an agreement: `{provider, runtime?, image?, cpuCores?, memGib?, storageGib?}`.
#[utoipa::path(
    post, path = "/agreements", tag = "agreements", request_body = AgreementRequest,
    responses(
        (status = 200, body = Agreement), (status = 403, description = "Refused, with the reason"),
        (status = 504, description = "Unreachable")
    )
)]
pub(crate) async fn propose(
    State(state): State<ApiState>,
    ApiJson(proposal): ApiJson<AgreementRequest>,
) -> ApiResult<Json<Agreement>> {
    Ok(Json(state.node.agreements().propose(proposal.provider, proposal.spec).await?))
}

/// One agreement.
#[utoipa::path(
    get, path = "/agreements/{id}", tag = "agreements", params(("id" = String, Path)),
    responses((status = 200, body = Agreement), (status = 404))
)]
pub(crate) async fn show(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Agreement>> {
    Ok(Json(state.node.agreements().get(agreement_id(&id)?)?))
}

/// Ends an agreement and its activities; the body `{reason?}` may be missing.
#[utoipa::path(
    post, path = "/agreements/{id}/terminate", tag = "agreements", params(("id" = String, Path)),
    request_body = Option<EndReason>, responses((status = 200), (status = 404))
)]
pub(crate) async fn terminate(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    body: Bytes,
) -> ApiResult<Json<()>> {
    let reason: EndReason = match body.as_ref() {
        b"" => EndReason::default(),
        body => serde_json::from_slice(body).map_err(ApiError::bad_request)?,
    };
    state.node.agreements().terminate(agreement_id(&id)?, reason.reason).await?;
    Ok(Json(()))
}

fn agreement_id(text: &str) -> ApiResult<AgreementId> {
    text.parse().map_err(|_| ApiError::not_found(format!("there is no agreement `{text}`")))
}
