//! An image registry as Golem's clients ask one: `GOLEM_REGISTRY_URL=http://HOST:PORT/registry`.

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use gvpn_node::Image;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{ApiError, ApiPath, ApiQuery, ApiResult, ApiState};

pub(super) fn router() -> Router<ApiState> {
    Router::new().route("/v1/image/info", get(info)).route("/download/{sha3}", get(download))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Query {
    hash: Option<String>,
    tag: Option<String>,
}

async fn info(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<Query>,
    headers: HeaderMap,
) -> ApiResult<Json<Value>> {
    let images = state.node.images();
    let (name, image) = match (&query.hash, &query.tag) {
        (Some(hash), None) => (hash, images.by_hash(hash)),
        (None, Some(tag)) => (tag, images.by_tag(tag)),
        _ => return Err(ApiError::bad_request("give either `hash` or `tag`")),
    };
    let image = image.ok_or_else(|| {
        ApiError::not_found(format!(
            "this registry has no image `{name}`: import it with `gvpn image import FILE --tag TAG`"
        ))
    })?;
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("127.0.0.1");
    let url = |scheme: &str| format!("{scheme}://{host}/registry/download/{}", image.sha3);
    Ok(Json(json!({
        "http": url("http"),
        "https": url("https"),
        "sha3": image.sha3,
        "size": image.size,
    })))
}

/// GET and HEAD: the router answers HEAD without the body.
async fn download(
    State(state): State<ApiState>,
    ApiPath(sha3): ApiPath<String>,
) -> ApiResult<Response> {
    let images = state.node.images();
    let image: Image = images
        .by_hash(&sha3)
        .ok_or_else(|| ApiError::not_found(format!("this registry has no image `{sha3}`")))?;
    let file = tokio::fs::File::open(images.path(&image)).await.map_err(|e| {
        let message = format!("the image's file cannot be read: {e}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    let body = Body::from_stream(tokio_util::io::ReaderStream::with_capacity(file, 256 << 10));
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, image.size.to_string()),
    ];
    Ok((headers, body).into_response())
}
