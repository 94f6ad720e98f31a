//! Market API: demands, offers, and the bargaining about them.

use axum::{Json, body::Bytes, extract::State, response::Response};
use gvpn_market::{Demand, Draft, MarketEvent, Offer, Proposal, Reason, Side, SubscriptionId};
use serde_json::Value;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{created, nothing},
    query::EventQuery,
};
use crate::{ApiError, ApiJson, ApiPath, ApiQuery, ApiResult, ApiState};

/// Events in one answer when the client does not say.
const EVENTS: usize = 10;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(demands, demand))
        .routes(routes!(end_demand))
        .routes(routes!(demand_events))
        .routes(routes!(demand_proposal, counter_offer))
        .routes(routes!(reject_offer))
        .routes(routes!(offers, offer))
        .routes(routes!(end_offer))
        .routes(routes!(offer_events))
        .routes(routes!(offer_proposal, counter_demand))
        .routes(routes!(reject_demand))
}

/// This node's demands.
#[utoipa::path(
    get, path = "/demands", tag = "market", responses((status = 200, body = Vec<Demand>))
)]
async fn demands(State(state): State<ApiState>) -> Json<Vec<Demand>> {
    Json(state.node.markets().look(|market| market.demands()))
}

/// Publishes a demand; the answer is its id.
#[utoipa::path(
    post, path = "/demands", tag = "market", request_body = Draft,
    responses((status = 201, body = SubscriptionId), (status = 400), (status = 429))
)]
async fn demand(
    State(state): State<ApiState>,
    ApiJson(draft): ApiJson<Draft>,
) -> ApiResult<Response> {
    let id = state.node.markets().act(|market, now| market.subscribe_demand(now, draft))?;
    Ok(created(id))
}

/// Withdraws a demand.
#[utoipa::path(
    delete, path = "/demands/{id}", tag = "market", params(("id" = String, Path)),
    responses((status = 204), (status = 404), (status = 410))
)]
async fn end_demand(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Response> {
    end(&state, Side::Requestor, &id)
}

/// What came of a demand; waits for something when there is nothing.
#[utoipa::path(
    get, path = "/demands/{id}/events", tag = "market", params(("id" = String, Path), EventQuery),
    responses((status = 200, body = Vec<MarketEvent>), (status = 404))
)]
async fn demand_events(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<EventQuery>,
) -> ApiResult<Json<Vec<MarketEvent>>> {
    events(&state, Side::Requestor, &id, &query).await
}

/// One proposal.
#[utoipa::path(
    get, path = "/demands/{id}/proposals/{proposal}", tag = "market",
    params(("id" = String, Path), ("proposal" = String, Path)),
    responses((status = 200, body = Proposal), (status = 404))
)]
async fn demand_proposal(
    State(state): State<ApiState>,
    ApiPath(path): ApiPath<(String, String)>,
) -> ApiResult<Json<Proposal>> {
    proposal(&state, Side::Requestor, path)
}

/// Answers a proposal with another; the answer is its id.
#[utoipa::path(
    post, path = "/demands/{id}/proposals/{proposal}", tag = "market",
    params(("id" = String, Path), ("proposal" = String, Path)), request_body = Draft,
    responses((status = 200, body = String, content_type = "application/json"), (status = 400), (status = 404), (status = 410))
)]
async fn counter_offer(
    State(state): State<ApiState>,
    ApiPath(path): ApiPath<(String, String)>,
    ApiJson(draft): ApiJson<Draft>,
) -> ApiResult<Json<String>> {
    counter(&state, Side::Requestor, path, draft)
}

/// Ends the bargaining about a proposal.
#[utoipa::path(
    post, path = "/demands/{id}/proposals/{proposal}/reject", tag = "market",
    params(("id" = String, Path), ("proposal" = String, Path)), request_body = Option<Reason>,
    responses((status = 204), (status = 404))
)]
async fn reject_offer(
    State(state): State<ApiState>,
    ApiPath(path): ApiPath<(String, String)>,
    body: Bytes,
) -> ApiResult<Response> {
    reject(&state, Side::Requestor, path, &body)
}

/// This node's offers.
#[utoipa::path(get, path = "/offers", tag = "market", responses((status = 200, body = Vec<Offer>)))]
async fn offers(State(state): State<ApiState>) -> Json<Vec<Offer>> {
    Json(state.node.markets().look(|market| market.offers()))
}

/// Publishes an offer; the answer is its id.
#[utoipa::path(
    post, path = "/offers", tag = "market", request_body = Draft,
    responses((status = 201, body = SubscriptionId), (status = 400), (status = 429))
)]
async fn offer(
    State(state): State<ApiState>,
    ApiJson(draft): ApiJson<Draft>,
) -> ApiResult<Response> {
    let id = state.node.markets().act(|market, now| market.subscribe_offer(now, draft))?;
    Ok(created(id))
}

/// Withdraws an offer.
#[utoipa::path(
    delete, path = "/offers/{id}", tag = "market", params(("id" = String, Path)),
    responses((status = 204), (status = 404), (status = 410))
)]
async fn end_offer(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Response> {
    end(&state, Side::Provider, &id)
}

/// What came of an offer; waits for something when there is nothing.
#[utoipa::path(
    get, path = "/offers/{id}/events", tag = "market", params(("id" = String, Path), EventQuery),
    responses((status = 200, body = Vec<MarketEvent>), (status = 404))
)]
async fn offer_events(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<EventQuery>,
) -> ApiResult<Json<Vec<MarketEvent>>> {
    events(&state, Side::Provider, &id, &query).await
}

/// One proposal.
#[utoipa::path(
    get, path = "/offers/{id}/proposals/{proposal}", tag = "market",
    params(("id" = String, Path), ("proposal" = String, Path)),
    responses((status = 200, body = Proposal), (status = 404))
)]
async fn offer_proposal(
    State(state): State<ApiState>,
    ApiPath(path): ApiPath<(String, String)>,
) -> ApiResult<Json<Proposal>> {
    proposal(&state, Side::Provider, path)
}

/// Answers a proposal with another; the answer is its id.
#[utoipa::path(
    post, path = "/offers/{id}/proposals/{proposal}", tag = "market",
    params(("id" = String, Path), ("proposal" = String, Path)), request_body = Draft,
    responses((status = 200, body = String, content_type = "application/json"), (status = 400), (status = 404), (status = 410))
)]
async fn counter_demand(
    State(state): State<ApiState>,
    ApiPath(path): ApiPath<(String, String)>,
    ApiJson(draft): ApiJson<Draft>,
) -> ApiResult<Json<String>> {
    counter(&state, Side::Provider, path, draft)
}

/// Ends the bargaining about a proposal.
#[utoipa::path(
    post, path = "/offers/{id}/proposals/{proposal}/reject", tag = "market",
    params(("id" = String, Path), ("proposal" = String, Path)), request_body = Option<Reason>,
    responses((status = 204), (status = 404))
)]
async fn reject_demand(
    State(state): State<ApiState>,
    ApiPath(path): ApiPath<(String, String)>,
    body: Bytes,
) -> ApiResult<Response> {
    reject(&state, Side::Provider, path, &body)
}

/// A reason in a request's body; none if there is no body.
pub(super) fn reason(body: &[u8]) -> ApiResult<Option<Reason>> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    let json: Value = serde_json::from_slice(body)
        .map_err(|e| ApiError::bad_request(format!("the reason is not valid JSON: {e}")))?;
    Ok(Reason::from_json(json))
}

fn end(state: &ApiState, side: Side, id: &str) -> ApiResult<Response> {
    let id = SubscriptionId::from(id);
    state.node.markets().act(|market, _| market.unsubscribe(side, &id))?;
    Ok(nothing())
}

async fn events(
    state: &ApiState,
    side: Side,
    id: &str,
    query: &EventQuery,
) -> ApiResult<Json<Vec<MarketEvent>>> {
    let (id, max) = (SubscriptionId::from(id), query.max(EVENTS));
    let events = state.node.markets().poll(query.patience(), |market, now, deadline| {
        market.collect(now, side, &id, max, deadline)
    });
    Ok(Json(events.await?))
}

fn proposal(state: &ApiState, side: Side, path: (String, String)) -> ApiResult<Json<Proposal>> {
    let (id, proposal) = (SubscriptionId::from(path.0.as_str()), path.1);
    Ok(Json(state.node.markets().look(|market| market.proposal(side, &id, &proposal))?))
}

fn counter(
    state: &ApiState,
    side: Side,
    path: (String, String),
    draft: Draft,
) -> ApiResult<Json<String>> {
    let (id, proposal) = (SubscriptionId::from(path.0.as_str()), path.1);
    let answer =
        state.node.markets().act(|market, now| market.counter(now, side, &id, &proposal, draft))?;
    Ok(Json(answer))
}

fn reject(
    state: &ApiState,
    side: Side,
    path: (String, String),
    body: &[u8],
) -> ApiResult<Response> {
    let (id, proposal, reason) = (SubscriptionId::from(path.0.as_str()), path.1, reason(body)?);
    state.node.markets().act(|market, _| market.reject(side, &id, &proposal, reason))?;
    Ok(nothing())
}
