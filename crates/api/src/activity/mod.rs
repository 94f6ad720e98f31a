//! The Activity API, as Golem's clients use it.

mod control;
mod events;
mod results;

use gvpn_model::{ActivityId, BatchId};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{ApiError, ApiResult, ApiState};

/// Control and state of activities.
pub(crate) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(control::list, control::create))
        .routes(routes!(control::destroy))
        .routes(routes!(control::agreement))
        .routes(routes!(control::state))
        .routes(routes!(control::command))
        .routes(routes!(control::usage))
        .routes(routes!(control::exec))
        .routes(routes!(results::results))
}

/// An activity id in a path: a text that is none names nothing.
pub(crate) fn activity_id(text: &str) -> ApiResult<ActivityId> {
    text.parse().map_err(|_| ApiError::not_found(format!("there is no activity `{text}`")))
}

fn batch_id(text: &str) -> ApiResult<BatchId> {
    text.parse().map_err(|_| ApiError::not_found(format!("the activity has no batch `{text}`")))
}
