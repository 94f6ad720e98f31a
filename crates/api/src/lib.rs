//! The REST and WebSocket surface: Net API v1 and v2, Activity API, and our own additions, with
//! their OpenAPI document.
//!
//! Golem's APIs are served exactly as Golem's clients use them; what we add lives beside them under
//! `/gvpn/v1`. Every error is `{"message": ".."}` with a fitting status. `docs/api.md` tells the whole.

mod activity;
mod auth;
mod error;
mod extract;
mod identity;
mod net;
mod openapi;
mod own;
mod state;

pub mod golem;

use std::net::SocketAddr;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
};
use gvpn_gate::ClientSocket;
use gvpn_node::Node;
use utoipa_axum::router::OpenApiRouter;

pub use auth::AppKeyName;
pub use error::{ApiError, ApiResult};
pub use extract::{ApiJson, ApiPath, ApiQuery};
pub use state::ApiState;

/// The largest request body.
const BODY_MAX: usize = 8 << 20;

/// Everything the daemon serves over HTTP.
pub fn router(node: Node) -> Router {
    let state = ApiState::new(node);
    let (routes, document) = openapi::describe(described());
    routes
        .merge(openapi::router(&document))
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(state.clone(), auth::require_key))
        .with_state(state)
}

/// Every endpoint that the document describes: all but the document's own.
fn described() -> OpenApiRouter<ApiState> {
    openapi::root()
        .nest("/net-api/v1", net::router())
        .nest("/net-api/v2/vpn", net::router())
        .nest("/net-api/v2/net", net::status_router())
        .nest("/activity-api/v1", activity::router())
        .nest("/gvpn/v1", own::router())
        .merge(own::metrics_router())
        .merge(identity::router())
        .merge(golem::router())
}

/// Serves [`router`] on `listen` until the future is dropped; `ready` is told the bound address.
///
/// # Errors
/// When the address cannot be bound.
pub async fn serve(
    node: Node,
    listen: SocketAddr,
    ready: impl FnOnce(SocketAddr),
) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(listen).await?;
    ready(listener.local_addr()?);
    let service = router(node).into_make_service_with_connect_info::<ClientSocket>();
    axum::serve(listener, service).await
}

async fn unknown(method: Method, uri: Uri) -> ApiError {
    ApiError::not_found(format!("there is nothing at {method} {}; see /openapi.json", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}; see /openapi.json", uri.path());
    ApiError::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, message)
}
