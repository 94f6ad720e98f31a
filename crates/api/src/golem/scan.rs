//! Market API: scans, a look at offers without a demand.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header::ACCEPT},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use gvpn_model::NodeId;
use gvpn_node::{Markets, ScanId, ScanRequest};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{created, nothing},
    query::EventQuery,
};
use crate::{ApiJson, ApiPath, ApiQuery, ApiResult, ApiState};

/// How long one look of a stream waits.
const LOOK: Duration = Duration::from_secs(30);
/// Offers in one look.
const OFFERS: usize = 100;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(begin)).routes(routes!(end)).routes(routes!(events))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct PeerQuery {
    peer_id: Option<NodeId>,
}

/// Begins a look at offers without a demand; the answer is its id.
#[utoipa::path(
    post, path = "/scan", tag = "market", request_body = ScanRequest,
    responses((status = 201, body = String, content_type = "application/json"), (status = 400), (status = 429))
)]
async fn begin(
    State(state): State<ApiState>,
    ApiJson(request): ApiJson<ScanRequest>,
) -> ApiResult<Response> {
    Ok(created(state.node.markets().begin_scan(&request)?))
}

/// Ends a scan.
#[utoipa::path(
    delete, path = "/scan/{id}", tag = "market", params(("id" = String, Path)),
    responses((status = 204), (status = 404))
)]
async fn end(State(state): State<ApiState>, ApiPath(id): ApiPath<ScanId>) -> ApiResult<Response> {
    state.node.markets().end_scan(&id)?;
    Ok(nothing())
}

/// New offers once there are some, or a stream of them for who accepts `text/event-stream`.
#[utoipa::path(
    get, path = "/scan/{id}/events", tag = "market",
    params(("id" = String, Path), EventQuery, PeerQuery),
    responses(
        (status = 200, content((Vec<gvpn_market::Offer> = "application/json"), (gvpn_market::Offer = "text/event-stream"))),
        (status = 404)
    )
)]
async fn events(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<ScanId>,
    ApiQuery(query): ApiQuery<EventQuery>,
    ApiQuery(peer): ApiQuery<PeerQuery>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let markets = state.node.markets();
    let streamed = headers
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/event-stream"));
    if streamed {
        // An unknown scan is an error, not a stream that ends.
        let first = markets.scan(&id, Duration::ZERO, OFFERS, peer.peer_id).await?;
        let stream = stream(markets.clone(), id, peer.peer_id, first);
        return Ok(Sse::new(stream).keep_alive(KeepAlive::default()).into_response());
    }
    let found = markets.scan(&id, query.patience(), query.max(OFFERS), peer.peer_id).await?;
    Ok(Json(found).into_response())
}

fn stream(
    markets: Markets,
    id: ScanId,
    peer: Option<NodeId>,
    first: Vec<gvpn_market::Offer>,
) -> impl futures::Stream<Item = Result<Event, Infallible>> {
    async_stream::stream! {
        let mut found = first;
        loop {
            for offer in &found {
                match Event::default().event("offer").json_data(offer) {
                    Ok(event) => yield Ok(event),
                    Err(error) => tracing::warn!(%error, "an offer was not shown"),
                }
            }
            found = match markets.scan(&id, LOOK, OFFERS, peer).await {
                Ok(found) => found,
                // The scan was ended.
                Err(_) => return,
            };
        }
    }
}
