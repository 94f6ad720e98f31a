//! Market API: agreements.

use axum::{Json, body::Bytes, extract::State, http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use gvpn_market::{
    Agreement, AgreementChange, AgreementEvent, AgreementFilter, AgreementListEntry,
    AgreementState, Reason,
};
use gvpn_model::{AgreementId, LongPoll};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{nothing, null},
    market::reason,
    query::{EventQuery, WaitQuery, date},
};
use crate::{ApiError, ApiJson, ApiPath, ApiQuery, ApiResult, ApiState};

/// How long a client waits for an approval when it does not say, in seconds.
const APPROVAL: f64 = 5.0;
/// Events in one answer when the client does not say.
const EVENTS: usize = 100;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show))
        .routes(routes!(confirm))
        .routes(routes!(wait))
        .routes(routes!(approve))
        .routes(routes!(reject))
        .routes(routes!(cancel))
        .routes(routes!(terminate))
        .routes(routes!(end_reason))
        .routes(routes!(events))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct NewAgreement {
    proposal_id: String,
    valid_to: DateTime<Utc>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
struct Filter {
    state: Option<AgreementState>,
    #[serde(deserialize_with = "date")]
    before_date: Option<DateTime<Utc>>,
    #[serde(deserialize_with = "date")]
    after_date: Option<DateTime<Utc>>,
    app_session_id: Option<String>,
}

/// Agreements of both sides.
#[utoipa::path(
    get, path = "/agreements", tag = "market", params(Filter),
    responses((status = 200, body = Vec<AgreementListEntry>))
)]
async fn list(
    State(state): State<ApiState>,
    ApiQuery(filter): ApiQuery<Filter>,
) -> Json<Vec<AgreementListEntry>> {
    let filter = AgreementFilter {
        state: filter.state,
        before: filter.before_date,
        after: filter.after_date,
        session: filter.app_session_id.filter(|s| !s.is_empty()),
    };
    Json(state.node.markets().look(|market| market.agreements(&filter)))
}

/// Makes an agreement of a proposal; the answer is its id.
#[utoipa::path(
    post, path = "/agreements", tag = "market", request_body = NewAgreement,
    responses((status = 200, body = AgreementId), (status = 400), (status = 404), (status = 410))
)]
async fn create(
    State(state): State<ApiState>,
    ApiJson(new): ApiJson<NewAgreement>,
) -> ApiResult<Json<AgreementId>> {
    let id = state
        .node
        .markets()
        .act(|market, now| market.create_agreement(now, &new.proposal_id, new.valid_to))?;
    Ok(Json(id))
}

/// One agreement.
#[utoipa::path(
    get, path = "/agreements/{id}", tag = "market", params(("id" = String, Path)),
    responses((status = 200, body = Agreement), (status = 404))
)]
async fn show(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Agreement>> {
    let id = agreement_id(&id)?;
    Ok(Json(state.node.markets().look(|market| market.agreement(id).cloned())?))
}

/// The requestor signs; the provider is asked.
#[utoipa::path(
    post, path = "/agreements/{id}/confirm", tag = "market",
    params(("id" = String, Path), WaitQuery),
    responses((status = 204), (status = 404), (status = 409), (status = 410))
)]
async fn confirm(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<WaitQuery>,
) -> ApiResult<Response> {
    let id = agreement_id(&id)?;
    state.node.markets().act(|market, now| market.confirm(now, id, query.session()))?;
    Ok(nothing())
}

/// Waits for the provider's answer.
///
/// 204 once approved, 408 when the time is up, 410 when the answer is no.
#[utoipa::path(
    post, path = "/agreements/{id}/wait", tag = "market", params(("id" = String, Path), WaitQuery),
    responses((status = 204), (status = 404), (status = 408), (status = 410))
)]
async fn wait(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<WaitQuery>,
) -> ApiResult<Response> {
    let id = agreement_id(&id)?;
    let patience = query.patience(APPROVAL);
    let approved = state
        .node
        .markets()
        .poll(patience, |market, now, deadline| market.await_approval(now, id, deadline))
        .await?;
    if approved.is_empty() {
        let message = format!("agreement {id}: the provider has not answered yet");
        return Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, message));
    }
    Ok(nothing())
}

/// The provider signs.
#[utoipa::path(
    post, path = "/agreements/{id}/approve", tag = "market",
    params(("id" = String, Path), WaitQuery),
    responses((status = 204), (status = 404), (status = 409), (status = 410))
)]
async fn approve(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<WaitQuery>,
) -> ApiResult<Response> {
    let id = agreement_id(&id)?;
    state.node.markets().act(|market, now| market.approve(now, id, query.session()))?;
    Ok(nothing())
}

/// The provider declines.
#[utoipa::path(
    post, path = "/agreements/{id}/reject", tag = "market", params(("id" = String, Path)),
    request_body = Option<Reason>,
    responses((status = 204), (status = 404), (status = 409), (status = 410))
)]
async fn reject(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    body: Bytes,
) -> ApiResult<Response> {
    let (id, reason) = (agreement_id(&id)?, reason(&body)?);
    state.node.markets().act(|market, now| market.reject_agreement(now, id, reason))?;
    Ok(nothing())
}

/// The requestor takes it back.
#[utoipa::path(
    post, path = "/agreements/{id}/cancel", tag = "market", params(("id" = String, Path)),
    request_body = Option<Reason>,
    responses((status = 204), (status = 404), (status = 409), (status = 410))
)]
async fn cancel(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    body: Bytes,
) -> ApiResult<Response> {
    let (id, reason) = (agreement_id(&id)?, reason(&body)?);
    state.node.markets().act(|market, now| market.cancel(now, id, reason))?;
    Ok(nothing())
}

/// Ends an agreement.
#[utoipa::path(
    post, path = "/agreements/{id}/terminate", tag = "market", params(("id" = String, Path)),
    request_body = Option<Reason>,
    responses((status = 200), (status = 404), (status = 409), (status = 410))
)]
async fn terminate(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    body: Bytes,
) -> ApiResult<Response> {
    let (id, reason) = (agreement_id(&id)?, reason(&body)?);
    state.node.markets().act(|market, now| market.terminate(now, id, reason))?;
    Ok(null())
}

/// Why it was terminated; `null` while it was not, or without a reason.
#[utoipa::path(
    method(get, post), path = "/agreements/{id}/terminate/reason", tag = "market",
    params(("id" = String, Path)), responses((status = 200, body = Option<Reason>), (status = 404))
)]
async fn end_reason(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Option<Reason>>> {
    let id = agreement_id(&id)?;
    let reason = state.node.markets().look(|market| {
        market.agreement(id)?;
        let now = Utc::now();
        let LongPoll::Answer(events) = market.agreement_events(now, None, usize::MAX, None, now)
        else {
            return Ok(None);
        };
        Ok::<_, gvpn_market::MarketError>(events.into_iter().find_map(|e| match e.change {
            AgreementChange::AgreementTerminatedEvent { reason, .. } if e.agreement_id == id => {
                reason
            }
            _ => None,
        }))
    })?;
    Ok(Json(reason))
}

/// What happened to agreements; waits for something when there is nothing.
#[utoipa::path(
    get, path = "/agreementEvents", tag = "market", params(EventQuery),
    responses((status = 200, body = Vec<AgreementEvent>), (status = 400))
)]
async fn events(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<EventQuery>,
) -> ApiResult<Json<Vec<AgreementEvent>>> {
    let (max, session) = (query.max(EVENTS), query.session());
    let events = state.node.markets().poll(query.patience(), |market, now, deadline| {
        let after = query.after_timestamp;
        Ok::<_, ApiError>(market.agreement_events(now, after, max, session.as_deref(), deadline))
    });
    Ok(Json(events.await?))
}

fn agreement_id(text: &str) -> ApiResult<AgreementId> {
    text.parse().map_err(|_| ApiError::not_found(format!("agreement `{text}` does not exist")))
}
