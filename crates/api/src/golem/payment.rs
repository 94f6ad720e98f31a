//! Payment API: allocations, debit notes, invoices, payments.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
};
use gvpn_payment::{
    Allocation, AllocationUpdate, Contract, DebitNote, DocumentEvent, EventFilter, Invoice,
    KNOWN_PLATFORMS, Kind, MarketDecoration, NewAllocation, NewDebitNote, NewInvoice, Payment,
    platform,
};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    answer::{created, null},
    documents::{self, plain},
    query::{EventQuery, ListQuery},
};
use crate::{ApiError, ApiJson, ApiPath, ApiQuery, ApiResult, ApiState};

/// Events in one answer when the client does not say.
const EVENTS: usize = 100;

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(requestor_accounts))
        .routes(routes!(provider_accounts))
        .routes(routes!(allocations, allocate))
        .routes(routes!(allocation, amend, release))
        .routes(routes!(decorations))
        .routes(routes!(payments))
        .routes(routes!(driver_status))
        .routes(routes!(payment))
        .routes(routes!(debit_notes, write_debit_note))
        .routes(routes!(invoices, write_invoice))
        .routes(routes!(debit_note_events))
        .routes(routes!(invoice_events))
        .nest("/debitNotes", documents::debit_note::router())
        .nest("/invoices", documents::invoice::router())
}

/// An account on one payment platform.
#[derive(Debug, Serialize, ToSchema)]
struct Account {
    /// The platform, such as `erc20-holesky-tglm`.
    platform: &'static str,
    address: String,
    driver: &'static str,
    network: &'static str,
    token: &'static str,
    /// Whether it pays.
    send: bool,
    /// Whether it is paid to.
    receive: bool,
}

/// Accounts that this node pays from.
#[utoipa::path(
    get, path = "/requestorAccounts", tag = "payment",
    responses((status = 200, body = Vec<Account>))
)]
async fn requestor_accounts(State(state): State<ApiState>) -> Json<Vec<Account>> {
    Json(accounts(&state, true, false))
}

/// Accounts that this node is paid to.
#[utoipa::path(
    get, path = "/providerAccounts", tag = "payment",
    responses((status = 200, body = Vec<Account>))
)]
async fn provider_accounts(State(state): State<ApiState>) -> Json<Vec<Account>> {
    Json(accounts(&state, false, true))
}

fn accounts(state: &ApiState, send: bool, receive: bool) -> Vec<Account> {
    let address = state.node.id().to_string();
    KNOWN_PLATFORMS
        .iter()
        .map(|name| {
            let (driver, network, token) = platform::split(name);
            Account {
                platform: name,
                address: address.clone(),
                driver,
                network,
                token,
                send,
                receive,
            }
        })
        .collect()
}

/// Puts money aside.
#[utoipa::path(
    post, path = "/allocations", tag = "payment", request_body = NewAllocation,
    responses((status = 201, body = Allocation), (status = 400))
)]
async fn allocate(
    State(state): State<ApiState>,
    ApiJson(new): ApiJson<NewAllocation>,
) -> ApiResult<Response> {
    Ok(created(state.node.payments().act(|ledger, now| ledger.allocate(now, new))?))
}

/// What is put aside.
#[utoipa::path(
    get, path = "/allocations", tag = "payment", params(ListQuery),
    responses((status = 200, body = Vec<Allocation>))
)]
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

/// One allocation.
#[utoipa::path(
    get, path = "/allocations/{id}", tag = "payment", params(("id" = String, Path)),
    responses((status = 200, body = Allocation), (status = 404))
)]
async fn allocation(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Allocation>> {
    Ok(Json(state.node.payments().act(|ledger, now| ledger.allocation(now, &id))?))
}

/// Changes an allocation.
#[utoipa::path(
    put, path = "/allocations/{id}", tag = "payment", params(("id" = String, Path)),
    request_body = AllocationUpdate,
    responses((status = 200, body = Allocation), (status = 400), (status = 404))
)]
async fn amend(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(update): ApiJson<AllocationUpdate>,
) -> ApiResult<Json<Allocation>> {
    let amended =
        state.node.payments().act(|ledger, now| ledger.amend_allocation(now, &id, update))?;
    Ok(Json(amended))
}

/// Gives up what is left of an allocation.
#[utoipa::path(
    delete, path = "/allocations/{id}", tag = "payment", params(("id" = String, Path)),
    responses((status = 200), (status = 404))
)]
async fn release(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Response> {
    state.node.payments().act(|ledger, now| ledger.release_allocation(now, &id))?;
    Ok(null())
}

/// What a demand that is paid out of these allocations has to say.
///
/// `allocationIds` names several with commas, or comes several times.
#[utoipa::path(
    get, path = "/demandDecorations", tag = "payment",
    params(("allocationIds" = Vec<String>, Query)),
    responses((status = 200, body = MarketDecoration), (status = 404))
)]
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

/// Payments; waits for one when there is none.
#[utoipa::path(
    get, path = "/payments", tag = "payment", params(EventQuery),
    responses((status = 200, body = Vec<Payment>))
)]
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

/// One payment.
#[utoipa::path(
    get, path = "/payments/{id}", tag = "payment", params(("id" = String, Path)),
    responses((status = 200, body = Payment), (status = 404))
)]
async fn payment(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Payment>> {
    Ok(Json(state.node.payments().look(|ledger| ledger.payment(&id))?))
}

/// What is in the way of the payment driver.
///
/// Nothing is in the way of a driver that does nothing.
#[utoipa::path(
    get, path = "/payments/status", tag = "payment", responses((status = 200, body = Vec<Object>))
)]
async fn driver_status() -> Json<Vec<Value>> {
    Json(Vec::new())
}

/// Debit notes.
#[utoipa::path(
    get, path = "/debitNotes", tag = "payment", params(ListQuery),
    responses((status = 200, body = Vec<DebitNote>))
)]
async fn debit_notes(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<ListQuery>,
) -> Json<Vec<Value>> {
    Json(documents(&state, Kind::DebitNote, &query))
}

/// Invoices.
#[utoipa::path(
    get, path = "/invoices", tag = "payment", params(ListQuery),
    responses((status = 200, body = Vec<Invoice>))
)]
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

/// Writes a debit note.
#[utoipa::path(
    post, path = "/debitNotes", tag = "payment", request_body = NewDebitNote,
    responses((status = 201, body = DebitNote), (status = 400), (status = 404))
)]
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

/// Writes an invoice.
#[utoipa::path(
    post, path = "/invoices", tag = "payment", request_body = NewInvoice,
    responses((status = 201, body = Invoice), (status = 400), (status = 404))
)]
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

/// What happened to debit notes; waits for something when there is nothing.
#[utoipa::path(
    get, path = "/debitNoteEvents", tag = "payment", params(EventQuery),
    responses((status = 200, body = Vec<DocumentEvent>))
)]
async fn debit_note_events(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<EventQuery>,
    headers: HeaderMap,
) -> Json<Vec<DocumentEvent>> {
    Json(events(&state, Kind::DebitNote, &query, &headers).await)
}

/// What happened to invoices; waits for something when there is nothing.
#[utoipa::path(
    get, path = "/invoiceEvents", tag = "payment", params(EventQuery),
    responses((status = 200, body = Vec<DocumentEvent>))
)]
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
