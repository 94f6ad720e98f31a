//! What may be sent in a network, and what would become of a packet.

use axum::{Json, extract::State};
use gvpn_node::{RuleRow, proto::TraceReply};
use gvpn_roster::Rule;
use gvpn_switch::trace::Question;
use serde::Deserialize;
use utoipa::ToSchema;

use super::wait::Wait;
use crate::{ApiError, ApiJson, ApiPath, ApiQuery, ApiResult, ApiState, net::network_id};

/// A rule to add.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewRule {
    #[serde(flatten)]
    rule: Rule,
    /// Its place among the rules; after all when missing.
    at: Option<usize>,
}

/// The rules of the policy in order, with how often each decided: the sum of all members' nodes but
/// those that do not say so in time (`silent`).
#[utoipa::path(
    get, path = "/net/{id}/rules", tag = "policy", params(("id" = String, Path)),
    responses((status = 200, body = Vec<RuleRow>), (status = 404))
)]
pub(crate) async fn rules(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
) -> ApiResult<Json<Vec<RuleRow>>> {
    Ok(Json(state.node.networks().rules(network_id(&id)?).await?))
}

/// Adds a rule: `{action, from?, to?, protocol?, ports?, at?}`. The first rule that matches decides.
#[utoipa::path(
    post, path = "/net/{id}/rules", tag = "policy",
    params(("id" = String, Path), ("wait" = Option<f64>, Query)), request_body = NewRule,
    responses((status = 200, body = Rule), (status = 400), (status = 404))
)]
pub(crate) async fn add_rule(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiQuery(wait): ApiQuery<Wait>,
    ApiJson(new): ApiJson<NewRule>,
) -> ApiResult<Json<Rule>> {
    let id = network_id(&id)?;
    let rule = state.node.networks().add_rule(id, new.rule, new.at).await?;
    wait.settle(&state, id).await?;
    Ok(Json(rule))
}

/// Removes a rule.
#[utoipa::path(
    delete, path = "/net/{id}/rules/{rule}", tag = "policy",
    params(("id" = String, Path), ("rule" = u32, Path), ("wait" = Option<f64>, Query)),
    responses((status = 200), (status = 404))
)]
pub(crate) async fn remove_rule(
    State(state): State<ApiState>,
    ApiPath((id, rule)): ApiPath<(String, String)>,
    ApiQuery(wait): ApiQuery<Wait>,
) -> ApiResult<Json<()>> {
    let id = network_id(&id)?;
    let number = rule.parse();
    let rule = number.map_err(|_| ApiError::not_found(format!("`{rule}` is no rule's number")))?;
    state.node.networks().remove_rule(id, rule).await?;
    wait.settle(&state, id).await?;
    Ok(Json(()))
}

/// What would happen to a packet, and why: `{source, destination, protocol?, port?}`.
#[utoipa::path(
    post, path = "/net/{id}/trace", tag = "policy", params(("id" = String, Path)),
    request_body = Question, responses((status = 200, body = TraceReply), (status = 404))
)]
pub(crate) async fn trace(
    State(state): State<ApiState>,
    ApiPath(id): ApiPath<String>,
    ApiJson(question): ApiJson<Question>,
) -> ApiResult<Json<TraceReply>> {
    Ok(Json(state.node.networks().trace(network_id(&id)?, question).await?))
}
