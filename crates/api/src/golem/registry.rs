//! An image registry as Golem's clients ask one: `GOLEM_REGISTRY_URL=http://HOST:PORT/registry`.

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use gvpn_node::Image;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{ApiError, ApiPath, ApiQuery, ApiResult, ApiState};

pub(super) fn router() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(info)).routes(routes!(download))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(default)]
#[into_params(parameter_in = Query)]
struct Query {
    hash: Option<String>,
    tag: Option<String>,
}

/// An image as the registry describes it.
#[derive(Debug, Serialize, ToSchema)]
struct ImageInfo {
    /// Where it can be had.
    http: String,
    /// The same with TLS, where a proxy adds that.
    https: String,
    /// SHA3-224 of the file.
    sha3: String,
    /// Its size in bytes.
    size: u64,
}

/// Where an image is and how large: by `hash` or by `tag`.
#[utoipa::path(
    get, path = "/v1/image/info", tag = "registry", security(()), params(Query),
    responses((status = 200, body = ImageInfo), (status = 400), (status = 404))
)]
async fn info(
    State(state): State<ApiState>,
    ApiQuery(query): ApiQuery<Query>,
    headers: HeaderMap,
) -> ApiResult<Json<ImageInfo>> {
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
    Ok(Json(ImageInfo {
        http: url("http"),
        https: url("https"),
        size: image.size,
        sha3: image.sha3,
    }))
}

/// An image's file.
///
/// GET and HEAD: the router answers HEAD without the body.
#[utoipa::path(
    get, path = "/download/{sha3}", tag = "registry", security(()),
    params(("sha3" = String, Path)),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 404)
    )
)]
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
