//! Market API: demands, offers, and the bargaining about them.

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    response::Response,
    routing::{get, post},
};
use gvpn_market::{Demand, Draft, MarketEvent, Offer, Proposal, Reason, Side, SubscriptionId};
use serde_json::Value;

use super::{
    answer::{created, nothing},
    query::EventQuery,
};
use crate::{ApiError, ApiJson, ApiPath, ApiQuery, ApiResult, ApiState};

/// Events in one answer when the client does not say.
const EVENTS: usize = 10;

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/demands", get(demands).post(demand))
        .route("/demands/{id}", axum::routing::delete(end_demand))
        .route("/demands/{id}/events", get(demand_events))
        .route("/demands/{id}/proposals/{proposal}", get(demand_proposal).post(counter_offer))
        .route("/demands/{id}/proposals/{proposal}/reject", post(reject_offer))
        .route("/offers", get(offers).post(offer))
        .route("/offers/{id}", axum::routing::delete(end_offer))
        .route("/offers/{id}/events", get(offer_events))
        .route("/offers/{id}/proposals/{proposal}", get(offer_proposal).post(counter_demand))
        .route("/offers/{id}/proposals/{proposal}/reject", post(reject_demand))
}

async fn demands(State(state): State<ApiState>) -> Json<Vec<Demand>> {
    Json(state.node.markets().look(|market| market.demands()))
}

async fn demand(
    State(state): State<ApiState>,
    ApiJson(draft): ApiJson<Draft>,
) -> ApiResult<Response> {
    let id = state.node.markets().act(|market, now| market.subscribe_demand(now, draft))?;
    Ok(created(id))
}

async fn end_demand(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Response> {
    end(&state, Side::Requestor, &id)
}

async fn demand_events(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<EventQuery>,
) -> ApiResult<Json<Vec<MarketEvent>>> {
    events(&state, Side::Requestor, &id, &query).await
}

async fn demand_proposal(
    State(state): State<ApiState>,
    ApiPath(path): ApiPath<(String, String)>,
) -> ApiResult<Json<Proposal>> {
    proposal(&state, Side::Requestor, path)
}

async fn counter_offer(
    State(state): State<ApiState>,
    ApiPath(path): ApiPath<(String, String)>,
    ApiJson(draft): ApiJson<Draft>,
) -> ApiResult<Json<String>> {
    counter(&state, Side::Requestor, path, draft)
}

async fn reject_offer(
    State(state): State<ApiState>,
    ApiPath(path): ApiPath<(String, String)>,
    body: Bytes,
) -> ApiResult<Response> {
    reject(&state, Side::Requestor, path, &body)
}

async fn offers(State(state): State<ApiState>) -> Json<Vec<Offer>> {
    Json(state.node.markets().look(|market| market.offers()))
}

async fn offer(
    State(state): State<ApiState>,
    ApiJson(draft): ApiJson<Draft>,
) -> ApiResult<Response> {
    let id = state.node.markets().act(|market, now| market.subscribe_offer(now, draft))?;
    Ok(created(id))
}

async fn end_offer(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Response> {
    end(&state, Side::Provider, &id)
}

async fn offer_events(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<EventQuery>,
) -> ApiResult<Json<Vec<MarketEvent>>> {
    events(&state, Side::Provider, &id, &query).await
}

async fn offer_proposal(
    State(state): State<ApiState>,
    ApiPath(path): ApiPath<(String, String)>,
) -> ApiResult<Json<Proposal>> {
    proposal(&state, Side::Provider, path)
}

async fn counter_demand(
    State(state): State<ApiState>,
    ApiPath(path): ApiPath<(String, String)>,
    ApiJson(draft): ApiJson<Draft>,
) -> ApiResult<Json<String>> {
    counter(&state, Side::Provider, path, draft)
}

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
