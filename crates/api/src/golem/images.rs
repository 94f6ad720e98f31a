//! Our own endpoints: images that the registry serves.

use std::path::PathBuf;

use axum::{Json, extract::State};
use gvpn_node::Image;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{ApiJson, ApiQuery, ApiResult, ApiState};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(list, import, remove))
}

#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct NewImage {
    #[schema(value_type = String)]
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
#[utoipa::path(get, path = "/images", tag = "images", responses((status = 200, body = Vec<Image>)))]
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Image>> {
    Json(state.node.images().list())
}

/// Imports an image: `{path, tag?}`.
#[utoipa::path(
    post, path = "/images", tag = "images", request_body = NewImage,
    responses((status = 200, body = Image), (status = 400))
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
