//! Payment API: allocations, debit notes, invoices, payments.

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
    routing::{get, post},
};
use gvpn_payment::{
    Acceptance, Allocation, AllocationUpdate, Contract, Document, DocumentEvent, EventFilter,
    KNOWN_PLATFORMS, Kind, MarketDecoration, NewAllocation, NewDebitNote, NewInvoice, Payment,
    Rejection, platform,
};
use serde_json::{Value, json};

use super::{
    answer::{created, null},
    query::{EventQuery, ListQuery},
};
use crate::{ApiError, ApiJson, ApiPath, ApiQuery, ApiResult, ApiState};

/// Events in one answer when the client does not say.
const EVENTS: usize = 100;

pub(super) fn router() -> Router<ApiState> {
    Router::new()
        .route("/requestorAccounts", get(requestor_accounts))
        .route("/providerAccounts", get(provider_accounts))
        .route("/allocations", get(allocations).post(allocate))
        .route("/allocations/{id}", get(allocation).put(amend).delete(release))
        .route("/demandDecorations", get(decorations))
        .route("/payments", get(payments))
        .route("/payments/status", get(driver_status))
        .route("/payments/{id}", get(payment))
        .route("/debitNotes", get(debit_notes).post(write_debit_note))
        .route("/invoices", get(invoices).post(write_invoice))
        .route("/debitNoteEvents", get(debit_note_events))
        .route("/invoiceEvents", get(invoice_events))
        .nest("/debitNotes", document_routes(Kind::DebitNote))
        .nest("/invoices", document_routes(Kind::Invoice))
}

/// What can be done with one document is the same for both kinds.
fn document_routes(kind: Kind) -> Router<ApiState> {
    let show = move |State(state): State<ApiState>, ApiPath(id): ApiPath<String>| async move {
        let found = state.node.payments().look(|ledger| ledger.document(kind, &id).cloned())?;
        Ok::<_, ApiError>(Json(plain(&found)))
    };
    let paid = move |State(state): State<ApiState>, ApiPath(id): ApiPath<String>| async move {
        let found = state.node.payments().look(|ledger| ledger.payments_for(kind, &id))?;
        Ok::<_, ApiError>(Json(found))
    };
    let send = move |State(state): State<ApiState>, ApiPath(id): ApiPath<String>| async move {
        state.node.payments().act(|ledger, _| ledger.send(kind, &id))?;
        Ok::<_, ApiError>(null())
    };
    let cancel = move |State(state): State<ApiState>, ApiPath(id): ApiPath<String>| async move {
        state.node.payments().act(|ledger, now| ledger.cancel(now, kind, &id))?;
        Ok::<_, ApiError>(null())
    };
    let accept = move |State(state): State<ApiState>,
                       ApiPath(id): ApiPath<String>,
                       ApiJson(acceptance): ApiJson<Acceptance>| async move {
        state.node.payments().act(|ledger, now| ledger.accept(now, kind, &id, &acceptance))?;
        Ok::<_, ApiError>(null())
    };
    let reject = move |State(state): State<ApiState>,
                       ApiPath(id): ApiPath<String>,
                       ApiJson(rejection): ApiJson<Rejection>| async move {
        state.node.payments().act(|ledger, now| ledger.reject(now, kind, &id, rejection))?;
        Ok::<_, ApiError>(null())
    };
    Router::new()
        .route("/{id}", get(show))
        .route("/{id}/payments", get(paid))
        .route("/{id}/send", post(send))
        .route("/{id}/cancel", post(cancel))
        .route("/{id}/accept", post(accept))
        .route("/{id}/reject", post(reject))
}

async fn requestor_accounts(State(state): State<ApiState>) -> Json<Vec<Value>> {
    Json(accounts(&state, true, false))
}

async fn provider_accounts(State(state): State<ApiState>) -> Json<Vec<Value>> {
    Json(accounts(&state, false, true))
}

fn accounts(state: &ApiState, send: bool, receive: bool) -> Vec<Value> {
    let address = state.node.id().to_string();
    KNOWN_PLATFORMS
        .iter()
        .map(|name| {
            let (driver, network, token) = platform::split(name);
            json!({
                "platform": name, "address": address, "driver": driver, "network": network,
                "token": token, "send": send, "receive": receive,
            })
        })
        .collect()
}

async fn allocate(
    State(state): State<ApiState>,
    ApiJson(new): ApiJson<NewAllocation>,
) -> ApiResult<Response> {
    Ok(created(state.node.payments().act(|ledger, now| ledger.allocate(now, new))?))
}

async fn allocations(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Json<Vec<Allocation>> {
    Json(
        state
            .node
            .payments()
            .act(|ledger, now| ledger.allocations(now, query.after_timestamp, query.max())),
    )
}

async fn allocation(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Allocation>> {
    Ok(Json(state.node.payments().act(|ledger, now| ledger.allocation(now, &id))?))
}

async fn amend(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(update): ApiJson<AllocationUpdate>,
) -> ApiResult<Json<Allocation>> {
    let amended =
        state.node.payments().act(|ledger, now| ledger.amend_allocation(now, &id, update))?;
    Ok(Json(amended))
}

async fn release(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Response> {
    state.node.payments().act(|ledger, now| ledger.release_allocation(now, &id))?;
    Ok(null())
}

/// `allocationIds` names several with commas, or comes several times.
async fn decorations(
    State(state): State<ApiState>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<MarketDecoration>> {
    let query = query.unwrap_or_default().replace("%2C", ",").replace("%2c", ",");
    let ids: Vec<&str> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(name, _)| matches!(*name, "allocationIds" | "allocationIds[]"))
        .flat_map(|(_, value)| value.split(','))
        .filter(|id| !id.is_empty())
        .collect();
    Ok(Json(state.node.payments().act(|ledger, now| ledger.demand_decorations(now, &ids))?))
}

async fn payments(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<EventQuery>,
) -> Json<Vec<Payment>> {
    let (after, max) = (query.after_timestamp, query.max(EVENTS));
    let found = state
        .node
        .payments()
        .poll(query.patience(), |ledger, now, deadline| ledger.payments(now, after, max, deadline));
    Json(found.await)
}

async fn payment(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Payment>> {
    Ok(Json(state.node.payments().look(|ledger| ledger.payment(&id))?))
}

/// Nothing is in the way of a driver that does nothing.
async fn driver_status() -> Json<Vec<Value>> {
    Json(Vec::new())
}

async fn debit_notes(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Json<Vec<Value>> {
    Json(documents(&state, Kind::DebitNote, &query))
}

async fn invoices(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Json<Vec<Value>> {
    Json(documents(&state, Kind::Invoice, &query))
}

fn documents(state: &ApiState, kind: Kind, query: &ListQuery) -> Vec<Value> {
    let found = state
        .node
        .payments()
        .look(|ledger| ledger.documents(kind, query.after_timestamp, query.max()));
    found.iter().map(plain).collect()
}

async fn write_debit_note(
    State(state): State<ApiState>,
    ApiJson(new): ApiJson<NewDebitNote>,
) -> ApiResult<Response> {
    let activity = new.activity_id.parse().map_err(ApiError::not_found)?;
    let agreement = state.node.activities().get(activity)?.agreement.to_string();
    let contract = contract(&state, &agreement)?;
    let note =
        state.node.payments().act(|ledger, now| ledger.write_debit_note(now, &contract, new))?;
    Ok(created(note))
}

async fn write_invoice(
    State(state): State<ApiState>,
    ApiJson(new): ApiJson<NewInvoice>,
) -> ApiResult<Response> {
    let contract = contract(&state, &new.agreement_id)?;
    let invoice =
        state.node.payments().act(|ledger, now| ledger.write_invoice(now, &contract, new))?;
    Ok(created(invoice))
}

fn contract(state: &ApiState, agreement: &str) -> ApiResult<Contract> {
    let found = state.node.payments().contract(agreement);
    found.ok_or_else(|| ApiError::not_found(format!("agreement `{agreement}` does not exist")))
}

async fn debit_note_events(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<EventQuery>,
    headers: HeaderMap,
) -> Json<Vec<DocumentEvent>> {
    Json(events(&state, Kind::DebitNote, &query, &headers).await)
}

async fn invoice_events(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<EventQuery>,
    headers: HeaderMap,
) -> Json<Vec<DocumentEvent>> {
    Json(events(&state, Kind::Invoice, &query, &headers).await)
}

async fn events(
    state: &ApiState,
    kind: Kind,
    query: &EventQuery,
    headers: &HeaderMap,
) -> Vec<DocumentEvent> {
    let filter = EventFilter {
        after: query.after_timestamp,
        max: query.max(EVENTS),
        session: query.session(),
        payer: types(headers, "x-requestor-events"),
        payee: types(headers, "x-provider-events"),
    };
    let poll =
        |ledger: &gvpn_payment::Ledger, now, deadline| ledger.events(now, kind, &filter, deadline);
    state.node.payments().poll(query.patience(), poll).await
}

/// Event types that a client names in a header.
fn types(headers: &HeaderMap, name: &str) -> Option<Vec<String>> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.split(',').map(|t| t.trim().to_owned()).collect())
}

/// The document without the name of its kind around it.
fn plain(document: &Document) -> Value {
    let json = match document {
        Document::DebitNote(d) => serde_json::to_value(d),
        Document::Invoice(d) => serde_json::to_value(d),
    };
    json.unwrap_or_default()
}
