//! Our own endpoints around the market: a provider's presets, the offers known, and why a demand
//! gets no answers.

use axum::{Json, extract::State};
use gvpn_market::{MatchReport, Offer, SubscriptionId, provider::Preset};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{ApiError, ApiJson, ApiPath, ApiResult, ApiState};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(presets, put_preset))
        .routes(routes!(remove_preset))
        .routes(routes!(offers))
        .routes(routes!(known_offers))
        .routes(routes!(report))
}

/// The provider's presets.
#[utoipa::path(
    get, path = "/provider/presets", tag = "provider", responses((status = 200, body = Vec<Preset>))
)]
async fn presets(State(state): State<ApiState>) -> Json<Vec<Preset>> {
    Json(state.node.markets().presets())
}

/// Makes a preset or replaces it: `{name, runtime, start?, per_hour?, per_cpu_hour?, active?}`.
#[utoipa::path(
    post, path = "/provider/presets", tag = "provider", request_body = Preset,
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
    get, path = "/provider/offers", tag = "provider", responses((status = 200, body = Vec<Offer>))
)]
async fn offers(State(state): State<ApiState>) -> Json<Vec<Offer>> {
    Json(state.node.markets().published_offers())
}

/// Offers of other nodes that this node knows.
#[utoipa::path(
    get, path = "/market/offers", tag = "market", responses((status = 200, body = Vec<Offer>))
)]
async fn known_offers(State(state): State<ApiState>) -> Json<Vec<Offer>> {
    Json(state.node.markets().look(|market| market.known_offers().cloned().collect()))
}

/// How a demand fares: which clause excludes how many offers.
#[utoipa::path(
    get, path = "/market/demands/{id}/report", tag = "market", params(("id" = String, Path)),
    responses((status = 200, body = MatchReport), (status = 404))
)]
async fn report(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<MatchReport>> {
    let id = SubscriptionId::from(id.as_str());
    state.node.markets().look(|market| market.report(&id)).map(Json).map_err(ApiError::from)
}
