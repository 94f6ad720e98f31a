//! Errors of the engines as HTTP statuses, and answers without content.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use gvpn_market::MarketError;
use gvpn_payment::PaymentError;
use serde::Serialize;

use crate::ApiError;

impl From<MarketError> for ApiError {
    fn from(error: MarketError) -> Self {
        let status = match error {
            MarketError::Unknown { .. } => StatusCode::NOT_FOUND,
            MarketError::Constraint(_) | MarketError::Property(_) | MarketError::Invalid(_) => {
                StatusCode::BAD_REQUEST
            }
            MarketError::Gone(_) => StatusCode::GONE,
            MarketError::Conflict(_) => StatusCode::CONFLICT,
            MarketError::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        Self::new(status, error)
    }
}

impl From<PaymentError> for ApiError {
    fn from(error: PaymentError) -> Self {
        let status = match error {
            PaymentError::Unknown { .. } => StatusCode::NOT_FOUND,
            PaymentError::Invalid(_) => StatusCode::BAD_REQUEST,
            PaymentError::Conflict(_) => StatusCode::CONFLICT,
            PaymentError::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        };
        Self::new(status, error)
    }
}

/// 204.
pub(super) fn nothing() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// 201 with a body.
pub(super) fn created<T: Serialize>(body: T) -> Response {
    (StatusCode::CREATED, Json(body)).into_response()
}

/// 200 with the body `null`.
pub(super) fn null() -> Response {
    Json(()).into_response()
}
