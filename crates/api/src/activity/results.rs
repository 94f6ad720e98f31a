//! Results of a batch: cumulative with a long-poll, or as a stream of events.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, header::ACCEPT},
    response::{IntoResponse, Response},
};
use chrono::SecondsFormat;
use gvpn_model::{BatchEvent, CommandResult};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{activity_id, batch_id, events};
use crate::{ApiPath, ApiQuery, ApiResult, ApiState, error::Fault};

/// How long a request waits when it does not say.
const WAIT: f64 = 5.0;
/// How long it may wait at most.
const WAIT_MAX: f64 = 300.0;

/// What to wait for.
#[derive(Debug, Deserialize)]
pub(super) struct Wait {
    timeout: Option<f64>,
    #[serde(alias = "command_index", rename = "commandIndex")]
    command_index: Option<u32>,
}

/// How a command ended.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResultRow {
    /// Position in the script.
    index: u32,
    /// When it ended.
    event_date: String,
    /// How it ended.
    result: gvpn_model::ResultKind,
    /// Captured standard output.
    stdout: Option<String>,
    /// Captured standard error.
    stderr: Option<String>,
    /// What to tell the user.
    message: Option<String>,
    /// Whether no further result will come.
    is_batch_finished: bool,
}

impl From<CommandResult> for ResultRow {
    fn from(result: CommandResult) -> Self {
        Self {
            index: result.index,
            event_date: result.event_date.to_rfc3339_opts(SecondsFormat::Micros, true),
            result: result.result,
            stdout: result.stdout,
            stderr: result.stderr,
            message: result.message,
            is_batch_finished: result.is_batch_finished,
        }
    }
}

/// Results from index 0 on: when the batch has finished, or has a result at `commandIndex`, or
/// `timeout` seconds have passed. With `Accept: text/event-stream`, its events from the first.
#[utoipa::path(
    get, path = "/activity/{id}/exec/{batch}", tag = "activity",
    params(
        ("id" = String, Path), ("batch" = String, Path), ("timeout" = Option<f64>, Query),
        ("commandIndex" = Option<u32>, Query)
    ),
    responses(
        (status = 200, content((Vec<ResultRow> = "application/json"), (BatchEvent = "text/event-stream"))),
        (status = 404, body = Fault)
    )
)]
pub(super) async fn results(
    State(state): State<ApiState>,
    ApiPath((id, batch)): ApiPath<(String, String)>,
    ApiQuery(wait): ApiQuery<Wait>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let (id, batch) = (activity_id(&id)?, batch_id(&batch)?);
    let activities = state.node.activities();
    if wants_events(&headers) {
        return Ok(events::stream(activities.events(id, batch)?));
    }
    let limit = wait.timeout.filter(|t| t.is_finite()).unwrap_or(WAIT).clamp(0.0, WAIT_MAX);
    let waited = activities.wait(id, batch, wait.command_index);
    let results = match tokio::time::timeout(Duration::from_secs_f64(limit), waited).await {
        Ok(results) => results?,
        Err(_) => activities.results(id, batch)?,
    };
    let rows: Vec<_> = results.results.into_iter().map(ResultRow::from).collect();
    Ok(Json(rows).into_response())
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|value| value.contains("text/event-stream"))
}
