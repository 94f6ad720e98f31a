//! App keys.

use axum::{Json, extract::State};
use gvpn_node::AppKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ApiJson, ApiPath, ApiResult, ApiState};

/// A key to be.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct NewKey {
    name: String,
}

/// A key, shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeKey {
    name: String,
    key: String,
}

/// The app keys, without their texts.
#[utoipa::path(get, path = "/keys", tag = "keys", responses((status = 200, body = Vec<AppKey>)))]
pub(crate) async fn list(State(state): State<ApiState>) -> ApiResult<Json<Vec<AppKey>>> {
    Ok(Json(state.node.keys().list()?))
}

/// Makes an app key: `{name}`; the answer `{name, key}` shows its text this once.
#[utoipa::path(
    post, path = "/keys", tag = "keys", request_body = NewKey,
    responses((status = 200, body = MadeKey), (status = 400), (status = 409))
)]
pub(crate) async fn create(
    State(state): State<ApiState>,
    ApiJson(new): ApiJson<NewKey>,
) -> ApiResult<Json<MadeKey>> {
    let key = state.node.keys().create(&new.name)?;
    Ok(Json(MadeKey { name: new.name, key }))
}

/// Removes an app key.
#[utoipa::path(
    delete, path = "/keys/{name}", tag = "keys", params(("name" = String, Path)),
    responses((status = 200), (status = 404))
)]
pub(crate) async fn remove(
    State(state): State<ApiState>,
    ApiPath(name): ApiPath<String>,
) -> ApiResult<Json<()>> {
    state.node.keys().remove(&name)?;
    Ok(Json(()))
}
