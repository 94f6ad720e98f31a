//! Files that payloads fetch from this node, or send to it.

use std::path::PathBuf;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ApiJson, ApiResult, ApiState};

/// A local file.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct LocalFile {
    #[schema(value_type = String)]
    path: PathBuf,
}

/// A file's or slot's URL.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct FileUrl {
    url: String,
}

/// Publishes a local file: `{path}`; the answer is `{url}`.
#[utoipa::path(
    post, path = "/files", tag = "files", request_body = LocalFile,
    responses((status = 200, body = FileUrl), (status = 400))
)]
pub(crate) async fn publish(
    State(state): State<ApiState>,
    ApiJson(file): ApiJson<LocalFile>,
) -> ApiResult<Json<FileUrl>> {
    Ok(Json(FileUrl { url: state.node.files().publish(&file.path).await? }))
}

/// Makes a slot that one file can be sent to: `{path}` says where it shall arrive; the answer is `{url}`.
#[utoipa::path(
    post, path = "/files/receive", tag = "files", request_body = LocalFile,
    responses((status = 200, body = FileUrl), (status = 400))
)]
pub(crate) async fn receive(
    State(state): State<ApiState>,
    ApiJson(file): ApiJson<LocalFile>,
) -> ApiResult<Json<FileUrl>> {
    Ok(Json(FileUrl { url: state.node.files().receive(&file.path).await? }))
}

/// Ends a publication or a slot: `{url}`.
#[utoipa::path(
    post, path = "/files/close", tag = "files", request_body = FileUrl, responses((status = 200))
)]
pub(crate) async fn close(
    State(state): State<ApiState>,
    ApiJson(file): ApiJson<FileUrl>,
) -> Json<()> {
    state.node.files().close(&file.url);
    Json(())
}
