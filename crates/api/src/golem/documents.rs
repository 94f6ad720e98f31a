//! Payment API: what can be done with one debit note or one invoice, the same for both.

use axum::{Json, extract::State, response::Response};
use gvpn_payment::{Acceptance, DebitNote, Document, Invoice, Kind, Payment, Rejection};
use serde_json::Value;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::answer::null;
use crate::{ApiJson, ApiPath, ApiResult, ApiState};

macro_rules! document_api {
    ($(#[$doc:meta])* $module:ident, $kind:expr, $document:ident) => {
        $(#[$doc])*
        pub(super) mod $module {
            use super::*;

            /// The routes below the kind's own.
            pub(in crate::golem) fn router() -> OpenApiRouter<ApiState> {
                OpenApiRouter::new()
                    .routes(routes!(show))
                    .routes(routes!(paid))
                    .routes(routes!(send))
                    .routes(routes!(cancel))
                    .routes(routes!(accept))
                    .routes(routes!(reject))
            }

            /// One document.
            #[utoipa::path(
                get, path = "/{id}", tag = "payment", params(("id" = String, Path)),
                responses((status = 200, body = $document), (status = 404))
            )]
            async fn show(
                State(state): State<ApiState>,
                ApiPath(id): ApiPath<String>,
            ) -> ApiResult<Json<Value>> {
                let payments = state.node.payments();
                let found = payments.look(|ledger| ledger.document($kind, &id).cloned())?;
                Ok(Json(plain(&found)))
            }

            /// What was paid for it.
            #[utoipa::path(
                get, path = "/{id}/payments", tag = "payment", params(("id" = String, Path)),
                responses((status = 200, body = Vec<Payment>), (status = 404))
            )]
            async fn paid(
                State(state): State<ApiState>,
                ApiPath(id): ApiPath<String>,
            ) -> ApiResult<Json<Vec<Payment>>> {
                let payments = state.node.payments();
                Ok(Json(payments.look(|ledger| ledger.payments_for($kind, &id))?))
            }

            /// The issuer sends it.
            #[utoipa::path(
                post, path = "/{id}/send", tag = "payment", params(("id" = String, Path)),
                responses((status = 200), (status = 404), (status = 409))
            )]
            async fn send(
                State(state): State<ApiState>,
                ApiPath(id): ApiPath<String>,
            ) -> ApiResult<Response> {
                state.node.payments().act(|ledger, _| ledger.send($kind, &id))?;
                Ok(null())
            }

            /// The issuer takes it back.
            #[utoipa::path(
                post, path = "/{id}/cancel", tag = "payment", params(("id" = String, Path)),
                responses((status = 200), (status = 404), (status = 409))
            )]
            async fn cancel(
                State(state): State<ApiState>,
                ApiPath(id): ApiPath<String>,
            ) -> ApiResult<Response> {
                state.node.payments().act(|ledger, now| ledger.cancel(now, $kind, &id))?;
                Ok(null())
            }

            /// The recipient agrees to pay it.
            #[utoipa::path(
                post, path = "/{id}/accept", tag = "payment", params(("id" = String, Path)),
                request_body = Acceptance,
                responses((status = 200), (status = 400), (status = 404), (status = 409))
            )]
            async fn accept(
                State(state): State<ApiState>,
                ApiPath(id): ApiPath<String>,
                ApiJson(acceptance): ApiJson<Acceptance>,
            ) -> ApiResult<Response> {
                let payments = state.node.payments();
                payments.act(|ledger, now| ledger.accept(now, $kind, &id, &acceptance))?;
                Ok(null())
            }

            /// The recipient refuses to pay it.
            #[utoipa::path(
                post, path = "/{id}/reject", tag = "payment", params(("id" = String, Path)),
                request_body = Rejection,
                responses((status = 200), (status = 400), (status = 404), (status = 409))
            )]
            async fn reject(
                State(state): State<ApiState>,
                ApiPath(id): ApiPath<String>,
                ApiJson(rejection): ApiJson<Rejection>,
            ) -> ApiResult<Response> {
                let payments = state.node.payments();
                payments.act(|ledger, now| ledger.reject(now, $kind, &id, rejection))?;
                Ok(null())
            }
        }
    };
}

document_api!(
    /// One debit note.
    debit_note, Kind::DebitNote, DebitNote
);
document_api!(
    /// One invoice.
    invoice, Kind::Invoice, Invoice
);

/// The document without the name of its kind around it.
pub(super) fn plain(document: &Document) -> Value {
    let json = match document {
        Document::DebitNote(d) => serde_json::to_value(d),
        Document::Invoice(d) => serde_json::to_value(d),
    };
    json.unwrap_or_default()
}
