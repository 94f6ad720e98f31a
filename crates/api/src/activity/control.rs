//! Creating, driving and ending activities.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use gvpn_model::{ActivityState, AgreementId, ExeCommand};
use gvpn_node::{ActivitySpec, Usage};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::activity_id;
use crate::{ApiError, ApiJson, ApiPath, ApiResult, ApiState, error::Fault};

/// An agreement's id, alone or in an object; the answer has the same form.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(super) enum NewActivity {
    /// The agreement's id.
    Bare(String),
    /// An object.
    #[serde(rename_all = "camelCase")]
    Object {
        /// The agreement's id.
        agreement_id: String,
    },
}

/// The activity's id.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreatedActivity {
    activity_id: String,
}

/// An ExeScript.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct Script {
    /// A JSON array of commands, as a text.
    #[schema(example = "[{\"deploy\": {}}, {\"start\": {}}]")]
    text: String,
}

/// Where an activity is in its life.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct StateAnswer {
    /// Present state and, during a change, the next.
    #[schema(example = json!(["Ready", null]))]
    state: (ActivityState, Option<ActivityState>),
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A command that is running.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CommandState {
    /// Its name, such as `run`.
    command: &'static str,
    /// Its parameters, where it has some.
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Vec<String>>,
}

impl From<ExeCommand> for CommandState {
    fn from(command: ExeCommand) -> Self {
        let (command, params) = match command {
            ExeCommand::Sign {} => ("sign", None),
            ExeCommand::Deploy(_) => ("deploy", None),
            ExeCommand::Start(start) => ("start", Some(start.args)),
            ExeCommand::Run(run) => {
                ("run", Some(std::iter::once(run.entry_point).chain(run.args).collect()))
            }
            ExeCommand::Transfer(transfer) => ("transfer", Some(vec![transfer.from, transfer.to])),
            ExeCommand::Terminate {} => ("terminate", None),
        };
        Self { command, params }
    }
}

/// What an activity has used.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ActivityUsage {
    /// In the order of the agreement's usage vector.
    current_usage: Vec<f64>,
    /// Seconds since 1970.
    timestamp: i64,
    /// Everything that is counted, by name.
    counters: BTreeMap<String, f64>,
}

/// Ids of activities that this node runs for others.
#[utoipa::path(
    get, path = "/activity", tag = "activity", responses((status = 200, body = Vec<String>))
)]
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<String>> {
    let hosted = state.node.activities().hosted();
    Json(hosted.iter().filter(|a| !a.is_over()).map(|a| a.id.to_string()).collect())
}

/// Asks the agreement's provider for an activity.
#[utoipa::path(
    post, path = "/activity", tag = "activity", request_body = NewActivity,
    responses(
        (status = 200, body = CreatedActivity), (status = 403, body = Fault),
        (status = 404, body = Fault), (status = 410, body = Fault), (status = 504, body = Fault)
    )
)]
pub(super) async fn create(
    State(state): State<ApiState>,
    ApiJson(new): ApiJson<NewActivity>,
) -> ApiResult<Response> {
    let (text, bare) = match &new {
        NewActivity::Bare(text) => (text, true),
        NewActivity::Object { agreement_id } => (agreement_id, false),
    };
    let agreement: AgreementId = text
        .trim()
        .parse()
        .map_err(|_| ApiError::not_found(format!("there is no agreement `{text}`")))?;
    let info = state.node.activities().create(agreement, ActivitySpec::default()).await?;
    let activity_id = info.id.to_string();
    Ok(if bare {
        Json(activity_id).into_response()
    } else {
        Json(CreatedActivity { activity_id }).into_response()
    })
}

/// Ends an activity.
#[utoipa::path(
    delete, path = "/activity/{id}", tag = "activity", params(("id" = String, Path)),
    responses((status = 200), (status = 404, body = Fault))
)]
pub(super) async fn destroy(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<()>> {
    state.node.activities().destroy(activity_id(&id)?).await?;
    Ok(Json(()))
}

/// The agreement it runs under.
#[utoipa::path(
    get, path = "/activity/{id}/agreement", tag = "activity", params(("id" = String, Path)),
    responses((status = 200, body = String, content_type = "application/json"), (status = 404, body = Fault))
)]
pub(super) async fn agreement(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<String>> {
    Ok(Json(state.node.activities().get(activity_id(&id)?)?.agreement.to_string()))
}

/// Where it is in its life.
#[utoipa::path(
    get, path = "/activity/{id}/state", tag = "activity", params(("id" = String, Path)),
    responses((status = 200, body = StateAnswer), (status = 404, body = Fault))
)]
pub(super) async fn state(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<StateAnswer>> {
    let info = state.node.activities().get(activity_id(&id)?)?;
    Ok(Json(StateAnswer { state: info.state, reason: info.reason }))
}

/// The command that runs; 404 while none does. Its parameters are those of `run` (program and
/// arguments) and `transfer` (source and destination).
#[utoipa::path(
    get, path = "/activity/{id}/command", tag = "activity", params(("id" = String, Path)),
    responses((status = 200, body = CommandState), (status = 404, body = Fault))
)]
pub(super) async fn command(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<CommandState>> {
    let running = state.node.activities().running(activity_id(&id)?)?;
    let running = running.ok_or_else(|| ApiError::not_found("no command is running"))?;
    Ok(Json(running.into()))
}

/// What it has used.
#[utoipa::path(
    get, path = "/activity/{id}/usage", tag = "activity", params(("id" = String, Path)),
    responses((status = 200, body = ActivityUsage), (status = 404, body = Fault))
)]
pub(super) async fn usage(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<ActivityUsage>> {
    let usage = state.node.activities().usage(activity_id(&id)?).await?;
    let Usage { current_usage, timestamp, counters } = usage;
    Ok(Json(ActivityUsage { current_usage, timestamp, counters }))
}

/// Runs an ExeScript; the answer is its batch's id.
#[utoipa::path(
    post, path = "/activity/{id}/exec", tag = "activity", params(("id" = String, Path)),
    request_body = Script,
    responses(
        (status = 200, body = String, content_type = "application/json"), (status = 400, body = Fault), (status = 404, body = Fault),
        (status = 410, body = Fault), (status = 504, body = Fault)
    )
)]
pub(super) async fn exec(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(script): ApiJson<Script>,
) -> ApiResult<Response> {
    let id = activity_id(&id)?;
    state.node.activities().get(id)?;
    let script = ExeCommand::parse_script(&script.text).map_err(ApiError::bad_request)?;
    let batch = state.node.activities().exec(id, script).await?;
    Ok(Json(json!(batch.to_string())).into_response())
}
