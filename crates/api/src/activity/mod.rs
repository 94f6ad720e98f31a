//! The Activity API, as Golem's clients use it.

mod control;
mod events;
mod results;

use axum::{
    Router,
    routing::{get, post},
};
use gvpn_model::{ActivityId, BatchId};

use crate::{ApiError, ApiResult, ApiState};

pub(crate) use control::ActivityDoc;

/// Control and state of activities.
pub(crate) fn router() -> Router<ApiState> {
    Router::new()
        .route("/activity", get(control::list).post(control::create))
        .route("/activity/{id}", axum::routing::delete(control::destroy))
        .route("/activity/{id}/agreement", get(control::agreement))
        .route("/activity/{id}/state", get(control::state))
        .route("/activity/{id}/usage", get(control::usage))
        .route("/activity/{id}/exec", post(control::exec))
        .route("/activity/{id}/exec/{batch}", get(results::results))
}

/// An activity id in a path: a text that is none names nothing.
pub(crate) fn activity_id(text: &str) -> ApiResult<ActivityId> {
    text.parse().map_err(|_| ApiError::not_found(format!("there is no activity `{text}`")))
}

fn batch_id(text: &str) -> ApiResult<BatchId> {
    text.parse().map_err(|_| ApiError::not_found(format!("the activity has no batch `{text}`")))
}
