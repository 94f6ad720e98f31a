//! Market API: agreements.

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use chrono::{DateTime, Utc};
use gvpn_market::{
    Agreement, AgreementChange, AgreementEvent, AgreementFilter, AgreementListEntry,
    AgreementState, Reason,
};
use gvpn_model::{AgreementId, LongPoll};
use serde::Deserialize;

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

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/agreements", get(list).post(create))
        .route("/agreements/{id}", get(show))
        .route("/agreements/{id}/confirm", post(confirm))
        .route("/agreements/{id}/wait", post(wait))
        .route("/agreements/{id}/approve", post(approve))
        .route("/agreements/{id}/reject", post(reject))
        .route("/agreements/{id}/cancel", post(cancel))
        .route("/agreements/{id}/terminate", post(terminate))
        .route("/agreements/{id}/terminate/reason", get(end_reason).post(end_reason))
        .route("/agreementEvents", get(events))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NewAgreement {
    proposal_id: String,
    valid_to: DateTime<Utc>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Filter {
    state: Option<AgreementState>,
    #[serde(deserialize_with = "date")]
    before_date: Option<DateTime<Utc>>,
    #[serde(deserialize_with = "date")]
    after_date: Option<DateTime<Utc>>,
    app_session_id: Option<String>,
}

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

async fn show(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Agreement>> {
    let id = agreement_id(&id)?;
    Ok(Json(state.node.markets().look(|market| market.agreement(id).cloned())?))
}

async fn confirm(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<WaitQuery>,
) -> ApiResult<Response> {
    let id = agreement_id(&id)?;
    state.node.markets().act(|market, now| market.confirm(now, id, query.session()))?;
    Ok(nothing())
}

/// 204 once approved, 408 when the time is up, 410 when the answer is no.
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

async fn approve(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(query): ApiQuery<WaitQuery>,
) -> ApiResult<Response> {
    let id = agreement_id(&id)?;
    state.node.markets().act(|market, now| market.approve(now, id, query.session()))?;
    Ok(nothing())
}

async fn reject(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    body: Bytes,
) -> ApiResult<Response> {
    let (id, reason) = (agreement_id(&id)?, reason(&body)?);
    state.node.markets().act(|market, now| market.reject_agreement(now, id, reason))?;
    Ok(nothing())
}

async fn cancel(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    body: Bytes,
) -> ApiResult<Response> {
    let (id, reason) = (agreement_id(&id)?, reason(&body)?);
    state.node.markets().act(|market, now| market.cancel(now, id, reason))?;
    Ok(nothing())
}

async fn terminate(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    body: Bytes,
) -> ApiResult<Response> {
    let (id, reason) = (agreement_id(&id)?, reason(&body)?);
    state.node.markets().act(|market, now| market.terminate(now, id, reason))?;
    Ok(null())
}

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
