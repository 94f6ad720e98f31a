//! Our own endpoints: images that the registry serves.

use std::path::PathBuf;

use axum::{Json, Router, extract::State, routing::get};
use gvpn_node::Image;
use serde::Deserialize;

use crate::{ApiJson, ApiQuery, ApiResult, ApiState};

pub(super) fn router() -> Router<ApiState> {
    Router::new().route("/gvpn/v1/images", get(list).post(import).delete(remove))
}

#[derive(Debug, Deserialize)]
pub(super) struct NewImage {
    path: PathBuf,
    #[serde(default)]
    tag: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ImageName {
    /// Hash or tag.
    name: String,
}

/// Images that this node keeps.
#[utoipa::path(get, path = "/images", tag = "images", responses((status = 200, body = Vec<Object>)))]
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Image>> {
    Json(state.node.images().list())
}

/// Imports an image: `{path, tag?}`.
#[utoipa::path(
    post, path = "/images", tag = "images", request_body = Object,
    responses((status = 200, body = Object), (status = 400))
)]
pub(super) async fn import(
    State(state): State<ApiState>,
    ApiJson(new): ApiJson<NewImage>,
) -> ApiResult<Json<Image>> {
    Ok(Json(state.node.images().import(&new.path, new.tag.as_deref()).await?))
}

/// Removes an image: `?name=` is its hash or a tag.
#[utoipa::path(
    delete, path = "/images", tag = "images", params(("name" = String, Query)),
    responses((status = 200), (status = 404))
)]
pub(super) async fn remove(
    State(state): State<ApiState>,
    ApiQuery(image): ApiQuery<ImageName>,
) -> ApiResult<Json<()>> {
    state.node.images().remove(&image.name).await?;
    Ok(Json(()))
}
