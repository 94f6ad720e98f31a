//! Our own endpoints around the market: a provider's presets, the offers known, and why a demand
//! gets no answers.

use axum::{
    Json, Router,
    extract::State,
    routing::{delete, get},
};
use gvpn_market::{MatchReport, Offer, SubscriptionId, provider::Preset};
use utoipa::OpenApi;

use crate::{ApiError, ApiJson, ApiPath, ApiResult, ApiState};

/// This part of the document.
#[derive(OpenApi)]
#[openapi(paths(
    presets,
    put_preset,
    remove_preset,
    offers,
    known_offers,
    report,
    super::images::list,
    super::images::import,
    super::images::remove
))]
pub(crate) struct ProviderDoc;

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/gvpn/v1/provider/presets", get(presets).post(put_preset))
        .route("/gvpn/v1/provider/presets/{name}", delete(remove_preset))
        .route("/gvpn/v1/provider/offers", get(offers))
        .route("/gvpn/v1/market/offers", get(known_offers))
        .route("/gvpn/v1/market/demands/{id}/report", get(report))
}

/// The provider's presets.
#[utoipa::path(
    get, path = "/provider/presets", tag = "provider", responses((status = 200, body = Vec<Object>))
)]
async fn presets(State(state): State<ApiState>) -> Json<Vec<Preset>> {
    Json(state.node.markets().presets())
}

/// Makes a preset or replaces it: `{name, runtime, start?, per_hour?, per_cpu_hour?, active?}`.
#[utoipa::path(
    post, path = "/provider/presets", tag = "provider", request_body = Object,
    responses((status = 200), (status = 400))
)]
async fn put_preset(
    State(state): State<ApiState>,
    ApiJson(preset): ApiJson<Preset>,
) -> ApiResult<Json<()>> {
    state.node.markets().put_preset(preset)?;
    Ok(Json(()))
}

/// Removes a preset.
#[utoipa::path(
    delete, path = "/provider/presets/{name}", tag = "provider", params(("name" = String, Path)),
    responses((status = 200), (status = 404), (status = 409))
)]
async fn remove_preset(
    State(state): State<ApiState>,
    ApiPath(name): ApiPath<String>,
) -> ApiResult<Json<()>> {
    state.node.markets().remove_preset(&name)?;
    Ok(Json(()))
}

/// The offers that this node publishes.
#[utoipa::path(
    get, path = "/provider/offers", tag = "provider", responses((status = 200, body = Vec<Object>))
)]
async fn offers(State(state): State<ApiState>) -> Json<Vec<Offer>> {
    Json(state.node.markets().published_offers())
}

/// Offers of other nodes that this node knows.
#[utoipa::path(
    get, path = "/market/offers", tag = "market", responses((status = 200, body = Vec<Object>))
)]
async fn known_offers(State(state): State<ApiState>) -> Json<Vec<Offer>> {
    Json(state.node.markets().look(|market| market.known_offers().cloned().collect()))
}

/// How a demand fares: which clause excludes how many offers.
#[utoipa::path(
    get, path = "/market/demands/{id}/report", tag = "market", params(("id" = String, Path)),
    responses((status = 200, body = Object), (status = 404))
)]
async fn report(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<MatchReport>> {
    let id = SubscriptionId::from(id.as_str());
    state.node.markets().look(|market| market.report(&id)).map(Json).map_err(ApiError::from)
}
